// Command embed runs one pgregent node inside a Go program: the library without the daemon. Start it on three machines,
// or three times on one, with other names and ports:
//
//	embed -name pg1 -data /srv/pg1 -listen 10.0.0.1:5432 -api 10.0.0.1:8008 -etcd 10.0.0.9:2379 -bin /usr/lib/postgresql/15/bin
//
// The callback is where such a program moves its DNS name or virtual IP.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/pgregent/pgregent/callbacks"
	"github.com/pgregent/pgregent/dcs"
	"github.com/pgregent/pgregent/dcs/etcd"
	"github.com/pgregent/pgregent/ha"
	"github.com/pgregent/pgregent/ha/fence"
	"github.com/pgregent/pgregent/ha/rest"
	"github.com/pgregent/pgregent/postgres"
	"github.com/pgregent/pgregent/postgres/local"
)

func main() {
	fence.Main() // first line of main: serves as the guard when this program is re-executed as one
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "embed:", err)
		os.Exit(1)
	}
}

func run() error {
	name := flag.String("name", "pg1", "member name")
	data := flag.String("data", "", "data directory, an absolute path")
	listen := flag.String("listen", "127.0.0.1:5432", "address of PostgreSQL")
	api := flag.String("api", "127.0.0.1:8008", "address of the REST API")
	endpoints := flag.String("etcd", "127.0.0.1:2379", "etcd endpoints, separated by commas")
	bin := flag.String("bin", "", "folder with PostgreSQL's programs; empty: PATH")
	password := flag.String("password", os.Getenv("PGPASSWORD"), "password of postgres and replicator")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))

	store, err := etcd.Open(ctx, etcd.Config{Endpoints: strings.Split(*endpoints, ","), Prefix: "/service/orders", Logger: log})
	if err != nil {
		return err
	}
	defer store.Close()
	server, err := local.Open(local.Config{
		Name: *name, Scope: "orders", DataDir: *data, BinDir: *bin, Listen: *listen, PGPass: *data + ".pgpass", InitdbOptions: []string{"data-checksums"}, Log: log,
		Superuser:   local.Credentials{Username: "postgres", Password: *password},
		Replication: local.Credentials{Username: "replicator", Password: *password},
	})
	if err != nil {
		return err
	}
	defer server.Close()
	moveDNS := callbacks.Func(func(_ context.Context, e callbacks.Event) error {
		fmt.Printf("%s: %s is %s now (epoch %d)\n", e.Action, e.Member, e.Role, e.Epoch)
		return nil
	})
	node, err := ha.New(ha.Config{
		Name: *name, Scope: "orders", APIURL: "http://" + *api + "/patroni", Store: dcs.NewClient(store, nil), Postgres: server,
		Callbacks: []callbacks.Callback{moveDNS}, Log: log,
		Local: postgres.Settings{UseRewind: true, HBA: []string{"local all all trust", "host all all samenet scram-sha-256", "host replication replicator samenet scram-sha-256"}},
	})
	if err != nil {
		return err
	}
	web := &http.Server{Addr: *api, Handler: rest.Handler(node), ReadHeaderTimeout: 5 * time.Second}
	go func() {
		if err := web.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
			log.Error("the REST API ended", "error", err)
			stop()
		}
	}()
	defer web.Close()
	return node.Run(ctx) // until ctx ends: hands the leadership over, then returns
}
