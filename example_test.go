package pgregent_test

import (
	"context"
	"fmt"
	"time"

	"github.com/pgregent/pgregent/dcs"
	"github.com/pgregent/pgregent/dcs/memory"
)

// The lease protocol, which everything stands on, can be used alone: one member takes the lease, another one waits it out.
func Example() {
	ctx := context.Background()
	clock := memory.NewManualClock()
	store := memory.NewServer(clock).Open("/service/orders")
	const ttl = 8 * time.Second

	join := func(name string) (*dcs.Lease, dcs.Session) {
		session, _ := store.OpenSession(ctx, ttl)
		lease := dcs.NewLease(dcs.Identity{Name: name, Nonce: "guard of " + name})
		lease.KnowTTL(ttl)
		return lease, session
	}
	take := func(lease *dcs.Lease, session dcs.Session, fresh bool) error {
		snapshot, _ := store.Read(ctx)
		lease.Observe(snapshot, clock.Now())
		step, err := lease.Take(clock.Now(), clock.Now(), session.ID(), ttl, fresh)
		if err != nil {
			return err
		}
		result, err := store.Commit(ctx, step.Txn)
		fmt.Println("may serve until", lease.Settle(step, result, err).Round(10*time.Millisecond))
		return err
	}

	a, sessionA := join("a")
	fmt.Println(take(a, sessionA, true))

	b, sessionB := join("b")
	fmt.Println(take(b, sessionB, false)) // nobody renews any more, but a's clock is not ours to judge
	clock.Advance(4 * time.Second)
	_ = sessionB.Renew(ctx)
	clock.Advance(4 * time.Second)
	fmt.Println(take(b, sessionB, false))
	// Output:
	// may serve until 6.1s
	// <nil>
	// the lease may not be taken: held by "a", unchanged for 0s of 8s
	// may serve until 14.1s
	// <nil>
}
