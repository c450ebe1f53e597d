// Package sim plays random schedules on the model cluster of package policytest and checks the invariants after every
// event. A seed fixes everything: the cluster, how the network behaves, the faults and their times, and every delay.
// The same seed gives the same events (Result.Hash).
//
// Each seed draws a profile first, the kinds of faults that it plays and how often (swarm testing), so that rare
// combinations meet. After the faults everything heals, and the cluster has a bounded time to become healthy.
//
// A failing seed prints itself as a story in policytest's text format, shortened as far as it still fails:
//
//	go test ./ha/policy/sim                  300 seeds, and every seeded mistake until an invariant notices it
//	PROVE=full go test ./ha/policy/sim       20,000 seeds; SEEDS=n any number
//	SEED=n go test -v -run TestSeeds ./ha/policy/sim
//
// Agent, guard, postmaster and busy backends die and stand still one by one and together. What is checked: I1 and I2, on
// everything that may acknowledge a write, orphans included; I3, I4, I10, I11, I12, I13, I14, I16, I18, L1, L4; that nothing
// loops hot; and beside Patroni members G2 (no pgregent writes while a Patroni member rightly holds `leader`) and G4 (no
// pgregent removes a live Patroni member's key).
//
// What is not held against anybody: the two named exceptions of package policytest, about a node on which nobody is left to
// fence, and about a crash before the mark at rest is written; WAL that a Patroni member's promotion mixed up, because it
// leaves no identity; which branch counts after an operator deleted the lease record; what PostgreSQL's receiver streams by
// itself while its agent is dead, frozen or without the store; one writer while a pause holds no deadline; and becoming
// healthy beside Patroni members, which is counted and not promised.
//
// The package contains no rules and no model of its own, and it does not replace the exhaustive check of the lease
// protocol: it draws, it does not enumerate.
package sim
