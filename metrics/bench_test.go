package metrics

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/hostler-dev/hostler/topology"
)

// bigMachine is 8 GPUs and 16 NICs, the machine that the budgets are about.
func bigMachine() *topology.Snapshot {
	s := machine()
	gpu, nic := s.GPUs[0], s.NICs[0]
	s.GPUs, s.NICs = nil, nil
	for i := range 16 {
		if i < 8 {
			gpu.Name = fmt.Sprintf("gpu-0000-%02x-00-0", i)
			s.GPUs = append(s.GPUs, gpu)
		}
		nic.Name = fmt.Sprintf("nic-0000-%02x-00-0", i+32)
		s.NICs = append(s.NICs, nic)
	}
	return s
}

func newBigBench(b *testing.B) *bench {
	b.Helper()
	big := newBench(b)
	big.run(b)
	big.pass(b, "every device is sampled", allSampled)
	big.SetSnapshot(bigMachine())
	big.pass(b, "every device is sampled", func(v *View) bool {
		return len(v.GPUs) == 8 && v.GPUs[7].Sample != nil && len(v.NICs) == 16 && v.NICs[15].Reading != nil
	})
	big.render(b.Context())
	return big
}

func BenchmarkScrape(b *testing.B) {
	exporter := newBigBench(b)
	server := httptest.NewServer(Handler(ServerConfig{Page: exporter}))
	defer server.Close()
	b.ResetTimer()
	for range b.N {
		response, err := http.Get(server.URL + "/metrics")
		if err != nil {
			b.Fatal(err)
		}
		if err := response.Body.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkScrapeHandler(b *testing.B) {
	exporter := newBigBench(b)
	request := httptest.NewRequest(http.MethodGet, "/metrics", nil)
	w := discard{http.Header{}}
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		exporter.ServeHTTP(w, request)
	}
}

func BenchmarkRender(b *testing.B) {
	exporter := newBigBench(b)
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		exporter.render(b.Context())
	}
	b.ReportMetric(float64(len(exporter.page.Load().plain)), "page-bytes")
}
