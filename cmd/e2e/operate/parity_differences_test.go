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
	return []difference{}
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
