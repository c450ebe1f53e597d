package dcstest

import (
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/anishathalye/porcupine"
)

// A history is what several clients did to a few keys, with the time each call took. porcupine looks for an order of the
// calls, each somewhere within its time, in which one copy of the keys would have answered the same.
//
// Every put writes a value of its own. So a version stands for a value, and the model needs no versions: a condition on
// the version that came with value x holds exactly while the value is x. A store that gives a version out twice, checks
// conditions on an old copy, or does half of a transaction does something that no order explains.

// historyKeys are the keys.
var historyKeys = [...]string{"a", "members/b", "z"}

// historyState is the value of each key, "" for absent.
type historyState [len(historyKeys)]string

// historyInput is one call: a Read, or a Commit with a condition on each key that is asked and an operation on each that
// is changed.
type historyInput struct {
	read           bool
	asked, changed [len(historyKeys)]bool
	want           historyState // what conditions ask for, "" for absent
	put            historyState // the new value, "" for a delete
}

func (in historyInput) String() string {
	if in.read {
		return "read"
	}
	s := ""
	for i, key := range historyKeys {
		if in.asked[i] {
			s += fmt.Sprintf("if %s is %q ", key, in.want[i])
		}
		if in.changed[i] {
			s += fmt.Sprintf("%s becomes %q ", key, in.put[i])
		}
	}
	return s
}

// holds says whether all conditions do.
func (in historyInput) holds(s historyState) bool {
	for i := range s {
		if in.asked[i] && s[i] != in.want[i] {
			return false
		}
	}
	return true
}

// after is what the call leaves.
func (in historyInput) after(s historyState) historyState {
	for i := range s {
		if in.changed[i] {
			s[i] = in.put[i]
		}
	}
	return s
}

// historyOutput is its answer. An unknown outcome matches anything: the call may have happened, at any time from then on.
type historyOutput struct {
	seen     historyState // by a Read
	conflict bool
	unknown  bool
}

func historyModel() porcupine.Model {
	return porcupine.Model{
		Init: func() any { return historyState{} },
		Step: func(state, input, output any) (bool, any) {
			s, in, out := state.(historyState), input.(historyInput), output.(historyOutput)
			switch {
			case in.read:
				return out.seen == s, s
			case !in.holds(s):
				return out.unknown || out.conflict, s
			case out.conflict:
				return false, s
			default:
				return true, in.after(s)
			}
		},
		DescribeOperation: func(input, output any) string { return fmt.Sprintf("%v: %+v", input, output) },
	}
}

// recording collects a history.
type recording struct {
	mu    sync.Mutex
	start time.Time
	ops   []porcupine.Operation
}

// note records a call that began at call.
func (r *recording) note(client int, call time.Duration, in historyInput, out historyOutput) {
	end := int64(time.Since(r.start))
	if out.unknown {
		end = math.MaxInt64
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ops = append(r.ops, porcupine.Operation{ClientId: client, Input: in, Call: int64(call), Output: out, Return: end})
}

// check asks porcupine.
func (e *env) check(rec *recording) {
	e.Helper()
	switch porcupine.CheckOperationsTimeout(historyModel(), rec.ops, 30*time.Second) {
	case porcupine.Ok:
	case porcupine.Illegal:
		for _, op := range rec.ops {
			e.Logf("client %d, %v to %v: %v: %+v", op.ClientId, time.Duration(op.Call), time.Duration(op.Return), op.Input, op.Output)
		}
		e.Errorf("no order explains these %d calls: the store is not linearizable", len(rec.ops))
	case porcupine.Unknown:
		e.Errorf("the history of %d calls could not be checked in 30 s", len(rec.ops))
	}
}
