package spans

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/pgregent/pgregent/ha/rest"
)

func TestWanted(t *testing.T) {
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "")
	t.Setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "")
	t.Setenv("OTEL_SDK_DISABLED", "")
	require.False(t, Wanted(), "off unless an endpoint is set")
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318")
	require.True(t, Wanted())
	t.Setenv("OTEL_SDK_DISABLED", "true")
	require.False(t, Wanted())
}

func failover(began time.Time) rest.Operation {
	return rest.Operation{Kind: "failover", Began: began, Took: 90 * time.Millisecond, Result: "leader", Epoch: 2,
		Phases: []rest.Phase{{Name: "taking", Took: 10 * time.Millisecond}, {Name: "promote", Took: 80 * time.Millisecond}}}
}

// TestSpans: an operation is a span, its phases are its children, one after the other, and none is told twice.
func TestSpans(t *testing.T) {
	began := time.Unix(1000, 0)
	r := &rest.Report{Name: "pg1", Scope: "demo", Version: "1", Operations: []rest.Operation{failover(began)}}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	kept := tracetest.NewInMemoryExporter()
	require.NoError(t, export(ctx, keep{kept}, func() *rest.Report { return r }, slog.New(slog.DiscardHandler)))
	spans := kept.GetSpans()
	require.Len(t, spans, 3)
	taking, promote, whole := spans[0], spans[1], spans[2]
	require.Equal(t, []string{"taking", "promote", "failover"}, []string{taking.Name, promote.Name, whole.Name})
	require.Equal(t, whole.SpanContext.SpanID(), taking.Parent.SpanID())
	require.True(t, taking.EndTime.Equal(promote.StartTime))
	require.True(t, whole.StartTime.Equal(began))
	require.Equal(t, 90*time.Millisecond, whole.EndTime.Sub(whole.StartTime))
}

// keep holds on to the spans when the provider is shut down.
type keep struct{ *tracetest.InMemoryExporter }

func (keep) Shutdown(context.Context) error { return nil }

// TestCollector: a real exporter reaches a collector that the environment names.
func TestCollector(t *testing.T) {
	got := make(chan int, 10)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		b, _ := io.ReadAll(req.Body)
		if req.URL.Path == "/v1/traces" {
			got <- len(b)
		}
	}))
	defer server.Close()
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", server.URL)
	r := &rest.Report{Name: "pg1", Operations: []rest.Operation{failover(time.Unix(1000, 0))}}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- Run(ctx, func() *rest.Report { return r }, slog.New(slog.DiscardHandler)) }()
	select {
	case n := <-got:
		require.Positive(t, n)
	case <-time.After(20 * time.Second):
		t.Fatal("the collector was told nothing")
	}
	cancel()
	require.NoError(t, <-done)
}
