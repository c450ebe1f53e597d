package ha

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/pgregent/pgregent/dcs"
	"github.com/pgregent/pgregent/ha/cluster"
	"github.com/pgregent/pgregent/ha/policy"
	"github.com/pgregent/pgregent/ha/rest"
	"github.com/pgregent/pgregent/postgres"
	"github.com/pgregent/pgregent/postgres/wal"
)

// failsafe is what the loop knows of failsafe mode (lease rules R12 to R14); it is the loop's own.
type failsafe struct {
	answers time.Duration // since when the store answers

	round  *dcs.Round    // the last one
	asked  time.Duration // when it began
	asking bool
	enough bool // the last round that ended, or lengthened the deadline, was enough
	yes    []string
	no     []string

	voting  bool
	voted   time.Duration
	polled  bool
	about   dcs.Version // the version that was voted on
	refused []policy.Refusal
}

var _ rest.Voter = (*Node)(nil)

// Promise, Vote and Accept answer other members, from any goroutine and without the loop.
func (n *Node) Promise(q dcs.PromiseRequest) dcs.VoterAnswer {
	if v := n.voter.Load(); v != nil {
		return v.Promise(q)
	}
	return dcs.VoterAnswer{Why: errStarting.Error()}
}

// Vote is rule R13; see Promise.
func (n *Node) Vote(q dcs.VoteRequest) dcs.VoterAnswer {
	if v := n.voter.Load(); v != nil {
		return v.Vote(q)
	}
	return dcs.VoterAnswer{Why: errStarting.Error()}
}

// Accept answers a Patroni leader; see Promise.
func (n *Node) Accept(leader string) (wal.LSN, error) {
	if v := n.voter.Load(); v != nil {
		return v.Accept(leader)
	}
	return 0, errStarting
}

var errStarting = errors.New("this member is starting")

// observeFailsafe takes in what a read of the store says about failsafe mode.
func (n *Node) observeFailsafe() {
	now, on := n.clock.Now(), n.dynamic.FailsafeMode
	n.lease.SetFailsafe(on, now)
	if m := n.cluster.Failsafe.Members; len(m) > 0 {
		n.lease.KnowMembers(slices.Sorted(maps.Keys(m)))
	}
	r, _, ok, _ := n.lease.Record()
	v := n.voter.Load()
	v.enabled.Store(on)
	if ok {
		id := n.cluster.Initialize
		if !id.Valid() {
			id.SystemID = ""
		}
		v.seen(id.SystemID, r.Stamp(), r.List().Has(n.cfg.Name))
	}
	if _, open := n.lease.Open(); open && (on || len(r.Members) > 0) {
		members, unanimous := policy.FailsafeList(n.cluster, n.dynamic, policy.ListHolder{
			Self: n.cfg.Name, Voteless: n.voteless(), List: r.Members, All: r.Unanimous, Answering: now - n.fs.answers,
		})
		n.lease.WantMembers(dcs.List{Members: members, Unanimous: unanimous})
	}
}

// tellVoter tells the voter what it cannot see. closed is certain only while the guard answers.
func (n *Node) tellVoter() {
	v := n.voter.Load()
	st := n.guardState
	v.closed.Store(n.guardErr == nil && !st.Open)
	v.primary.Store(n.server.Answered && n.server.Role == postgres.RolePrimary || st.Postmaster.Running && st.Postmaster.Primary)
	v.lsn.Store(uint64(n.server.Position().LSN))
}

// failsafeKey is the copy of the list for Patroni members, to travel with the renewal that changes it.
func (n *Node) failsafeKey(members []string) []dcs.Op {
	if !n.dynamic.FailsafeMode {
		return nil
	}
	urls := policy.FailsafeURLs(n.cluster, members, n.cfg.Name, n.cfg.APIURL)
	if k := n.cluster.Failsafe; k.Present && k.Err == nil && maps.Equal(k.Members, urls) {
		return nil
	}
	return []dcs.Op{dcs.Put(cluster.KeyFailsafe, cluster.EncodeFailsafe(urls))}
}

// failsafeView is what the policy sees.
func (n *Node) failsafeView(now time.Duration) policy.Failsafe {
	r, _, _, _ := n.lease.Record()
	fs := &n.fs
	v := policy.Failsafe{List: r.Members, Asking: fs.asking, Asked: now - fs.asked, Voting: fs.voting, Voted: now - fs.voted}
	_, open := n.lease.Open()
	v.Unsettled = open && !n.lease.ListSettled()
	if fs.round != nil && fs.round.Request.Stamp.Epoch == n.epoch() && fs.round.Sent > n.lease.Renewed() {
		v.Yes, v.No, v.Need, v.Enough = fs.yes, fs.no, r.List().Promises(), fs.enough
	}
	if b, needed := n.lease.Ballot(n.fresh()); needed {
		v.Ballot = b.Members
		v.Polled = fs.polled && fs.about == b.Version
	}
	if v.Polled {
		v.Refused = fs.refused
	}
	m := n.voter.Load().snapshot.Load()
	v.PromisedTo, v.PromisedFor = m.Promised(now)
	v.Accepted = m.Accepted(now)
	v.Voteless = n.voteless()
	return v
}

// voteless says that this member lost its memory of promises (R14).
func (n *Node) voteless() bool {
	return n.dynamic.FailsafeMode && !n.voter.Load().snapshot.Load().Joined()
}

// askedMember is a member to be asked, and what is known of its program.
type askedMember struct {
	name, url string
	patroni   bool // certainly
	pgregent  bool // certainly
}

func (n *Node) toAsk(names []string) []askedMember {
	out := make([]askedMember, 0, len(names))
	for _, name := range names {
		a := askedMember{name: name, url: n.cluster.Failsafe.Members[name]}
		if m, ok := n.cluster.Member(name); ok {
			a.patroni, a.pgregent = m.Pgregent == "", m.Pgregent != ""
			if m.APIURL != "" {
				a.url = m.APIURL
			}
		}
		out = append(out, a)
	}
	return out
}

func (n *Node) question(to string) rest.Question {
	return rest.Question{Scope: n.cfg.Scope, From: n.cfg.Name, To: to}
}

// askPromises asks the failsafe list, all at once (R12). The deadline moves as soon as there are enough: a silent member
// delays nothing.
func (n *Node) askPromises(ctx context.Context) {
	fs := &n.fs
	sent := n.clock.Now()
	r, err := n.lease.Round(sent, n.dynamic.TTL)
	if fs.asking || err != nil {
		return
	}
	if fs.round == nil || fs.round.Sent <= n.lease.Renewed() {
		fs.yes, fs.no, fs.enough = nil, nil, false // those were of an earlier silence
	}
	fs.round, fs.asked, fs.asking = r, sent, true
	members := n.toAsk(r.Members)
	leader := rest.PatroniLeader{Name: n.cfg.Name, ConnURL: n.cfg.ConnURL, APIURL: n.cfg.APIURL, Slots: map[string]uint64{}}
	for _, s := range n.server.Slots {
		if s.RestartLSN != 0 {
			leader.Slots[s.Name] = uint64(s.RestartLSN)
		}
	}
	n.settleRound(ctx, r)
	left := len(members)
	if left == 0 {
		n.endRound(r)
		return
	}
	limit := min(askLimit, max(n.lease.Deadline()-dcs.FenceHeadStart(n.leaseTTL())-sent, time.Millisecond))
	for _, m := range members {
		go func() {
			call, cancel := context.WithTimeout(ctx, limit)
			defer cancel()
			promised, accepted := n.askPromise(call, m, leader, r.Request)
			n.post(ctx, func() {
				if promised {
					r.Promised(m.name)
				} else if accepted {
					r.Accepted(m.name)
				}
				n.settleRound(ctx, r)
				if left--; left == 0 {
					n.endRound(r)
				}
			})
		}()
	}
}

// askPromise asks one member, by its own protocol. r.Request is not changed by anybody.
func (n *Node) askPromise(ctx context.Context, m askedMember, leader rest.PatroniLeader, q dcs.PromiseRequest) (promised, accepted bool) {
	var err error
	if !m.patroni {
		var a dcs.VoterAnswer
		a, err = rest.AskPromise(ctx, n.cfg.Peers, m.url, n.question(m.name), q)
		if err == nil && !a.Yes {
			err = errors.New(a.Why)
		} else if err == nil {
			return true, false
		}
	}
	if m.patroni || errors.Is(err, rest.ErrNoVoter) && !m.pgregent {
		err = rest.AskPatroni(ctx, n.cfg.Peers, m.url, leader)
		if err == nil {
			return false, true
		}
	}
	n.log.Debug("no promise", "of", m.name, "why", err)
	return false, false
}

// settleRound lengthens the deadline once, when the round has promises enough, and hands it to the guard: only then it is
// worth something.
func (n *Node) settleRound(ctx context.Context, r *dcs.Round) {
	deadline := n.lease.SettleRound(r)
	if deadline == 0 {
		return
	}
	n.fs.enough, n.fs.yes, n.fs.no = true, r.Yes(), r.No()
	call, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
	defer cancel()
	if err := n.extend(call, deadline, r.Sent); err != nil {
		n.log.Warn("promises could not lengthen the deadline", "error", err)
	}
	n.counters.add("failsafe_rounds_total", 1)
}

func (n *Node) endRound(r *dcs.Round) {
	if n.fs.round != r {
		return
	}
	n.fs.asking, n.fs.yes, n.fs.no = false, r.Yes(), r.No()
	if !r.Enough() {
		n.fs.enough = false
		n.counters.add("failsafe_rounds_failed_total", 1)
		n.log.Warn("too few promises to go on without the store", "of", strings.Join(r.Yes(), ", "), "none of", strings.Join(r.No(), ", "))
	}
}

// askVotes asks the failsafe list for votes, this node among them (R13).
func (n *Node) askVotes(ctx context.Context) {
	fs := &n.fs
	b, needed := n.lease.Ballot(n.fresh())
	if fs.voting || !needed {
		return
	}
	fs.voting, fs.voted = true, n.clock.Now()
	v := n.voter.Load()
	left := len(b.Members)
	var refused []policy.Refusal
	got := func(m string, a dcs.VoterAnswer) {
		n.lease.KnowEpoch(a.Known.Epoch)
		if a.Yes {
			n.lease.Voted(b.Version, m)
		} else {
			refused = append(refused, policy.Refusal{Member: m, Why: a.Why})
		}
		if left--; left > 0 {
			return
		}
		slices.SortFunc(refused, func(a, b policy.Refusal) int { return strings.Compare(a.Member, b.Member) })
		fs.voting, fs.polled, fs.about, fs.refused = false, true, b.Version, refused
		n.log.Info("asked for votes", "stamp", b.Request.Stamp.String(), "of", strings.Join(b.Members, ", "), "refused", len(refused))
	}
	for _, m := range n.toAsk(b.Members) {
		go func() {
			var a dcs.VoterAnswer
			if m.name == n.cfg.Name {
				a = v.Vote(b.Request)
			} else {
				a = n.askVote(ctx, m, b.Request)
			}
			n.post(ctx, func() { got(m.name, a) })
		}()
	}
	if left == 0 {
		fs.voting, fs.polled, fs.about, fs.refused = false, true, b.Version, nil
	}
}

func (n *Node) askVote(ctx context.Context, m askedMember, q dcs.VoteRequest) dcs.VoterAnswer {
	if m.patroni {
		return dcs.VoterAnswer{Why: "it is a Patroni member"}
	}
	call, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	a, err := rest.AskVote(call, n.cfg.Peers, m.url, n.question(m.name), q)
	if err != nil {
		return dcs.VoterAnswer{Why: "it does not answer: " + err.Error()}
	}
	return a
}
