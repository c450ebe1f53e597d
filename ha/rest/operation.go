package rest

import (
	"encoding/json"
	"time"
)

// Operation is one change of a node's state, from when it left the one until it was settled in the next, cut into phases:
// where the time of a failover, a switchover, a start or a rejoin went, as this node saw it.
type Operation struct {
	// Kind is what it turned out to be:
	//
	//	start       the agent's start, until the node leads or follows
	//	bootstrap   the same, with the creation of a cluster
	//	failover    this node took over from a leader that had not released the lease
	//	switchover  this node took over from a leader that had
	//	handover    this node led, and another one leads now by its release
	//	demotion    this node led and had to end, and follows now or nobody leads
	//	restart     this node led before and leads again: its PostgreSQL was started in place
	//	rejoin      a follower's PostgreSQL was started, rewound or copied anew
	//	repoint     a follower follows another leader
	//	stop        the agent's orderly end
	Kind   string        `json:"kind"`
	Began  time.Time     `json:"began"`
	Took   time.Duration `json:"-"`
	Result string        `json:"result"` // the reason that it ended with: leader, follower, ...
	Epoch  uint64        `json:"epoch,omitempty"`
	Phases []Phase       `json:"phases"`
}

// Phase is a part of an Operation. Its name is the step of a task (checkpoint, stop, release, promote, ...), a task, or the
// reason of the decisions in that time (docs/reference/reasons.md).
type Phase struct {
	Name string        `json:"name"`
	Took time.Duration `json:"-"`
}

// MarshalJSON writes the duration in seconds.
func (o Operation) MarshalJSON() ([]byte, error) {
	type plain Operation
	return json.Marshal(struct {
		plain
		Seconds float64 `json:"seconds"`
	}{plain(o), o.Took.Seconds()})
}

// UnmarshalJSON reads what MarshalJSON writes.
func (o *Operation) UnmarshalJSON(b []byte) error {
	type plain Operation
	v := struct {
		*plain
		Seconds float64 `json:"seconds"`
	}{plain: (*plain)(o)}
	if err := json.Unmarshal(b, &v); err != nil {
		return err
	}
	o.Took = seconds(v.Seconds)
	return nil
}

// MarshalJSON writes the duration in seconds.
func (p Phase) MarshalJSON() ([]byte, error) {
	return json.Marshal(map[string]any{"name": p.Name, "seconds": p.Took.Seconds()})
}

// UnmarshalJSON reads what MarshalJSON writes.
func (p *Phase) UnmarshalJSON(b []byte) error {
	var v struct {
		Name    string  `json:"name"`
		Seconds float64 `json:"seconds"`
	}
	if err := json.Unmarshal(b, &v); err != nil {
		return err
	}
	p.Name, p.Took = v.Name, seconds(v.Seconds)
	return nil
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }
