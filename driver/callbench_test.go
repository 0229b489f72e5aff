package driver

import (
	"context"
	"math"
	"slices"
	"sync"
	"testing"
	"time"

	drapbv1 "k8s.io/kubelet/pkg/apis/dra/v1"
)

// BenchmarkCalls measures prepare as the kubelet sees it, over the socket and
// through the library, with an API server that answers at once: one claim, eight in
// one call, and eight calls at once.
func BenchmarkCalls(b *testing.B) {
	claims, request, _ := eightClaims()
	s := start(b, claims...)
	s.SetSnapshot(machineOf(8))
	client := drapbv1.NewDRAPluginClient(s.conn)
	prepare := func(b *testing.B, claims ...*drapbv1.Claim) time.Duration {
		begin := time.Now()
		answer, err := client.NodePrepareResources(context.Background(), &drapbv1.NodePrepareResourcesRequest{Claims: claims})
		took := time.Since(begin)
		if err != nil {
			b.Error(err)
		}
		for uid, c := range answer.GetClaims() {
			if c.Error != "" {
				b.Errorf("claim %s: %s", uid, c.Error)
			}
		}
		return took
	}
	unprepare := func(b *testing.B) {
		if _, err := client.NodeUnprepareResources(context.Background(), &drapbv1.NodeUnprepareResourcesRequest{Claims: request}); err != nil {
			b.Fatal(err)
		}
	}
	for _, shape := range []struct {
		name  string
		calls func(*testing.B) []time.Duration
	}{
		{"one", func(b *testing.B) []time.Duration { return []time.Duration{prepare(b, request[0])} }},
		{"eight in one call", func(b *testing.B) []time.Duration { return []time.Duration{prepare(b, request...)} }},
		{"eight at once", func(b *testing.B) []time.Duration {
			took := make([]time.Duration, len(request))
			var all sync.WaitGroup
			for i, c := range request {
				all.Go(func() { took[i] = prepare(b, c) })
			}
			all.Wait()
			return took
		}},
	} {
		b.Run(shape.name, func(b *testing.B) {
			var took []time.Duration
			for b.Loop() {
				took = append(took, shape.calls(b)...)
				unprepare(b)
			}
			slices.Sort(took)
			at := func(share float64) float64 {
				return took[int(math.Ceil(share*float64(len(took))))-1].Seconds() * 1000
			}
			b.ReportMetric(at(0.50), "p50-ms")
			b.ReportMetric(at(0.99), "p99-ms")
			b.ReportMetric(0, "ns/op") // of both prepare and unprepare, and so of neither
		})
	}
}
