package main

import (
	"context"
	"maps"
	"sync"

	"github.com/pgregent/pgregent/callbacks"
	"github.com/pgregent/pgregent/callbacks/exec"
	"github.com/pgregent/pgregent/cmd/pgregent/config"
	"github.com/pgregent/pgregent/ha"
)

// scripts are the programs that the file and the dynamic configuration name: callbacks, pre_promote and before_stop. What
// the file says wins, the callbacks as a whole (reference section 4.1).
type scripts struct {
	callbacks *exec.Scripts

	mu      sync.Mutex
	local   config.Scripts
	dynamic map[string]any
}

var _ ha.Scripts = (*scripts)(nil)

func newScripts(local config.Scripts) *scripts {
	s := &scripts{callbacks: exec.New(nil)}
	s.reload(local)
	return s
}

// reload takes over what the file says now.
func (s *scripts) reload(local config.Scripts) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.local = local
	s.apply()
}

// Configure implements ha.Scripts.
func (s *scripts) Configure(dynamic map[string]any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dynamic = maps.Clone(dynamic)
	s.apply()
}

func (s *scripts) apply() {
	commands := map[callbacks.Action]string{}
	for action, line := range s.local.Callbacks {
		commands[callbacks.Action(action)] = line
	}
	if dynamic, ok := s.dynamic["callbacks"].(map[string]any); ok && len(commands) == 0 {
		for action, line := range dynamic {
			if text, ok := line.(string); ok {
				commands[callbacks.Action(action)] = text
			}
		}
	}
	s.callbacks.Set(commands, s.local.CallbackTimeout)
}

// PrePromote implements ha.Scripts.
func (s *scripts) PrePromote(ctx context.Context) error {
	s.mu.Lock()
	line, limit := s.line(s.local.PrePromote, "pre_promote"), s.local.PrePromoteTimeout
	s.mu.Unlock()
	if line == "" {
		return nil
	}
	call, cancel := exec.Limit(ctx, limit)
	defer cancel()
	return exec.Run(call, line)
}

// BeforeStop implements ha.Scripts.
func (s *scripts) BeforeStop(ctx context.Context) error {
	s.mu.Lock()
	line, limit := s.line(s.local.BeforeStop, "before_stop"), s.local.BeforeStopTimeout
	s.mu.Unlock()
	if line == "" {
		return nil
	}
	call, cancel := exec.Limit(ctx, limit)
	defer cancel()
	return exec.Run(call, line)
}

// line is the file's command line, or the dynamic configuration's.
func (s *scripts) line(local, key string) string {
	if local != "" {
		return local
	}
	line, _ := s.dynamic[key].(string)
	return line
}
