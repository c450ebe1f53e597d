// Package sim plays random schedules on the model cluster of package policytest and checks the invariants after every
// event. A seed fixes everything: the cluster, how the network behaves, the faults and their times, and every delay.
// The same seed gives the same events (Result.Hash).
//
// Each seed draws a profile first, the kinds of faults that it plays and how often (swarm testing), so that rare
// combinations meet. After the faults everything heals, and the cluster has a bounded time to become healthy.
//
// A failing seed prints itself as a story in policytest's text format, shortened as far as it still fails.
//
// The package contains no rules and no model of its own, and it does not replace the exhaustive check of the lease
// protocol: it draws, it does not enumerate.
package sim
