// Package spans tells an OpenTelemetry collector of a node's operations: each becomes a span whose children are its phases. It
// is off unless an endpoint is set in the environment, decides nothing, and an unreachable collector costs nothing but a
// line in the log.
package spans

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/pgregent/pgregent/ha/rest"
)

// Wanted says that the environment names a collector, by the variables of the OpenTelemetry specification
// (https://opentelemetry.io/docs/specs/otel/protocol/exporter/), which set everything else, too.
func Wanted() bool {
	return os.Getenv("OTEL_SDK_DISABLED") != "true" &&
		(os.Getenv("OTEL_EXPORTER_OTLP_ENDPOINT") != "" || os.Getenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") != "")
}

// Run exports the operations of the node until ctx ends. Call it in a goroutine of its own. An error is one of the settings.
func Run(ctx context.Context, report func() *rest.Report, log *slog.Logger) error {
	exporter, err := otlptracehttp.New(ctx)
	if err != nil {
		return fmt.Errorf("OTEL_EXPORTER_OTLP_*: %w", err)
	}
	return export(ctx, exporter, report, log)
}

func export(ctx context.Context, exporter sdk.SpanExporter, report func() *rest.Report, log *slog.Logger) error {
	r := report()
	provider := sdk.NewTracerProvider(sdk.WithBatcher(exporter, sdk.WithBatchTimeout(time.Second)), sdk.WithResource(resource.NewSchemaless(
		attribute.String("service.name", "pgregent"), attribute.String("service.version", r.Version),
		attribute.String("service.instance.id", r.Name), attribute.String("service.namespace", r.Scope))))
	tracer := provider.Tracer("github.com/pgregent/pgregent")
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	var last time.Time
	for {
		select {
		case <-ctx.Done():
			last = tell(tracer, report().Operations, last)
			end, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
			defer cancel()
			if err := provider.Shutdown(end); err != nil {
				log.Warn("the last spans were not exported", "error", err)
			}
			return nil
		case <-tick.C:
			last = tell(tracer, report().Operations, last)
		}
	}
}

// tell makes spans of the operations that began after last, and returns when the newest one began.
func tell(tracer trace.Tracer, operations []rest.Operation, last time.Time) time.Time {
	for _, o := range operations {
		if !o.Began.After(last) {
			continue
		}
		last = o.Began
		ctx, span := tracer.Start(context.Background(), o.Kind, trace.WithTimestamp(o.Began), trace.WithAttributes(
			attribute.String("pgregent.result", o.Result), attribute.Int64("pgregent.epoch", int64(o.Epoch))))
		at := o.Began
		for _, p := range o.Phases {
			_, child := tracer.Start(ctx, p.Name, trace.WithTimestamp(at))
			at = at.Add(p.Took)
			child.End(trace.WithTimestamp(at))
		}
		span.End(trace.WithTimestamp(o.Began.Add(o.Took)))
	}
	return last
}
