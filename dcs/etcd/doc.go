// Package etcd is a dcs.Store on an etcd v3 cluster, over gRPC.
//
//	store, err := etcd.Open(ctx, etcd.Config{Endpoints: []string{"https://10.0.0.1:2379"}, Prefix: "/service/orders"})
//
// Keys are stored as Prefix + "/" + key, which is how Patroni stores them (reference section 1.1); sessions are leases, a
// version is the ModRevision of the key, reads are linearizable, and a Txn is one etcd transaction.
//
// # Endpoints
//
// The package makes one connection for each endpoint, when it is first needed, and prefers one endpoint until it fails.
// A call that is not answered within a third of the time it has, and at most half a second, goes to the next endpoint as well,
// and the first answer counts; so a member that is frozen or black-holed costs a fraction of the deadline and not all of
// it. gRPC's own keepalive, which may not ping more often than every 10 s, only cleans up behind.
//
// That must never perform a write twice. A call is sent to a second endpoint, after the first may have got it, only when
// the second time can change nothing: reads, renewals, and transactions that change a key whose version they ask for (the
// second finds another version). When such a transaction is then refused, the first may be why, and the outcome is
// dcs.ErrUnknown. Any other transaction is sent once.
//
// # What it does not do
//
// It renews nothing by itself: a session ends unless Session.Renew is called (hazard A2). It does not judge whether the
// server kept a lease as it should; some versions do not (hazards A7, A8, A13), which Warnings names. It polls nothing:
// between calls there are only gRPC's pings, and every five minutes, with a call, a question for the members.
package etcd
