// Package consul is a dcs.Store on Consul, over its HTTP API.
//
//	store, err := consul.Open(ctx, consul.Config{Host: "127.0.0.1:8500", Prefix: "/service/orders"})
//
// Keys are stored as Prefix without its first '/', "/" and key, which is how Patroni stores them (reference section 1.1). A
// version is the ModifyIndex of the key, a Txn is one call of /v1/txn, Read is one recursive listing with ?consistent, so
// one cut of the leader's state. Sessions are Consul's, with the behaviour "delete", the shortest lock-delay and no checks
// unless Config.Checks names some. Service is the entry in the catalog (Patroni's register_service).
//
// A put deletes the key and creates it anew, in the same transaction: a plain write of Consul would keep the session that
// the key is bound to, could not move it to another, and would not change the version when the value stays.
//
// # Time-outs of sessions
//
// Consul takes nothing shorter than 10 s (session_ttl_min) and ends a session after twice its time (SessionTTLMultiplier in
// agent/structs: 2 in every release so far). So half of what is asked for is sent, as Patroni does, and not less than the
// minimum: a session of 8 s is one of 10 s for OpenSession and ends after 20 s. The lease record does not depend on it.
//
// # Endpoints
//
// Usually there is one, the local agent. A call that is not answered within a third of the time it has, and at most half a
// second, is made again, at the next endpoint when there are several, and the first answer counts. Never is a write made twice
// that could be performed twice: only reads, renewals, and transactions that change a key whose version they ask for. When
// such a transaction is refused although it may have been performed before, the outcome is dcs.ErrUnknown.
//
// # What it does not do
//
// It renews nothing by itself: a session ends unless Session.Renew is called (hazard A2). It polls nothing: a watch is one
// blocking query for each key, asked again every 20 s. It does not ask for the other servers of the cluster. It does not
// notice a cluster that was restored from a snapshot and uses versions again. The environment variables CONSUL_HTTP_TOKEN,
// CONSUL_NAMESPACE and CONSUL_PARTITION fill in for what Config leaves empty, because the client library sees to that.
package consul
