package ctl

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"reflect"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	"github.com/pgregent/pgregent/dcs"
	"github.com/pgregent/pgregent/ha/cluster"
)

// errNoConfig is that of a cluster without a dynamic configuration.
func (s *session) errNoConfig() error {
	return fmt.Errorf("The config key does not exist in the cluster %s", s.config.Scope) //lint:ignore ST1005 patronictl's words
}

func (a *app) showConfig() *cobra.Command {
	c := &cobra.Command{Use: "show-config [CLUSTER]", Short: "Show the dynamic configuration", Args: cobra.MaximumNArgs(1)}
	c.RunE = func(c *cobra.Command, args []string) error {
		return a.eachCluster(c.Context(), args, func(s *session) error {
			if s.state.Config.Present && s.state.Config.Err == nil {
				a.say("%s", yamlText(s.state.Config.Raw))
			}
			return nil
		})
	}
	return c
}

// changes are what the options say is to be changed.
type changes struct {
	set, pg        []string
	apply, replace string
}

func (o *changes) flags(c *cobra.Command) {
	f := c.Flags()
	f.StringArrayVarP(&o.set, "set", "s", nil, "set a value, as `path.to.key=value` (YAML; null removes it)")
	f.StringArrayVarP(&o.pg, "pg", "p", nil, "set a parameter of PostgreSQL, as `name=value`")
	f.StringVar(&o.apply, "apply", "", "lay a YAML `file` over the configuration; - is the input")
	f.StringVar(&o.replace, "replace", "", "replace the configuration by a YAML `file`; - is the input")
}

func (o changes) any() bool {
	return len(o.set) > 0 || len(o.pg) > 0 || o.apply != "" || o.replace != ""
}

// to is the configuration after the changes. before is not changed.
func (o changes) to(before map[string]any, in io.Reader) (map[string]any, error) {
	after := clone(before)
	if o.replace != "" {
		m, err := readYAML(o.replace, in)
		if err != nil {
			return nil, err
		}
		after = m
	}
	if o.apply != "" {
		m, err := readYAML(o.apply, in)
		if err != nil {
			return nil, err
		}
		cluster.Patch(after, m)
	}
	pairs := append([]string{}, o.set...)
	for _, p := range o.pg {
		pairs = append(pairs, "postgresql.parameters."+strings.TrimLeft(p, " "))
	}
	for _, p := range pairs {
		if err := setPath(after, p); err != nil {
			return nil, err
		}
	}
	return after, nil
}

// clone copies a configuration through JSON, which is what it is stored as: numbers keep their digits.
func clone(m map[string]any) map[string]any {
	b, err := json.Marshal(m)
	if err != nil {
		return map[string]any{}
	}
	out, _ := decodeObject(b)
	if out == nil {
		out = map[string]any{}
	}
	return out
}

func decodeObject(b []byte) (out map[string]any, err error) {
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	err = d.Decode(&out)
	return out, err
}

func readYAML(path string, in io.Reader) (map[string]any, error) {
	var b []byte
	var err error
	if path == "-" {
		b, err = io.ReadAll(in)
	} else {
		b, err = os.ReadFile(path)
	}
	if err != nil {
		return nil, err
	}
	return parseYAML(path, b)
}

// parseYAML reads a document that is to be a configuration.
func parseYAML(name string, b []byte) (map[string]any, error) {
	var v any
	if err := yaml.Unmarshal(b, &v); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	j, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("%s: keys must be texts: %w", name, err)
	}
	m, err := decodeObject(j)
	if err != nil || m == nil {
		return nil, fmt.Errorf("%s: a configuration is a mapping of keys to values", name)
	}
	return m, nil
}

// setPath sets one value. Behind postgresql.parameters all dots belong to the name. null removes the key, and a mapping
// that is empty then with it.
func setPath(m map[string]any, pair string) error {
	path, text, ok := strings.Cut(pair, "=")
	if !ok || strings.TrimSpace(path) == "" {
		return fmt.Errorf("Invalid parameter setting %s", pair) //lint:ignore ST1005 patronictl's words
	}
	var v any
	if err := yaml.Unmarshal([]byte(text), &v); err != nil {
		return fmt.Errorf("%s: %w", pair, err)
	}
	j, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("%s: %w", pair, err)
	}
	d := json.NewDecoder(bytes.NewReader(j))
	d.UseNumber()
	if err := d.Decode(&v); err != nil {
		return fmt.Errorf("%s: %w", pair, err)
	}
	keys := strings.Split(strings.TrimSpace(path), ".")
	if len(keys) > 2 && keys[0] == "postgresql" && keys[1] == "parameters" {
		keys = []string{keys[0], keys[1], strings.Join(keys[2:], ".")}
	}
	put(m, keys, v)
	return nil
}

func put(m map[string]any, keys []string, v any) {
	if len(keys) == 1 {
		if v == nil {
			delete(m, keys[0])
		} else {
			m[keys[0]] = v
		}
		return
	}
	inner, ok := m[keys[0]].(map[string]any)
	if !ok {
		inner = map[string]any{}
		m[keys[0]] = inner
	}
	put(inner, keys[1:], v)
	if len(inner) == 0 {
		delete(m, keys[0])
	}
}

func (a *app) editConfig() *cobra.Command {
	var o acting
	var ch changes
	var quiet bool
	c := &cobra.Command{Use: "edit-config [CLUSTER]", Short: "Change the dynamic configuration", Args: cobra.MaximumNArgs(1)}
	c.Flags().BoolVarP(&quiet, "quiet", "q", false, "do not show the changes")
	ch.flags(c)
	o.flags(a, c)
	c.RunE = func(c *cobra.Command, args []string) error {
		return a.eachCluster(c.Context(), args, func(s *session) error { return s.edit(c.Context(), ch, o, quiet) })
	}
	return c
}

func (s *session) edit(ctx context.Context, ch changes, o acting, quiet bool) error {
	a, have := s.app, s.state.Config
	if !have.Present || have.Err != nil {
		return s.errNoConfig()
	}
	before := clone(have.Raw)
	after, err := ch.to(before, a.In)
	if err == nil && !ch.any() {
		after, err = a.editor(ctx, before, s.config.Scope)
	}
	if err != nil {
		return err
	}
	if reflect.DeepEqual(before, after) {
		if !quiet {
			a.say("Not changed")
		}
		return nil
	}
	if !quiet {
		a.showDiff(yamlText(before), yamlText(after))
	}
	switch {
	case o.dry:
		a.would("write this into the store; pgregent config diff says what it does on each member")
		return nil
	case (ch.apply == "-" || ch.replace == "-") && !o.force:
		a.say("Use --force option to apply changes")
		return nil
	}
	if !o.force {
		if ok, err := a.confirm("Apply these changes?"); err != nil || !ok {
			return err
		}
	}
	value, err := json.Marshal(after)
	if err != nil {
		return err
	}
	call, cancel := context.WithTimeout(ctx, storeLimit)
	defer cancel()
	_, err = s.store.Commit(call, dcs.Txn{
		If:   []dcs.Cond{{Key: cluster.KeyConfig, Version: dcs.Version(have.Version)}},
		Then: []dcs.Op{dcs.Put(cluster.KeyConfig, value)},
	})
	switch {
	case errors.Is(err, dcs.ErrConflict):
		return errors.New("Config modification aborted due to concurrent changes") //lint:ignore ST1005 patronictl's words
	case err != nil:
		return err
	}
	a.say("Configuration changed")
	return nil
}

// editor has somebody edit the configuration.
func (a *app) editor(ctx context.Context, before map[string]any, name string) (map[string]any, error) {
	program := a.env("EDITOR")
	for _, p := range []string{"editor", "vi"} {
		if _, err := exec.LookPath(p); program == "" && err == nil {
			program = p
		}
	}
	if program == "" {
		return nil, errors.New("EDITOR environment variable is not set. editor or vi are not available")
	}
	f, err := os.CreateTemp("", strings.ReplaceAll(name, "/", "_")+"-config-*.yaml")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.Remove(f.Name()) }()
	_, err = io.WriteString(f, yamlText(before))
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, "sh", "-c", program+` "$1"`, program, f.Name())
	cmd.Stdin, cmd.Stdout, cmd.Stderr, cmd.Env = a.In, a.Out, a.Err, a.Environ
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("Editor exited: %w; nothing was changed", err) //lint:ignore ST1005 patronictl's words
	}
	b, err := os.ReadFile(f.Name())
	if err != nil {
		return nil, err
	}
	return parseYAML("what was edited", b)
}

func (a *app) pause(on bool) *cobra.Command {
	use, short := "resume", "Resume auto failover"
	if on {
		use, short = "pause", "Disable auto failover"
	}
	var o acting
	var wait bool
	c := &cobra.Command{Use: use + " [CLUSTER]", Short: short, Args: cobra.MaximumNArgs(1)}
	c.Flags().BoolVar(&wait, "wait", false, "wait until all nodes have seen it")
	if !a.classic {
		c.Flags().BoolVar(&o.dry, "dry-run", false, "say what would happen, and change nothing")
	}
	c.RunE = func(c *cobra.Command, args []string) error {
		return a.eachCluster(c.Context(), args, func(s *session) error { return s.pause(c.Context(), on, wait, o.dry) })
	}
	return c
}

func (s *session) pause(ctx context.Context, on, wait, dry bool) error {
	a := s.app
	word, state := "resume", "resumed"
	if on {
		word, state = "pause", "paused"
	}
	if s.state.Config.Pause == on {
		if on {
			return errors.New("Cluster is already paused") //lint:ignore ST1005 patronictl's words
		}
		return errors.New("Cluster is not paused") //lint:ignore ST1005 patronictl's words
	}
	if dry {
		if on {
			a.would("pause the management: nobody is promoted, started or stopped, and the leader goes on without a deadline, until it is resumed")
		} else {
			a.would("resume the management: the leader gets its deadline back, and whatever is not as it should be is put right")
		}
		return nil
	}
	var value any
	if on {
		value = true
	}
	for _, m := range s.leaderFirst() {
		code, text, err := s.request(ctx, m, http.MethodPatch, "/config", map[string]any{"pause": value}, memberLimit)
		switch {
		case err != nil:
			fmt.Fprintf(a.Err, "Member %s is not accessible: %v\n", m.Name, err)
			continue
		case code != http.StatusOK:
			a.say("Failed: %s cluster management status code=%d, (%s)", word, code, text)
		case wait:
			return s.awaitPause(ctx, on, word, state)
		default:
			a.say("Success: cluster management is %s", state)
		}
		return nil
	}
	return errors.New("Can not find accessible cluster member") //lint:ignore ST1005 patronictl's words
}

// awaitPause waits until every member says that it has seen the pause, or its end.
func (s *session) awaitPause(ctx context.Context, on bool, word, state string) error {
	a, loopWait := s.app, s.state.Config.LoopWait
	known := map[string]bool{}
	for _, m := range s.state.Members {
		known[m.Name] = m.APIURL != ""
	}
	a.say("'%s' request sent, waiting until it is recognized by all nodes", word)
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(loopWait + time.Second); ; {
		if err := s.read(ctx); err != nil {
			return err
		}
		var missing []string
		for _, m := range s.state.Members {
			if known[m.Name] && m.Pause != on {
				missing = append(missing, m.Name)
			}
		}
		switch {
		case len(missing) == 0:
			a.say("Success: cluster management is %s", state)
			return nil
		case time.Now().After(end):
			a.say("%s members didn't recognized pause state after %d seconds", strings.Join(missing, ", "), int(loopWait.Seconds()))
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}
