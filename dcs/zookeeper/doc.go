// Package zookeeper is a dcs.Store on a ZooKeeper ensemble, 3.5 and newer.
//
//	store, err := zookeeper.Open(ctx, zookeeper.Config{Hosts: []string{"10.0.0.1:2181", "10.0.0.2"}, Prefix: "/service/orders"})
//
// Keys are nodes at Prefix + "/" + key, which is how Patroni stores them (reference section 1.1 and 1.9), and values are
// stored as they are. A version is the zxid of the node's last change (mzxid), which no other change ever has. Sessions are
// ZooKeeper sessions with a connection of their own, and their keys are ephemeral nodes. A Txn is one multi.
//
// # What is a key
//
// ZooKeeper has no difference between folder and file. A node is a key when it has data or was written after it was
// created: this package writes each key that it creates, in the same multi, so that its version is at least 1 (and never
// the 0 of a node that Patroni has just created, which makes no second write). Empty nodes at version 0 are the folders that
// clients make on the way. A key that is deleted while it has children becomes a folder again by a mark in its data.
//
// # Transactions
//
// The conditions of a multi are on a node's version, a counter that begins at 0 again when the node is deleted and created.
// So a Commit first looks which counter belongs to the version it is asked for, and then there are two dangers between
// that look and the multi: the node is replaced by one that has the same counter, and a key appears that had to be
// absent. Both are closed by the node of the prefix: every Commit that creates or deletes a node writes it, and every
// other one checks its counter, in the same multi. Whoever loses looks again. Other software does not write it; what that
// leaves open is told in commit.go.
//
// # Reads
//
// A server answers reads from its own copy. Read first commits a multi that does nothing but check the prefix, which goes
// through the quorum like any write (sync does not, and a deposed leader answers it); the server then has all that was
// acknowledged before. It then collects the nodes. When none has changed since, that is what was true at the check;
// otherwise it looks at all of them again until nothing has changed in between, so that there was a moment at which all of
// it was true.
//
// # Connections
//
// The client library has no contexts, and a request that it has taken can only be ended with its connection. So a call
// whose time is over closes the connection that it used, other calls on it start again where that is harmless, and
// the next connection goes to another server. One that is cancelled before does so a second later, if the server is still silent. Reads, watches and permanent keys share one connection; its session holds
// nothing.
//
// # What it does not do
//
// It does not renew sessions: the library pings by itself, which keeps a session alive, so a session is closed when
// Session.Renew was not called for its TTL (hazard A2). It has no SASL, and cannot bind keys of one Txn to several sessions,
// put a key below one that is bound to a session, or hold keys with empty parts ("a//b"). Versions are only as unique as
// the ensemble's zxid: one that was restored from a backup gives some of them out again.
package zookeeper
