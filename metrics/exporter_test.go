package metrics

import (
	"compress/gzip"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/hostler-dev/hostler/topology/nvml"
)

var _ GPUSampler = (*nvml.Source)(nil)

func scrape(t *testing.T, handler http.Handler, encoding string) (string, *http.Response) {
	t.Helper()
	request := httptest.NewRequest(http.MethodGet, "/metrics", nil)
	request.Header.Set("Accept-Encoding", encoding)
	recorder := httptest.NewRecorder()
	handler.ServeHTTP(recorder, request)
	response := recorder.Result()
	var body io.Reader = response.Body
	if response.Header.Get("Content-Encoding") == "gzip" {
		unpacked, err := gzip.NewReader(body)
		if err != nil {
			t.Fatal(err)
		}
		body = unpacked
	}
	text, err := io.ReadAll(body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text), response
}

func TestScrapeTouchesNoDevice(t *testing.T) {
	const utilization = `hw_gpu_utilization_ratio{device="gpu-0000-17-00-0",uuid="GPU-aaaa",pci="0000:17:00.0",model="NVIDIA \"H100\""} 0.93`
	b := newBench(t)
	b.run(t)
	b.pass(t, "the page has the GPU's utilization", func(*View) bool {
		text, _ := scrape(t, b, "")
		return strings.Contains(text, utilization)
	})
	b.gpus.set(func() { b.gpus.forbidden = true })
	for range 100 {
		if text, _ := scrape(t, b, ""); !strings.Contains(text, utilization) {
			t.Fatalf("the page lost the utilization:\n%s", text)
		}
	}
	b.gpus.set(func() { b.gpus.forbidden = false })
}

func TestPageIsThereBeforeTheFirstDevice(t *testing.T) {
	text, response := scrape(t, newBench(t), "")
	if response.StatusCode != http.StatusOK || !strings.Contains(text, "hostler_claims_prepared 0") {
		t.Errorf("status %d, page:\n%s", response.StatusCode, text)
	}
}

func TestHungGPUGoesStaleAlone(t *testing.T) {
	b := newBench(t)
	b.run(t)
	b.pass(t, "every device is sampled", allSampled)
	b.gpus.set(func() { b.gpus.hang[pci0] = true })
	v := b.pass(t, "the hung GPU's sample is gone", func(v *View) bool { return v.GPUs[0].Sample == nil })
	if v.GPUs[1].Sample == nil || v.NICs[0].Reading == nil {
		t.Error("another device went stale with it")
	}
	text := string(appendFamilies(nil, specification(), v))
	if strings.Contains(text, `hw_temperature_celsius{device="gpu-0000-17-00-0"`) {
		t.Error("the page still has a temperature of the hung GPU")
	}
	if !strings.Contains(text, `hostler_sample_age_seconds{device="gpu-0000-17-00-0",pci="0000:17:00.0"} 1`) {
		t.Errorf("the page does not tell the age of more than ten seconds:\n%s", text)
	}
	before := b.gpus.calls[pci0]
	b.pass(t, "the neighbour is sampled on", func(v *View) bool { return v.GPUs[1].SampledAt.After(b.view().GPUs[0].SampledAt.Add(30e9)) })
	if calls := b.gpus.calls[pci0]; calls != before {
		t.Errorf("%d more calls were made to the GPU that hangs", calls-before)
	}
}

func TestFailingGPU(t *testing.T) {
	for _, test := range []struct {
		name   string
		err    error
		sample nvml.Sample
		kept   bool
	}{
		{"a lost GPU's sample is not kept", nvml.ErrLost, nvml.Sample{PowerWatts: ptr(1.0)}, false},
		{"one failed value costs that value", errors.New("power: not now"), nvml.Sample{TemperatureCelsius: ptr(30.0)}, true},
		{"a sample with nothing in it is none", errors.New("everything failed"), nvml.Sample{}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := newBench(t)
			b.gpus.samples[pci0], b.gpus.errs[pci0] = test.sample, test.err
			b.run(t)
			v := b.pass(t, "the GPU was tried", func(v *View) bool { return len(v.GPUs) == 2 && v.GPUs[0].Errors > 0 })
			if kept := v.GPUs[0].Sample != nil; kept != test.kept {
				t.Errorf("sample kept: %t, want %t", kept, test.kept)
			}
		})
	}
}

func TestVirtualFunctionIsShownWhileHeld(t *testing.T) {
	for _, test := range []struct {
		name   string
		holder Holder
	}{
		{"alone", Holder{Device: "nic-0000-18-00-2", NIC: "nic-0000-18-00-2", ClaimUID: "uid-1"}},
		{"in a pair", Holder{Device: pair, GPU: "gpu-0000-17-00-0", NIC: "nic-0000-18-00-2", ClaimUID: "uid-1"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := newBench(t)
			b.run(t)
			b.pass(t, "every device is sampled", allSampled)
			has := func(v *View) bool { return len(v.NICs) == 3 && v.NICs[1].Reading != nil }
			if has(b.view()) {
				t.Fatal("a VF that nobody holds is shown")
			}
			b.ledger.set(test.holder)
			b.pass(t, "the held VF is measured", has)
			b.ledger.set()
			b.pass(t, "the VF that was given back is shown no more", func(v *View) bool { return len(v.NICs) == 2 })
		})
	}
}

func TestDeviceThatLeavesIsSampledNoMore(t *testing.T) {
	b := newBench(t)
	b.run(t)
	b.pass(t, "every device is sampled", allSampled)
	smaller := machine()
	smaller.GPUs, smaller.NICs = smaller.GPUs[:1], nil
	b.SetSnapshot(smaller)
	b.pass(t, "its sampler is gone", func(*View) bool {
		b.mu.Lock()
		defer b.mu.Unlock()
		return len(b.Exporter.gpus) == 1 && len(b.nics) == 0
	})
}

func TestGzip(t *testing.T) {
	b := newBench(t)
	for _, test := range []struct {
		name, accept, encoding string
	}{
		{"the first scraper that asks gets the page as it is", "gzip", ""},
		{"from the next page on it is compressed", "deflate, gzip;q=1.0", "gzip"},
		{"for those who ask", "", ""},
		{"and not for those who refuse", "gzip;q=0", ""},
	} {
		text, response := scrape(t, b, test.accept)
		if got := response.Header.Get("Content-Encoding"); got != test.encoding || !strings.Contains(text, "hostler_claims_prepared 0") {
			t.Errorf("%s: encoding %q, want %q", test.name, got, test.encoding)
		}
		b.render(t.Context())
	}
}

// discard is a response writer that keeps nothing.
type discard struct{ header http.Header }

func (d discard) Header() http.Header         { return d.header }
func (d discard) Write(p []byte) (int, error) { return len(p), nil }
func (d discard) WriteHeader(int)             {}

func TestScrapeAllocatesNothing(t *testing.T) {
	b := newBench(t)
	request := httptest.NewRequest(http.MethodGet, "/metrics", nil)
	request.Header.Set("Accept-Encoding", "gzip")
	w := discard{http.Header{}}
	b.ServeHTTP(w, request)
	b.render(t.Context())
	if allocations := testing.AllocsPerRun(100, func() { b.ServeHTTP(w, request) }); allocations > 0 {
		t.Errorf("a scrape allocates %v times", allocations)
	}
}

// The ledger's channel is closed by one change; the next change has another one.
func TestChangesRightAfterEachOtherAreAllShown(t *testing.T) {
	b := newBench(t)
	b.cfg.Interval = time.Hour // no sample has the page made anew
	b.run(t)
	b.pass(t, "every device is sampled", allSampled)
	shows := func(uid string) func(*View) bool {
		return func(*View) bool {
			text, _ := scrape(t, b, "")
			return strings.Contains(text, `claim_uid="`+uid+`"`)
		}
	}
	b.ledger.set(Holder{Device: "gpu-0000-17-00-0", GPU: "gpu-0000-17-00-0", ClaimUID: "uid-1"})
	b.pass(t, "the first claim is on the page", shows("uid-1"))
	b.ledger.set(Holder{Device: "gpu-0000-17-00-0", GPU: "gpu-0000-17-00-0", ClaimUID: "uid-2"})
	b.clock.Step(b.cfg.RenderInterval / 2) // the page waits for what comes close behind
	b.ledger.set(Holder{Device: "gpu-0000-17-00-0", GPU: "gpu-0000-17-00-0", ClaimUID: "uid-3"})
	b.pass(t, "the last claim is on the page", shows("uid-3"))
}

func TestAllDevicesAreMeasuredAtOneTime(t *testing.T) {
	base := start
	s := series[int]{interval: 5 * time.Second, base: base}
	for after, want := range map[time.Duration]time.Duration{
		0:                                 5 * time.Second,
		30 * time.Millisecond:             4970 * time.Millisecond,
		2500 * time.Millisecond:           2500 * time.Millisecond,
		4999 * time.Millisecond:           5001 * time.Millisecond,
		5 * time.Second:                   5 * time.Second,
		time.Hour + 1200*time.Millisecond: 3800 * time.Millisecond,
	} {
		if got := s.untilNext(base.Add(after)); got != want {
			t.Errorf("after %s the next time is in %s, want %s", after, got, want)
		}
	}
}
