package postgrestest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"time"

	"github.com/pgregent/pgregent/postgres"
	"github.com/pgregent/pgregent/postgres/wal"
)

// Observe implements postgres.Controller.
func (f *Fake) Observe(ctx context.Context) postgres.Status {
	err := f.enter(ctx, "Observe", "")
	st := f.observe(err)
	if st.Answered && st.Role == postgres.RolePrimary {
		st.Walsenders = f.walsenders()
	}
	return st
}

// walsenders are the replicas that stream from here, by their own account.
func (f *Fake) walsenders() []postgres.Walsender {
	f.mu.Lock()
	peers := maps.Clone(f.peers)
	f.mu.Unlock()
	var out []postgres.Walsender
	for _, name := range slices.Sorted(maps.Keys(peers)) {
		peer := peers[name]
		if peer == f {
			continue
		}
		peer.mu.Lock()
		from := peer.state.Upstream.Name
		ok := from != "" && peers[from] == f && peer.follow()
		peer.mu.Unlock()
		if ok {
			out = append(out, postgres.Walsender{User: "replicator", ApplicationName: name, State: "streaming"})
		}
	}
	return out
}

func (f *Fake) observe(err error) postgres.Status {
	f.mu.Lock()
	defer f.mu.Unlock()
	st := postgres.Status{At: time.Since(f.begin)}
	streaming := f.follow()
	s := &f.state
	st.Data, st.DataErr = s.Data, s.DataErr
	if s.Data == postgres.DataReady || s.Data == postgres.DataInterrupted {
		at := wal.Position{Timeline: s.Timeline, LSN: s.LSN}
		st.Control = postgres.Control{
			State: s.Control, SystemID: s.SystemID, Checkpoint: at, WALLogHints: true, CatalogMajor: s.Version / 10000,
			SignalStandby: s.Signal, TimelineHistory: s.History, Settings: map[string]int{"max_connections": 100},
		}
		if s.Control == postgres.ControlInArchiveRecovery || s.Control == postgres.ControlShutDownInRecovery {
			st.Control.MinRecovery = at
		}
	}
	if f.process != nil {
		st.Control.PostmasterPIDNow = f.process.pid
	}
	switch {
	case err != nil:
		st.Err = err
	case f.process == nil:
		st.Err = postgres.ErrNotRunning
	case s.Hung:
		st.Err = context.DeadlineExceeded
	case !f.answers():
		st.Err = postgres.ErrStarting
	default:
		f.fill(&st, streaming)
	}
	return st
}

// fill fills in what SQL would answer.
func (f *Fake) fill(st *postgres.Status, streaming bool) {
	s := &f.state
	st.Answered, st.Role, st.Version, st.PostmasterStart = true, s.Role, s.Version, f.process.started
	st.SystemID, st.Timeline, st.History = s.SystemID, s.Timeline, s.History
	if s.Role == postgres.RolePrimary {
		st.Current = s.LSN
	} else {
		st.Received, st.Written, st.Replayed, st.LatestEnd = s.LSN, s.LSN, s.LSN, s.LSN
		if s.Upstream.Name != "" {
			st.ConnInfo = fmt.Sprintf("host=%s port=%d", s.Upstream.Host, s.Upstream.Port)
		}
	}
	if streaming {
		st.Streaming, st.UpstreamHost, st.UpstreamPort = true, s.Upstream.Host, s.Upstream.Port
	}
	for _, name := range slices.Sorted(maps.Keys(s.Slots)) {
		st.Slots = append(st.Slots, postgres.Slot{Name: name, Type: "physical", RestartLSN: s.Slots[name], WALStatus: "reserved"})
	}
}

// WALEnd implements postgres.Controller.
func (f *Fake) WALEnd(ctx context.Context) (wal.Position, error) {
	if err := f.enter(ctx, "WALEnd", ""); err != nil {
		return wal.Position{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.process != nil {
		return wal.Position{}, errors.New("fake: the server runs")
	}
	return wal.Position{Timeline: f.state.Timeline, LSN: f.state.LSN}, nil
}

// Identify implements postgres.Controller. A peer that was not joined does not answer.
func (f *Fake) Identify(ctx context.Context, from postgres.Source) (postgres.Line, error) {
	if err := f.enter(ctx, "Identify", from.Name); err != nil {
		return postgres.Line{}, err
	}
	return f.ask(from)
}

func (f *Fake) ask(from postgres.Source) (postgres.Line, error) {
	f.mu.Lock()
	peer, cut := f.peers[from.Name], f.state.Cut
	f.mu.Unlock()
	if peer == nil || cut {
		return postgres.Line{}, fmt.Errorf("fake: %s cannot be reached", from.Name)
	}
	return peer.line()
}

// Configure implements postgres.Controller.
func (f *Fake) Configure(ctx context.Context, s postgres.Settings, role postgres.Role, up postgres.Upstream) (bool, error) {
	if err := f.enter(ctx, "Configure", fmt.Sprintf("%d %s", role, up.Name)); err != nil {
		return false, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.state.Data != postgres.DataReady {
		return false, postgres.ErrDataDir
	}
	changed := !reflect.DeepEqual(f.settings, s)
	f.settings = s
	if role == postgres.RoleReplica {
		changed = changed || f.state.Upstream != up
		f.state.Upstream = up
	}
	f.stale = f.process != nil && (f.stale || changed)
	return f.stale, nil
}

// Command implements postgres.Controller. Its Path is "fake", for Launch.
func (f *Fake) Command(ctx context.Context, role postgres.Role) (postgres.Command, error) {
	if err := f.enter(ctx, "Command", fmt.Sprint(role)); err != nil {
		return postgres.Command{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.state.Data != postgres.DataReady {
		return postgres.Command{}, postgres.ErrDataDir
	}
	if role == postgres.RolePrimary && (f.state.Control == postgres.ControlInArchiveRecovery || f.state.Control == postgres.ControlShutDownInRecovery) {
		return postgres.Command{}, fmt.Errorf("fake: %w: it is a replica's", postgres.ErrDataDir)
	}
	f.state.Signal = role == postgres.RoleReplica
	return postgres.Command{Path: "fake"}, nil
}

// Initdb implements postgres.Controller.
func (f *Fake) Initdb(ctx context.Context) error {
	if err := f.enter(ctx, "Initdb", ""); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.state.Data != postgres.DataEmpty {
		return postgres.ErrDataDir
	}
	f.state.Data, f.state.Control, f.state.SystemID = postgres.DataReady, postgres.ControlShutDown, f.state.NextSystemID
	f.state.Timeline, f.state.LSN, f.state.History, f.state.Signal = 1, 0x1500000, wal.History{Tip: 1}, true
	return nil
}

// PrepareCluster implements postgres.Controller.
func (f *Fake) PrepareCluster(ctx context.Context) error { return f.onServer(ctx, "PrepareCluster") }

// AbandonCluster empties the data directory of a server that does not run, as a Controller does that sets it aside.
func (f *Fake) AbandonCluster(ctx context.Context) (string, error) {
	if err := f.enter(ctx, "AbandonCluster", ""); err != nil {
		return "", err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.state.Data, f.state.SystemID, f.state.Timeline, f.state.LSN, f.state.History = postgres.DataEmpty, "", 0, 0, wal.History{}
	return "aside", nil
}

// onServer is a call that needs a server and changes nothing.
func (f *Fake) onServer(ctx context.Context, method string) error {
	if err := f.enter(ctx, method, ""); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.answers() {
		return postgres.ErrNotRunning
	}
	return nil
}

// Clone implements postgres.Controller.
func (f *Fake) Clone(ctx context.Context, from postgres.Source, progress func(postgres.Progress)) error {
	return f.copyFrom(ctx, "Clone", from, progress)
}

// Rewind implements postgres.Controller.
func (f *Fake) Rewind(ctx context.Context, from postgres.Source) error {
	return f.copyFrom(ctx, "Rewind", from, nil)
}

func (f *Fake) copyFrom(ctx context.Context, method string, from postgres.Source, progress func(postgres.Progress)) error {
	if err := f.enter(ctx, method, from.Name); err != nil {
		return err
	}
	line, err := f.ask(from)
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	s := &f.state
	switch {
	case f.process != nil:
		return errors.New("fake: the server runs")
	case s.Data == postgres.DataReady && s.SystemID != line.SystemID:
		return postgres.ErrSystemID
	case method == "Rewind" && s.Data != postgres.DataReady:
		return postgres.ErrRewindImpossible
	}
	if progress != nil {
		progress(postgres.Progress{DoneBytes: 1 << 20, TotalBytes: 1 << 20})
	}
	s.Data, s.DataErr, s.Control, s.SystemID = postgres.DataReady, "", postgres.ControlInArchiveRecovery, line.SystemID
	s.Timeline, s.LSN, s.History, s.Signal = line.Position.Timeline, line.Position.LSN, line.History, true
	return nil
}

// SetAside implements postgres.Controller.
func (f *Fake) SetAside(ctx context.Context, fork, end wal.Position) (postgres.Loss, error) {
	loss := postgres.Loss{Fork: fork, End: end}
	if err := f.enter(ctx, "SetAside", fmt.Sprintf("%d/%d to %d/%d", fork.Timeline, fork.LSN, end.Timeline, end.LSN)); err != nil {
		return loss, err
	}
	if end.LSN > fork.LSN {
		loss.Bytes, loss.SavedTo, loss.Segments = uint64(end.LSN-fork.LSN), "fake", []string{"000000010000000000000001"}
	}
	return loss, nil
}

// Promote implements postgres.Controller.
func (f *Fake) Promote(ctx context.Context) error {
	if err := f.enter(ctx, "Promote", ""); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.answers() {
		return postgres.ErrNotRunning
	}
	s := &f.state
	if s.Role == postgres.RolePrimary {
		return nil
	}
	s.History.Switches = append(slices.Clone(s.History.Switches), wal.Switch{Timeline: s.Timeline, LSN: s.LSN, Reason: "no recovery target specified"})
	s.Timeline++
	s.History.Tip, s.Role, s.Control, s.Signal = s.Timeline, postgres.RolePrimary, postgres.ControlInProduction, false
	return nil
}

// Reload implements postgres.Controller.
func (f *Fake) Reload(ctx context.Context) error {
	if err := f.enter(ctx, "Reload", ""); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.process == nil {
		return postgres.ErrNotRunning
	}
	f.stale = false
	return nil
}

// Checkpoint implements postgres.Controller.
func (f *Fake) Checkpoint(ctx context.Context) error { return f.onServer(ctx, "Checkpoint") }

// SyncSlots implements postgres.Controller.
func (f *Fake) SyncSlots(ctx context.Context, slots map[string]wal.LSN) error {
	if err := f.enter(ctx, "SyncSlots", fmt.Sprint(slices.Sorted(maps.Keys(slots)))); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.answers() {
		return postgres.ErrNotRunning
	}
	have := map[string]wal.LSN{}
	for name, lsn := range slots {
		have[name] = max(lsn, f.state.Slots[name])
	}
	f.state.Slots = have
	return nil
}

// WaitAccepting implements postgres.Controller.
func (f *Fake) WaitAccepting(ctx context.Context) error {
	if err := f.enter(ctx, "WaitAccepting", ""); err != nil {
		return err
	}
	for {
		f.mu.Lock()
		process, accepting := f.process, f.answers()
		f.mu.Unlock()
		if accepting {
			return nil
		}
		if process == nil {
			return postgres.ErrNotRunning
		}
		if err := wait(ctx, 10*time.Millisecond); err != nil {
			return err
		}
	}
}

// Close implements postgres.Controller.
func (f *Fake) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
	return nil
}
