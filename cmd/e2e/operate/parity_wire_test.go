package operate

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"
)

// credential is who asks. The zero value is the right one for requests that change something, and nobody for others.
type credential string

const (
	nobody   credential = " (nobody)"
	stranger credential = " (wrong password)"
)

// answer is what came back.
type answer struct {
	status int
	kind   string // Content-Type
	body   string
	err    error
}

// send sends the request by hand: Patroni answers some of them with a status line and nothing else.
func (s *side) send(e exchange) answer {
	d := s.node(e.on)
	addr := fmt.Sprintf("127.0.0.1:%d", d.APIPort)
	conn, err := net.DialTimeout("tcp", addr, 5*time.Second)
	if err != nil {
		return answer{err: err}
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(60 * time.Second))
	if _, err := io.WriteString(conn, e.text(addr)); err != nil {
		return answer{err: err}
	}
	res, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: e.method})
	if err != nil {
		return answer{err: err}
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(res.Body)
	return answer{status: res.StatusCode, kind: res.Header.Get("Content-Type"), body: strings.ReplaceAll(string(body), s.Scope, "SCOPE"), err: err}
}

func (e exchange) text(addr string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n", e.method, e.path, addr)
	switch {
	case e.as == stranger:
		b.WriteString("Authorization: Basic YWRtaW46d3Jvbmc=\r\n")
	case e.as == nobody || e.safe():
	default:
		b.WriteString("Authorization: Basic YWRtaW46bGV0LW1lLWlu\r\n")
	}
	for k, v := range e.header {
		fmt.Fprintf(&b, "%s: %s\r\n", k, v)
	}
	if !e.raw && !e.safe() {
		fmt.Fprintf(&b, "Content-Length: %d\r\n", len(e.body))
	}
	b.WriteString("\r\n")
	b.WriteString(e.body)
	return b.String()
}

// finding is a field that differs; difference is its entry in the table, negative when it has none.
type finding struct {
	field, theirs, ours string
	difference          int
}

// compare lists what differs between two answers.
func compare(key string, theirs, ours answer) []finding {
	var found []finding
	add := func(field, t, o string) {
		if t != o {
			found = append(found, finding{field, t, o, intended(key, field, t, o)})
		}
	}
	if theirs.err != nil || ours.err != nil {
		add("answer", fmt.Sprint(theirs.err), fmt.Sprint(ours.err))
		return found
	}
	add("status", fmt.Sprint(theirs.status), fmt.Sprint(ours.status))
	add("Content-Type", theirs.kind, ours.kind)
	if strings.Contains(key, "/metrics") {
		o := metrics(ours.body)
		for name, line := range metrics(theirs.body) { // what is ours alone is not looked at
			add("metric "+name, line, o[name])
		}
		return found
	}
	var t, o any
	if decode(theirs.body, &t) && decode(ours.body, &o) {
		compareJSON("", t, o, add)
		return found
	}
	add("body", theirs.body, ours.body)
	return found
}

func decode(text string, into *any) bool {
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	return d.Decode(into) == nil && !d.More()
}

// compareJSON compares field by field. What changes by itself is compared by its form.
func compareJSON(path string, t, o any, add func(field, t, o string)) {
	switch t := t.(type) {
	case map[string]any:
		if o, ok := o.(map[string]any); ok {
			var keys []string
			for k := range t {
				keys = append(keys, k)
			}
			for k := range o {
				if _, ok := t[k]; !ok {
					keys = append(keys, k)
				}
			}
			slices.Sort(keys)
			for _, k := range keys {
				tv, inT := t[k]
				ov, inO := o[k]
				if !inT || !inO {
					add(path+"/"+k, shown(path+"/"+k, tv, inT), shown(path+"/"+k, ov, inO))
					continue
				}
				compareJSON(path+"/"+k, tv, ov, add)
			}
			return
		}
	case []any:
		if o, ok := o.([]any); ok && len(o) == len(t) {
			for i := range t {
				compareJSON(fmt.Sprintf("%s/%d", path, i), t[i], o[i], add)
			}
			return
		}
	}
	add(path, shown(path, t, true), shown(path, o, true))
}

// volatile are the fields whose values change by themselves, and the forms that they may have.
var volatile = []struct{ path, form *regexp.Regexp }{ //nolint:gochecknoglobals // a table
	{re(`/(postmaster_start_time|replayed_timestamp)$`), re(`^"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{6}\+00:00"$`)},
	{re(`^/\d+/3$`), re(`^"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}[+-]\d\d:\d\d"$`)}, // of the history
	{re(`^/\d+/1$`), re(`^\d{7,}$`)},
	{re(`/(location|received_location|replayed_location|dcs_last_seen)$`), re(`^[1-9]\d{6,}$`)},
	{re(`/(port|lag|receive_lag|replay_lag)$`), re(`^\d+$`)},
	{re(`/(lsn|receive_lsn|replay_lsn)$`), re(`^"[0-9A-F]+/[0-9A-F]+"$`)},
	{re(`/database_system_identifier$`), re(`^"\d{19}"$`)},
	{re(`/(api_url|pg[12])$`), re(`^"http://127\.0\.0\.1:\d+/patroni"$`)},
	{re(`/patroni/version$`), re(`^"4\.1\.\d+"$`)},
}

func re(text string) *regexp.Regexp { return regexp.MustCompile(text) }

// shown is a value as it is compared.
func shown(path string, v any, there bool) string {
	if !there {
		return "(absent)"
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(v)
	text := strings.TrimSpace(b.String())
	for _, f := range volatile {
		if f.path.MatchString(path) && f.form.MatchString(text) {
			return "<" + f.form.String() + ">"
		}
	}
	return text
}

// moving are the metrics whose values change by themselves: only whether they are 0 is compared.
func moving() *regexp.Regexp {
	return re(`_xlog_(re.*_)?location$|_timestamp$|_start_time$|_dcs_last_seen$`)
}

// metrics is the type, the labels and the value of each metric.
func metrics(text string) map[string]string {
	types, all := map[string]string{}, map[string]string{}
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		switch {
		case len(f) == 4 && f[0] == "#" && f[1] == "TYPE":
			types[f[2]] = f[3]
		case len(f) == 2 && f[0] != "#":
			name, labels, _ := strings.Cut(f[0], "{")
			parts := strings.Split(strings.TrimSuffix(labels, "}"), ",")
			slices.Sort(parts)
			if f[1] != "0" && moving().MatchString(name) {
				f[1] = "(not 0)"
			}
			all[name] += types[name] + "{" + strings.Join(parts, ",") + "} " + f[1] + ";"
		}
	}
	return all
}
