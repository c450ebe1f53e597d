package cluster

import (
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/pgregent/pgregent/postgres/wal"
)

// HostPort is where conn_url points; the port is 5432 when it names none. Empty when it cannot be read.
func (m Member) HostPort() (host string, port int) {
	u, err := url.Parse(m.ConnURL)
	if err != nil || u.Hostname() == "" {
		return "", 0
	}
	if u.Port() == "" {
		return u.Hostname(), 5432
	}
	p, err := strconv.ParseUint(u.Port(), 10, 16)
	if err != nil || p == 0 {
		return "", 0
	}
	return u.Hostname(), int(p)
}

// ConnURL is a conn_url, as Patroni writes it: an IPv6 host in brackets, no password; no database is the database
// postgres.
func ConnURL(host string, port int, database string) string {
	if database == "" {
		database = "postgres"
	}
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	return "postgres://" + host + ":" + strconv.Itoa(port) + "/" + database
}

// APIBase is the api_url without its path: what the other paths of the member's REST API are appended to. Empty when it
// cannot be read.
func (m Member) APIBase() string {
	u, err := url.Parse(m.APIURL)
	if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
		return ""
	}
	return u.Scheme + "://" + u.Host
}

// Timeline is the timeline that the cluster is on by the key: one more than the last that ended, 1 when there are no
// lines in a key that is there, 0 when the key says nothing.
func (h History) Timeline() wal.Timeline {
	switch {
	case !h.Present || h.Err != nil:
		return 0
	case len(h.Lines) == 0:
		return 1
	}
	return h.Lines[len(h.Lines)-1].Timeline + 1
}

// Votes says whether a member is the leader's voter in synchronous mode; names compare case-insensitively.
func (s Sync) Votes(name string) bool {
	return slices.ContainsFunc(s.Standbys, func(n string) bool { return strings.EqualFold(n, name) })
}
