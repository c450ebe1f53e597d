package main

import (
	"context"
	"fmt"
	"io"

	"github.com/pgregent/pgregent/cmd/pgregent/config"
)

// runValidate is `pgregent validate FILE.yml`.
func runValidate(_ context.Context, args, environ []string, out, errOut io.Writer) error {
	path, err := fileArgument("validate", args, errOut)
	if err != nil {
		return err
	}
	c, warnings, err := config.Load(path, environ)
	for _, w := range warnings {
		fmt.Fprintln(errOut, "warning:", w)
	}
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "%s: valid, member %s of cluster %s\n", path, c.Name, c.Scope)
	return nil
}
