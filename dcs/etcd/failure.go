package etcd

import (
	"errors"
	"fmt"
	"strings"

	"github.com/pgregent/pgregent/dcs"
)

// failure is the error of the call: of the kind dcs.ErrUnknown when it may have happened, and with what each endpoint
// said last. cause is why the context ended, if it did.
func (c *call[R]) failure(cause error) error {
	var all failures
	if cause != nil {
		all = append(all, cause)
	}
	for _, e := range c.store.pool.list() {
		if err := c.last[e]; err != nil {
			all = append(all, err)
		}
	}
	if c.rejection != nil { // in words only: this is not the refusal that errors.Is would take it for
		all = append(all, errors.New(c.rejection.Error()+", perhaps because of the first attempt"))
	}
	if c.maybe != nil && c.manner != reading {
		return fmt.Errorf("%w: %w", dcs.ErrUnknown, all)
	}
	return all
}

// failures is several errors in one line.
type failures []error

// Error implements error.
func (f failures) Error() string {
	words := make([]string, len(f))
	for i, err := range f {
		words[i] = err.Error()
	}
	return strings.Join(words, "; ")
}

// Unwrap is for errors.Is and errors.As.
func (f failures) Unwrap() []error { return f }
