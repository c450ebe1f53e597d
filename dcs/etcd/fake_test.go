package etcd_test

import (
	"context"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"

	"github.com/pgregent/pgregent/dcs/etcd"
)

// oldServer answers as an etcd of another version would.
type oldServer struct {
	pb.UnimplementedKVServer
	pb.UnimplementedMaintenanceServer
	version string
}

func (s *oldServer) header() *pb.ResponseHeader { return &pb.ResponseHeader{ClusterId: 1, Revision: 1} }

// Range implements pb.KVServer.
func (s *oldServer) Range(context.Context, *pb.RangeRequest) (*pb.RangeResponse, error) {
	return &pb.RangeResponse{Header: s.header()}, nil
}

// Status implements pb.MaintenanceServer.
func (s *oldServer) Status(context.Context, *pb.StatusRequest) (*pb.StatusResponse, error) {
	return &pb.StatusResponse{Header: s.header(), Version: s.version}, nil
}

// serve starts one that ends with the test, and returns its address.
func (s *oldServer) serve(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	pb.RegisterKVServer(server, s)
	pb.RegisterMaintenanceServer(server, s)
	go func() { _ = server.Serve(l) }()
	t.Cleanup(server.Stop)
	return l.Addr().String()
}

// lines collects what is logged.
type lines struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// Versions with known bugs are named when the Store is opened, and for all endpoints on request.
func TestOldVersions(t *testing.T) {
	first, second, newest := &oldServer{version: "3.5.9"}, &oldServer{version: "3.4.40"}, &oldServer{version: "3.6.16"}
	addrs := []string{first.serve(t), newest.serve(t), second.serve(t)}
	log := new(lines)
	s := open(t, etcd.Config{Endpoints: addrs, UseProxies: true, Logger: slog.New(slog.NewTextHandler(log, nil))})
	if text := log.String(); !strings.Contains(text, "level=WARN") || !strings.Contains(text, addrs[0]+" runs etcd 3.5.9") {
		t.Errorf("Open logged: %s", text)
	}
	ctx, cancel := within(5 * time.Second)
	defer cancel()
	got := s.Warnings(ctx)
	if len(got) != 2 || !strings.Contains(got[0], "3.5.9") || !strings.Contains(got[0], "revoke leases that live") ||
		!strings.Contains(got[1], "3.4.40") || strings.Contains(got[1], "revoke leases that live") {
		t.Errorf("warnings: %q", got)
	}
}
