package rest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/pgregent/pgregent/dcs"
	"github.com/pgregent/pgregent/postgres/wal"
)

// Voter is a node's part in failsafe mode. The answers do not wait for the node's loop, which may be waiting for a silent
// store; a yes is on disk before it is returned (lease rule R14).
type Voter interface {
	// Promise answers a holder without the store (R12).
	Promise(q dcs.PromiseRequest) dcs.VoterAnswer
	// Vote answers a taker (R13).
	Vote(q dcs.VoteRequest) dcs.VoterAnswer
	// Accept answers a Patroni leader without the store (reference section 5.17). The position is 0 when it is not known.
	Accept(leader string) (wal.LSN, error)
}

// Errors of Voter.Accept that Patroni has an answer for.
var (
	ErrFailsafeOff = errors.New("failsafe mode is off")
	//lint:ignore ST1005 these are Patroni's words
	ErrPrimary = errors.New("Running as a leader")
)

// Question is the body of POST /pgregent/promise and POST /pgregent/vote, which members of this program ask each other.
type Question struct {
	Version int    `json:"version"` // questionVersion
	Scope   string `json:"scope"`
	From    string `json:"from"`
	// To is who is meant: an address may have gone to another member, whose answer would count for this one.
	To      string  `json:"to"`
	Epoch   uint64  `json:"epoch"`
	Counter uint64  `json:"counter"`
	Nonce   string  `json:"nonce,omitempty"` // promise
	TTL     float64 `json:"ttl,omitempty"`   // promise: seconds
}

// reply is the answer to a Question.
type reply struct {
	Version int       `json:"version"`
	From    string    `json:"from"`
	Yes     bool      `json:"yes"`
	Why     string    `json:"why,omitempty"`
	Left    float64   `json:"left,omitempty"` // seconds
	Known   dcs.Stamp `json:"known,omitzero"`
}

const (
	questionVersion = 1
	maxName         = 512
	maxPromise      = time.Hour // a longer ttl is nonsense, and would bind its member
)

// parseQuestion reads a question strictly: one object, known fields, known version, every field in its range.
func parseQuestion(b []byte, promise bool) (Question, error) {
	var q Question
	if len(b) > maxRequest {
		return q, errors.New("the body is larger than 64 kB")
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&q); err != nil {
		return q, fmt.Errorf("the body is no question: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return q, errors.New("something stands behind the body")
	}
	switch {
	case q.Version != questionVersion:
		return q, fmt.Errorf("version: %d is not known here, %d is; the members must run versions that know each other", q.Version, questionVersion)
	case q.Scope == "" || q.From == "" || q.To == "" || len(q.Scope)+len(q.From)+len(q.To)+len(q.Nonce) > maxName:
		return q, errors.New("scope, from, to: each must be there, and not be longer than a name")
	case q.Epoch == 0:
		return q, errors.New("epoch: is missing")
	case promise && q.Nonce == "":
		return q, errors.New("nonce: is missing")
	case promise && !(q.TTL > 0 && q.TTL <= maxPromise.Seconds()):
		return q, fmt.Errorf("ttl: %v is not between 0 and %v seconds", q.TTL, maxPromise.Seconds())
	}
	return q, nil
}

// question answers POST /pgregent/promise and POST /pgregent/vote: 200 with a yes or a no, 400 for what is no question,
// 409 for one that is meant for somebody else.
func (a *API) question(x *exchange) {
	promise := false
	switch x.req.URL.Path {
	case "/pgregent/promise":
		promise = true
	case "/pgregent/vote":
	default:
		x.text(http.StatusNotFound, "no such request")
		return
	}
	b, no := x.raw(false)
	if no != nil {
		x.text(no.code, no.text)
		return
	}
	q, err := parseQuestion(b, promise)
	if err != nil {
		x.text(http.StatusBadRequest, err.Error())
		return
	}
	r := x.report
	if q.Scope != r.Scope || q.To != r.Name {
		x.text(http.StatusConflict, fmt.Sprintf("this is member %q of %q: correct api_url of %q", r.Name, r.Scope, q.To))
		return
	}
	stamp := dcs.Stamp{Epoch: q.Epoch, Counter: q.Counter}
	var v dcs.VoterAnswer
	if promise {
		ttl := time.Duration(math.Ceil(q.TTL * float64(time.Second)))
		v = a.node.Promise(dcs.PromiseRequest{Holder: q.From, Nonce: q.Nonce, Stamp: stamp, TTL: dcs.Seconds(ttl)})
	} else {
		v = a.node.Vote(dcs.VoteRequest{Taker: q.From, Stamp: stamp})
	}
	x.set.log.Debug("a member asked", "request", x.req.URL.Path, "from", q.From, "stamp", stamp.String(), "yes", v.Yes, "why", v.Why)
	x.json(http.StatusOK, reply{Version: questionVersion, From: r.Name, Yes: v.Yes, Why: v.Why, Left: v.Left.Seconds(), Known: v.Known})
}

// failsafe answers a Patroni leader that asks for our consent while the store is silent (reference section 2.8). Fields
// that are not known are let pass: a later Patroni may send more, and a no would end its primary.
func (a *API) failsafe(x *exchange) {
	m, no := x.object(false)
	if no != nil {
		x.text(no.code, no.text)
		return
	}
	for _, key := range []string{"name", "conn_url", "api_url"} {
		if s, ok := m[key].(string); !ok || s == "" || len(s) > maxName {
			x.text(http.StatusBadRequest, key+": a text is needed")
			return
		}
	}
	lsn, err := a.node.Accept(m["name"].(string))
	switch {
	case errors.Is(err, ErrFailsafeOff):
		x.text(http.StatusBadGateway, err.Error())
	case err != nil:
		x.text(http.StatusInternalServerError, err.Error())
	default:
		if lsn != 0 {
			x.w.Header().Set("lsn", strconv.FormatUint(uint64(lsn), 10))
		}
		x.text(http.StatusOK, accepted)
	}
}

// accepted is the body that counts, to the letter.
const accepted = "Accepted"

// Poster sends one request; *Client is one.
type Poster interface {
	// Post sends a JSON body and returns the answer, whatever its status code.
	Post(ctx context.Context, url string, body []byte) (text string, code int, err error)
}

// ErrNoVoter says that a member does not know our questions: it runs another program.
var ErrNoVoter = errors.New("the member does not know promises and votes")

// AskPromise asks the member at apiURL for a promise. Scope, From and To must be set.
func AskPromise(ctx context.Context, p Poster, apiURL string, q Question, r dcs.PromiseRequest) (dcs.VoterAnswer, error) {
	q.Epoch, q.Counter, q.Nonce, q.TTL = r.Stamp.Epoch, r.Stamp.Counter, r.Nonce, time.Duration(r.TTL).Seconds()
	return ask(ctx, p, apiURL, "/pgregent/promise", q)
}

// AskVote asks the member at apiURL for a vote. Scope, From and To must be set.
func AskVote(ctx context.Context, p Poster, apiURL string, q Question, r dcs.VoteRequest) (dcs.VoterAnswer, error) {
	q.Epoch, q.Counter = r.Stamp.Epoch, r.Stamp.Counter
	return ask(ctx, p, apiURL, "/pgregent/vote", q)
}

func ask(ctx context.Context, p Poster, apiURL, path string, q Question) (dcs.VoterAnswer, error) {
	q.Version = questionVersion
	b, err := json.Marshal(q)
	if err != nil {
		return dcs.VoterAnswer{}, err
	}
	u, err := at(apiURL, path)
	if err != nil {
		return dcs.VoterAnswer{}, err
	}
	text, code, err := p.Post(ctx, u, b)
	switch {
	case err != nil:
		return dcs.VoterAnswer{}, err
	case code == http.StatusNotFound || code == http.StatusNotImplemented:
		return dcs.VoterAnswer{}, ErrNoVoter
	case code != http.StatusOK:
		return dcs.VoterAnswer{}, fmt.Errorf("rest: %s: %d %s", u, code, short(text))
	}
	var r reply
	if err := json.Unmarshal([]byte(text), &r); err != nil || r.Version != questionVersion || r.From != q.To {
		return dcs.VoterAnswer{}, fmt.Errorf("rest: %s: the answer is not one of member %q: %s", u, q.To, short(text))
	}
	return dcs.VoterAnswer{Yes: r.Yes, Why: r.Why, Left: time.Duration(r.Left * float64(time.Second)), Known: r.Known}, nil
}

// AskPatroni asks a Patroni member for its consent: an error unless it accepted.
func AskPatroni(ctx context.Context, p Poster, apiURL string, leader PatroniLeader) error {
	b, err := json.Marshal(leader)
	if err != nil {
		return err
	}
	u, err := at(apiURL, "/failsafe")
	if err != nil {
		return err
	}
	text, code, err := p.Post(ctx, u, b)
	if err == nil && (code != http.StatusOK || text != accepted) {
		err = fmt.Errorf("rest: %s: %d %s", u, code, short(text))
	}
	return err
}

// PatroniLeader is the body of POST /failsafe.
type PatroniLeader struct {
	Name    string            `json:"name"`
	ConnURL string            `json:"conn_url"`
	APIURL  string            `json:"api_url"`
	Slots   map[string]uint64 `json:"slots"`
}

// at is another path at the member's address.
func at(apiURL, path string) (string, error) {
	u, err := url.Parse(apiURL)
	if err != nil || u.Host == "" {
		return "", fmt.Errorf("rest: api_url %q is no URL", apiURL)
	}
	u.Path, u.RawPath, u.RawQuery, u.Fragment = path, "", "", ""
	return u.String(), nil
}

func short(s string) string {
	if len(s) > 200 {
		return s[:200] + "..."
	}
	return s
}
