package postgrestest_test

import (
	"context"
	"errors"
	"reflect"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pgregent/pgregent/postgres"
	"github.com/pgregent/pgregent/postgres/postgrestest"
	"github.com/pgregent/pgregent/postgres/wal"
)

// launch configures and starts a Fake.
func launch(t *testing.T, f *postgrestest.Fake, role postgres.Role, up string) *postgrestest.FakeProcess {
	t.Helper()
	ctx := t.Context()
	if _, err := f.Configure(ctx, postgres.Settings{}, role, postgres.Upstream{Name: up, Host: up, Port: 5432}); err != nil {
		t.Fatal(err)
	}
	command, err := f.Command(ctx, role)
	if err != nil {
		t.Fatal(err)
	}
	p, err := f.Launch(command)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.WaitAccepting(ctx); err != nil {
		t.Fatal(err)
	}
	return p
}

// TestFakeLife takes two fakes through a failover and back.
func TestFakeLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		a, b := postgrestest.NewFake(), postgrestest.NewFake()
		postgrestest.Join(map[string]*postgrestest.Fake{"a": a, "b": b})
		if st := a.Observe(ctx); st.Data != postgres.DataEmpty || !errors.Is(st.Err, postgres.ErrNotRunning) {
			t.Errorf("at first: %+v", st)
		}
		if err := a.Initdb(ctx); err != nil {
			t.Fatal(err)
		}
		a.Update(func(s *postgrestest.FakeState) { s.StartTime = time.Second })
		pa := launch(t, a, postgres.RolePrimary, "")
		if err := b.Clone(ctx, postgres.Source{Name: "a"}, nil); err != nil {
			t.Fatal(err)
		}
		launch(t, b, postgres.RoleReplica, "a")
		a.Write(100)
		sa, sb := a.Observe(ctx), b.Observe(ctx)
		if sa.Role != postgres.RolePrimary || !sb.Streaming || sb.Replayed != sa.Current {
			t.Errorf("primary %+v, replica %+v", sa, sb)
		}
		b.Update(func(s *postgrestest.FakeState) { s.Cut = true })
		a.Write(50)
		pa.Signal(syscall.SIGKILL)
		<-pa.Exited()
		if err := b.Promote(ctx); err != nil {
			t.Fatal(err)
		}
		b.Update(func(s *postgrestest.FakeState) { s.Cut = false })
		end, err := a.WALEnd(ctx)
		line, err2 := a.Identify(ctx, postgres.Source{Name: "b"})
		if err := errors.Join(err, err2); err != nil {
			t.Fatal(err)
		}
		fork := line.History.Switches[0]
		if end.LSN-fork.LSN != 50 || line.Position.Timeline != 2 {
			t.Errorf("end %+v, line %+v", end, line)
		}
		if err := a.Rewind(ctx, postgres.Source{Name: "b"}); err != nil {
			t.Fatal(err)
		}
		launch(t, a, postgres.RoleReplica, "b")
		if st := a.Observe(ctx); !st.Streaming || st.Timeline != 2 {
			t.Errorf("after the rewind: %+v", st)
		}
	})
}

// TestFakeBends shows Fail, Delay, Calls and the states of a server that does not answer.
func TestFakeBends(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := postgrestest.NewFake()
		broken := errors.New("broken")
		f.Fail("Initdb", broken)
		if err := f.Initdb(t.Context()); !errors.Is(err, broken) {
			t.Errorf("initdb: %v", err)
		}
		f.Fail("Initdb", nil)
		if err := f.Initdb(t.Context()); err != nil {
			t.Fatal(err)
		}
		f.Update(func(s *postgrestest.FakeState) { s.StartTime = time.Minute })
		command, err := f.Command(t.Context(), postgres.RolePrimary)
		if err != nil {
			t.Fatal(err)
		}
		p, err := f.Launch(command)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Launch(command); err == nil {
			t.Error("two servers run in one directory")
		}
		if st := f.Observe(t.Context()); !errors.Is(st.Err, postgres.ErrStarting) {
			t.Errorf("starting: %v", st.Err)
		}
		f.Delay("Promote", time.Hour)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := f.Promote(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("promote: %v", err)
		}
		f.Update(func(s *postgrestest.FakeState) { s.Hung, s.StartTime = true, 0 })
		p.Signal(syscall.SIGQUIT)
		if st := f.Observe(t.Context()); st.Answered || errors.Is(st.Err, postgres.ErrNotRunning) {
			t.Errorf("hung: %+v", st)
		}
		p.Signal(syscall.SIGKILL)
		if err := f.SyncSlots(t.Context(), map[string]wal.LSN{"x": 0}); !errors.Is(err, postgres.ErrNotRunning) {
			t.Errorf("slots: %v", err)
		}
		var methods []string
		for _, c := range f.Calls() {
			methods = append(methods, c.Method)
		}
		if want := []string{"Initdb", "Initdb", "Command", "Promote", "SyncSlots"}; !reflect.DeepEqual(methods, want) {
			t.Errorf("calls %v, want %v", methods, want)
		}
	})
}
