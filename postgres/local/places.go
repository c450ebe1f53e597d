package local

import (
	"net"
	"net/url"
	"strconv"
)

// ConnURL is where clients and the other members reach this server, as the member key holds it (reference section 1.4):
// postgres://host:port/database.
func (s *Server) ConnURL() string {
	u := url.URL{Scheme: "postgres", Host: net.JoinHostPort(s.peerHost, strconv.Itoa(s.peerPort)), Path: "/" + s.cfg.Database}
	return u.String()
}

// DataDir is the data directory.
func (s *Server) DataDir() string { return s.cfg.DataDir }

// StateDir is the folder for what must survive the data directory.
func (s *Server) StateDir() string { return s.cfg.StateDir }
