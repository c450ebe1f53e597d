package sim

import "github.com/pgregent/pgregent/ha/policy/policytest"

// Row is one seeded mistake, the invariants that may notice it first, and what its seeds have in common. A mistake that
// plain seeds seldom reach is given the faults it needs; it is not given their order or their times.
type Row struct {
	Mistake  policytest.Mistake
	Expect   []string
	Focus    []string
	Only     bool   // no other kinds of faults
	Patroni  bool   // with a Patroni member
	Honest   bool   // without early ends of sessions and without operators who delete keys
	Late     bool   // with requests that are performed late
	Failsafe bool   // in failsafe mode, with its faults
	Twin     bool   // with a second machine under the name of another
	From     uint64 // the first seed that the short form plays: the mistake is rare, because a second rule covers for it; 0: the first
}

// Mistakes is the table of seeded mistakes.
func Mistakes() []Row {
	return []Row{
		{Mistake: policytest.MistakeLateDeadline, Expect: []string{"I1", "I2", "I3"}, Focus: []string{"slow-cut"}},
		{Mistake: policytest.MistakeLongDeadline, Expect: []string{"I1", "I2", "I3"}, Focus: []string{"cut-store"}},
		{Mistake: policytest.MistakeReleaseFirst, Expect: []string{"I13", "I1", "I3"}},
		{Mistake: policytest.MistakeNoWait, Expect: []string{"I3", "I1"}},
		{Mistake: policytest.MistakeNoReset, Expect: []string{"I3", "I1"}},
		{Mistake: policytest.MistakeKeepaliveOnly, Expect: []string{"I2", "I1", "I3"}},
		{Mistake: policytest.MistakeUnknownDone, Expect: []string{"I2", "I1", "I18", "I3"}, Focus: []string{"slow-store", "cut-store"}},
		{Mistake: policytest.MistakeUnknownLost, Expect: []string{"L4"}, Honest: true},
		{Mistake: policytest.MistakeRefusedLost, Expect: []string{"L4"}, Honest: true, Late: true},
		{Mistake: policytest.MistakeNoGuard, Expect: []string{"I1", "I2", "I12", "I3"}},
		{Mistake: policytest.MistakeNameOnly, Expect: []string{"I1", "I3", "I2", "I4"}, Twin: true},
		{Mistake: policytest.MistakeLowerTTL, Expect: []string{"I1", "I3", "I2"}, Focus: []string{"ttl-lost"}},
		{Mistake: policytest.MistakeLSNOnly, Expect: []string{"I12", "I10"}, Honest: true, Focus: []string{"cut", "cut-store"}},
		{Mistake: policytest.MistakeTrustTLI, Expect: []string{"I10", "I11", "I12"}, Honest: true, Focus: []string{"kill-new"}},
		{Mistake: policytest.MistakeForgetIntent, Expect: []string{"I10", "I11", "I12"}, Honest: true, Focus: []string{"kill-new"}, Only: true, From: 400},
		{Mistake: policytest.MistakeNotAnnounced, Expect: []string{"I10", "I11", "I12"}, Honest: true, Focus: []string{"kill-new"}},
		{Mistake: policytest.MistakeDeleteFirst, Expect: []string{"G2", "G4"}, Patroni: true, Honest: true, Focus: []string{"freeze", "slow-store"}},
		{Mistake: policytest.MistakeDeleteAny, Expect: []string{"G2", "G4"}, Patroni: true, Honest: true, Focus: []string{"switchover", "slow-store", "lose-reply"}},
		{Mistake: policytest.MistakeDeleteByName, Expect: []string{"G4", "G2"}, Patroni: true, Honest: true, Focus: []string{"swap", "cut-store", "kill"}},
		{Mistake: policytest.MistakeAdoptLeader, Expect: []string{"G2", "G4", "L1"}, Patroni: true, Honest: true, Focus: []string{"kill-agent", "switchover"}},
		{Mistake: policytest.MistakeShortSession, Expect: []string{"G2", "G4"}, Patroni: true, Honest: true, Focus: []string{"freeze", "cut-store"}},
		{Mistake: policytest.MistakeSessionNotRenewed, Expect: []string{"G2", "G4", "L4"}, Patroni: true, Honest: true},
		{Mistake: policytest.MistakeOrphan, Expect: []string{"L1"}, Honest: true},
		{Mistake: policytest.MistakeAbsentAtOnce, Expect: []string{"I3", "I1"}, Focus: []string{"delete-lease"}},
		{Mistake: policytest.MistakeReleaseReopened, Expect: []string{"I13", "I1", "I2"}},
		{Mistake: policytest.MistakeStartUnguarded, Expect: []string{"I14", "I1", "I2"}},
		{Mistake: policytest.MistakeOrphans, Expect: []string{"I13", "I1", "I2"}, Focus: []string{"kill-postmaster"}},
		{Mistake: policytest.MistakeLeftovers, Expect: []string{"I1", "I2", "I3"}, Focus: []string{"freeze-postmaster", "kill-guard"}, From: 230},
		{Mistake: policytest.MistakeNoKernelTimer, Expect: []string{"I1", "I2", "I3"}, Focus: []string{"freeze-guard"}},
		{Mistake: policytest.MistakeNoDeathSignal, Expect: []string{"I1", "I2", "I3"}, Focus: []string{"kill-guard", "kill-agent"}},
		{Mistake: policytest.MistakeNoSignal, Expect: []string{"I14", "I1"}, Focus: []string{"start-by-hand"}},
		{Mistake: policytest.MistakeNoVotes, Expect: []string{"I1", "I3"}, Failsafe: true},
		{Mistake: policytest.MistakePromiseForgotten, Expect: []string{"I1", "I3"}, Failsafe: true},
		{Mistake: policytest.MistakeVoteForgotten, Expect: []string{"I1", "I3"}, Failsafe: true, Focus: []string{"voter-flip"}, Only: true}, // it takes five members
		{Mistake: policytest.MistakeQuorumOff, Expect: []string{"I1", "I3"}, Failsafe: true},
		{Mistake: policytest.MistakeListOnePhase, Expect: []string{"I1", "I3"}, Failsafe: true},
	}
}
