package operate

import "regexp"

// difference is a field that pgregent means to answer in another way than Patroni, and why.
type difference struct {
	requests string // a regular expression over "situation node METHOD path body"
	field    string // "status", "Content-Type", "body", "metric NAME", "answer", or a JSON path
	theirs   string // a regular expression over what Patroni answered
	ours     string
	why      string
}

// differences are all of them. An entry that no request meets fails the test.
func differences() []difference {
	return []difference{
		{`.*`, "/pgregent", `\(absent\)`, `\{.*`,
			"why the node does what it does, an object of our own beside Patroni's fields"},
		{`.*/metrics`, "metric patroni_version", `gauge\{.*\} 0401\d\d;`, `gauge\{.*\} 040100;`,
			"the protocol level that we speak; our own version has a metric of its own"},
		{`.*`, "Content-Type", `text/html(;charset=utf-8)?`, `text/plain; charset=utf-8`,
			"a text may repeat what a request said, and no browser is to read that as a page"},
		{`.*`, "Content-Type", `text/html;charset=utf-8`, `text/html`,
			"the type that Patroni gives its other texts; it is the answer 501 only"},
		{`.*`, "body", `<!DOCTYPE HTML>.*Error code: (501|411)<.*`, `Error code: (501|411)\n.*`,
			"the lines of Python's error page that tools look for, without the page"},
		{`bodies .*`, "body", `<!DOCTYPE HTML>.*Error code: (400|502)<.*`, `the body .*`,
			"says what is wrong with the body"},
		{`\S.* (HEAD|OPTIONS) /(patroni|cluster|history|config|failsafe|metrics|liveness|readiness|foo).*`, "status", `503`, `200|502`,
			"a path that is no health check answers HEAD and OPTIONS as GET: Patroni's 503 tells nothing"},
		{`.*\?replication_state=.*`, "status", `200`, `503`,
			"the parameter is newer than the Patroni that is compared with, which ignores it"},
		{`access .* POST /mpp .*`, "status", `200`, `401`, "Patroni forgot the credential for this path"},
		{`access .* POST /mpp .*`, "body", `OK`, `no auth header received|not authenticated`, "the same"},
		{`methods .* DELETE /reinitialize`, "status", `501`, `404`, "ours: a reinitialization can be cancelled"},
		{`methods .* DELETE /reinitialize`, "body", `<!DOCTYPE.*`, `no reinitialization runs`, "the same"},
		{`restart .*"(role|schedule)":1.*`, "body", `PostgreSQL role should be.*|Unable to parse.*`, `(role|schedule): must be a text`,
			"names the field that has the wrong type"},
		{`restart .*"schedule":1.*`, "status", `422`, `400`, "the same: the text is not looked at yet"},
		{`\S.* GET /failsafe`, "body", `<!DOCTYPE HTML>.*Error code: 502<.*`, `failsafe mode is off`, "says what is missing"},
		{`bodies pg2 POST /failsafe.*`, "status", `502`, `400|411`, "a bad body is refused before it is asked whether the mode is on"},
		{`bodies pg2 POST /failsafe`, "body", `<!DOCTYPE HTML>.*Error code: 502<.*`, `Error code: 411\n.*`, "the same"},
		{`failsafe pg2 POST /failsafe .*`, "answer", `unexpected EOF`, `<nil>`, "names the field that is missing, where Patroni breaks off"},
		{`restart .*"restart_pending":false.*`, "status", `503`, `200`, "false is false: no client sends it, and for Patroni it is true"},
		{`restart .*"restart_pending":false.*`, "body", `restart conditions are not satisfied`, `restarted successfully`, "the same"},
		{`restart .*"timeout":null.*`, "status", `400`, `200`, "null is no value: the request has no timeout"},
		{`restart .*"timeout":null.*`, "body", `Timeout should be a positive number of seconds`, `restarted successfully`, "the same"},
		{`server stopped .*/metrics`, "metric patroni_replica", `.* 1;`, `.* 0;`, "a server that is down is no replica for who counts them; /patroni shows its role"},
	}
}

// intended is the entry of the table that a difference has, -1 when it has none.
func intended(key, field, theirs, ours string) int {
	for i, d := range differences() {
		if fits(d.requests, key) && d.field == field && fits(d.theirs, theirs) && fits(d.ours, ours) {
			return i
		}
	}
	return -1
}

// fits says that the whole text matches.
func fits(expression, text string) bool {
	return regexp.MustCompile(`(?s)^(?:` + expression + `)$`).MatchString(text)
}
