package rest

import (
	"context"
	"errors"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pgregent/pgregent/dcs"
)

const (
	goodPromise = `{"version":1,"scope":"demo","from":"b","to":"a","epoch":3,"counter":7,"nonce":"n","ttl":8}`
	goodVote    = `{"version":1,"scope":"demo","from":"b","to":"a","epoch":3,"counter":7}`
)

// Over real HTTP, with access control, both ways.
func TestPromiseAndVote(t *testing.T) {
	n := primaryNode()
	o := Options{Username: "admin", Password: "secret"}
	srv := httptest.NewServer(NewHandler(n, o))
	defer srv.Close()
	client := NewClient(ClientOptions{Username: "admin", Password: "secret"})
	q := Question{Scope: "demo", From: "b", To: "a"}
	promise := dcs.PromiseRequest{Holder: "b", Nonce: "n", Stamp: dcs.Stamp{Epoch: 3, Counter: 7}, TTL: dcs.Seconds(2500 * time.Millisecond)}

	n.answer = dcs.VoterAnswer{Yes: true, Known: dcs.Stamp{Epoch: 3, Counter: 7}}
	a, err := AskPromise(t.Context(), client, srv.URL+"/patroni", q, promise)
	require.NoError(t, err)
	require.Equal(t, n.answer, a)
	require.Equal(t, []dcs.PromiseRequest{promise}, n.promises)

	n.answer = dcs.VoterAnswer{Why: "a promise to c stands", Left: 2 * time.Second, Known: dcs.Stamp{Epoch: 9, Counter: 1}}
	a, err = AskVote(t.Context(), client, srv.URL+"/patroni", q, dcs.VoteRequest{Taker: "b", Stamp: promise.Stamp})
	require.NoError(t, err)
	require.Equal(t, n.answer, a)
	require.Equal(t, []dcs.VoteRequest{{Taker: "b", Stamp: promise.Stamp}}, n.votes)

	q.To = "c"
	_, err = AskVote(t.Context(), client, srv.URL+"/patroni", q, dcs.VoteRequest{Stamp: promise.Stamp})
	require.ErrorContains(t, err, `409 this is member "a" of "demo": correct api_url of "c"`)
	q.To = "a"
	_, err = AskVote(t.Context(), NewClient(ClientOptions{}), srv.URL+"/patroni", q, dcs.VoteRequest{Stamp: promise.Stamp})
	require.ErrorContains(t, err, "401")
	require.Len(t, n.votes, 1)

	require.NoError(t, AskPatroni(t.Context(), client, srv.URL+"/patroni", PatroniLeader{Name: "p", ConnURL: "postgres://p", APIURL: "http://p/patroni"}))
	require.Equal(t, []string{"p"}, n.accepted)
	_, err = AskVote(t.Context(), client, "nonsense", q, dcs.VoteRequest{})
	require.ErrorContains(t, err, "api_url")
}

// A member of another program, and one that answers for another.
func TestAnswersThatAreNone(t *testing.T) {
	q := Question{Scope: "demo", From: "b", To: "a"}
	for text, want := range map[string]string{
		`{"version":1,"from":"c","yes":true}`: "the answer is not one of member",
		`{"version":2,"from":"a","yes":true}`: "the answer is not one of member",
		`yes`:                                 "the answer is not one of member",
	} {
		_, err := AskVote(t.Context(), canned{text, 200}, "http://a/patroni", q, dcs.VoteRequest{})
		require.ErrorContains(t, err, want)
	}
	_, err := AskVote(t.Context(), canned{"", 501}, "http://a/patroni", q, dcs.VoteRequest{})
	require.ErrorIs(t, err, ErrNoVoter)
	for _, c := range []canned{{"Accepted\n", 200}, {"accepted", 200}, {"Accepted", 202}, {"Running as a leader", 500}} {
		require.Error(t, AskPatroni(t.Context(), c, "http://a/patroni", PatroniLeader{}))
	}
}

type canned struct {
	text string
	code int
}

func (c canned) Post(context.Context, string, []byte) (string, int, error) {
	return c.text, c.code, nil
}

// POST /failsafe as a Patroni leader sends it (reference section 2.8).
func TestFailsafe(t *testing.T) {
	n := primaryNode()
	body := `{"name":"p","conn_url":"postgres://p:5432/postgres","api_url":"http://p:8008/patroni","slots":{"a":1}}`
	code, text, header := call(n, Options{}, "POST", "/failsafe", body)
	require.Equal(t, 200, code)
	require.Equal(t, "Accepted", text)
	require.Equal(t, "4711", header.Get("lsn"))
	n.refuse = ErrPrimary
	code, text, _ = call(n, Options{}, "POST", "/failsafe", body)
	require.Equal(t, 500, code)
	require.Equal(t, "Running as a leader", text)
	n.refuse = ErrFailsafeOff
	code, _, _ = call(n, Options{}, "POST", "/failsafe", body)
	require.Equal(t, 502, code)
	n.refuse = errors.New("this member is taking the lease")
	code, _, _ = call(n, Options{}, "POST", "/failsafe", body)
	require.Equal(t, 500, code)
	for _, bad := range []string{"null", "[]", `{"name":"p"}`, `{"name":"","conn_url":"x","api_url":"y"}`, `{"name":1,"conn_url":"x","api_url":"y"}`} {
		code, _, _ = call(n, Options{}, "POST", "/failsafe", bad)
		require.Equal(t, 400, code, bad)
	}
	require.Len(t, n.accepted, 4)
}

func TestQuestionsThatAreRefused(t *testing.T) {
	for _, bad := range []string{
		"null", "[]", goodPromise + "x", goodPromise + goodPromise,
		strings.Replace(goodPromise, `"version":1`, `"version":2`, 1),
		strings.Replace(goodPromise, `"epoch":3`, `"epoch":0`, 1),
		strings.Replace(goodPromise, `"epoch":3`, `"epoch":-3`, 1),
		strings.Replace(goodPromise, `"nonce":"n"`, `"nonce":""`, 1),
		strings.Replace(goodPromise, `"ttl":8`, `"ttl":0`, 1),
		strings.Replace(goodPromise, `"ttl":8`, `"ttl":3601`, 1),
		strings.Replace(goodPromise, `"from":"b"`, `"from":""`, 1),
		strings.Replace(goodPromise, `"from":"b"`, `"from":"`+strings.Repeat("b", 600)+`"`, 1),
		strings.Replace(goodPromise, `"ttl":8`, `"ttl":8,"more":1`, 1),
	} {
		n := primaryNode()
		code, _, _ := call(n, Options{}, "POST", "/pgregent/promise", bad)
		require.Equal(t, 400, code, bad)
		require.Empty(t, n.promises)
	}
	for body, want := range map[string]int{"": 411, goodPromise + strings.Repeat(" ", maxRequest): 413} {
		code, _, _ := call(primaryNode(), Options{}, "POST", "/pgregent/promise", body)
		require.Equal(t, want, code)
	}
	code, _, _ := call(primaryNode(), Options{}, "POST", "/pgregent/other", goodVote)
	require.Equal(t, 404, code)
	code, _, _ = call(primaryNode(), Options{}, "POST", "/pgregent/vote", goodVote)
	require.Equal(t, 200, code)
}

func FuzzQuestion(f *testing.F) {
	f.Add(goodPromise)
	f.Add(goodVote)
	f.Add(`{"name":"p","conn_url":"c","api_url":"a","slots":{}}`)
	f.Fuzz(func(t *testing.T, body string) {
		for _, path := range []string{"/pgregent/promise", "/pgregent/vote", "/failsafe"} {
			n := primaryNode()
			n.answer = dcs.VoterAnswer{Yes: true}
			code, _, _ := call(n, Options{}, "POST", path, body)
			asked := len(n.promises) + len(n.votes) + len(n.accepted)
			if (code == 200) != (asked == 1) {
				t.Fatalf("%s %q: %d, and the node was asked %d times", path, body, code, asked)
			}
			for _, q := range n.promises {
				if q.Nonce == "" || q.TTL <= 0 || q.Stamp.Epoch == 0 {
					t.Fatalf("%q was taken for %+v", body, q)
				}
			}
		}
	})
}
