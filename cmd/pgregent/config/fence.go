package config

import (
	"cmp"
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pgregent/pgregent/ha/fence"
)

// Fence is what the file says about the fence: our own section `fence`, which is a mode or a mapping, and Patroni's
// section `watchdog` (reference section 4.2).
type Fence struct {
	// Required refuses to run as primary without a bound.
	Required bool
	Options  fence.Options
}

// buildFence reads both sections. Values outside of what is listed are errors: a misspelt mode must not weaken a fence.
func buildFence(r reader) (Fence, []error) {
	var errs []error
	choice := func(path, fallback string, allowed ...string) string {
		v := word(r.at(path))
		for _, a := range append(allowed, "") {
			if v == a {
				return cmp.Or(v, fallback)
			}
		}
		errs = append(errs, fmt.Errorf("%s is %q, expected one of %s", path, v, strings.Join(allowed, ", ")))
		return fallback
	}
	var f Fence
	if section, ok := r.at("fence").(map[string]any); ok {
		for _, key := range slices.Sorted(maps.Keys(section)) {
			if _, known := schema()["fence."+key]; !known {
				errs = append(errs, fmt.Errorf("fence.%s is not a known setting; known are mode, cgroup, admission, pid_namespace", key))
			}
		}
		f.Required = choice("fence.mode", "automatic", "automatic", "required") == "required"
		f.Options.Cgroup = choice("fence.cgroup", "automatic", "automatic", "off") == "automatic"
		if choice("fence.admission", "off", "automatic", "off") == "automatic" {
			_, port, _ := net.SplitHostPort(r.text("postgresql.listen"))
			f.Options.AdmissionPort, _ = strconv.Atoi(port)
		}
		f.Options.PIDNamespace = r.bool("fence.pid_namespace")
	} else {
		f.Required = choice("fence", "automatic", "automatic", "required") == "required"
		f.Options.Cgroup = true
	}
	f.Options.Watchdog, errs = watchdog(r, errs)
	return f, errs
}

// watchdog is Patroni's section, with its aliases.
func watchdog(r reader, errs []error) (fence.Watchdog, []error) {
	w := fence.Watchdog{Device: r.text("watchdog.device"), Margin: 5 * time.Second}
	switch m := word(r.at("watchdog.mode")); m {
	case "", "automatic", "auto":
		w.Mode = fence.WatchdogAutomatic
	case "off", "disable", "disabled":
		w.Mode = fence.WatchdogOff
	case "required", "require":
		w.Mode = fence.WatchdogRequired
	default:
		errs = append(errs, fmt.Errorf("watchdog.mode is %q, expected one of off, automatic, required", m))
	}
	if r.at("watchdog.safety_margin") != nil {
		n, err := strconv.Atoi(r.text("watchdog.safety_margin"))
		if err != nil || n < -1 {
			errs = append(errs, fmt.Errorf("watchdog.safety_margin is %v, expected seconds, or -1 for half of the ttl", r.at("watchdog.safety_margin")))
		}
		w.Margin = time.Duration(n) * time.Second
	}
	switch d := word(r.at("watchdog.driver")); d {
	case "", "default":
	case "testing":
		w.Testing = true
	default:
		errs = append(errs, fmt.Errorf("watchdog.driver is %q, expected default or testing", d))
	}
	return w, errs
}

// word is a value in lower case; YAML reads an unquoted off as false and on as true.
func word(v any) string {
	switch v := v.(type) {
	case nil:
		return ""
	case bool:
		if !v {
			return "off"
		}
		return "on"
	}
	return strings.ToLower(fmt.Sprint(v))
}
