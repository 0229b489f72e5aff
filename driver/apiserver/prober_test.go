package apiserver

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	resourceapi "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/klog/v2"

	"github.com/hostler-dev/hostler/driver/publish"
)

// What an API server answers is tested with real ones in test/apiserver; the
// server here only decides when it answers, and whether it knows taints.
type server struct {
	mu     sync.Mutex
	down   bool
	taints bool
	// probes are the times of the first question of each, since the test began.
	probes []time.Duration
	begin  time.Time
	// told are the changes that the prober told.
	told []publish.Features
}

// set changes the server; seen returns what it has seen.
func (s *server) set(down, taints bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.down, s.taints = down, taints
}

func (s *server) seen() (probes []time.Duration, told []publish.Features) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.probes), slices.Clone(s.told)
}

func (s *server) tell(features publish.Features) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.told = append(s.told, features)
}

func (s *server) client() *fake.Clientset {
	client := fake.NewClientset()
	client.PrependReactor("create", "resourceslices", func(action clienttesting.Action) (bool, runtime.Object, error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		slice := action.(clienttesting.CreateAction).GetObject().(*resourceapi.ResourceSlice).DeepCopy()
		spec := &slice.Spec
		device := len(spec.Devices) == 1
		if device && spec.Devices[0].Taints == nil && spec.Devices[0].AllowMultipleAllocations == nil && spec.Devices[0].ConsumesCounters == nil && spec.Devices[0].Attributes == nil {
			s.probes = append(s.probes, time.Since(s.begin))
		}
		if s.down {
			return true, nil, apierrors.NewInternalError(errors.New("the database is away"))
		}
		spec.SharedCounters = nil
		for i := range spec.Devices {
			d := &spec.Devices[i]
			d.AllowMultipleAllocations, d.ConsumesCounters, d.Attributes = nil, nil, nil
			if !s.taints {
				d.Taints = nil
			}
		}
		return true, slice, nil
	})
	return client
}

// run has a prober at a server, in a bubble with a clock of its own.
func run(t *testing.T, s *server, script func(p *Prober)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s.begin = time.Now()
		p := NewProber(ProberConfig{Client: s.client(), NodeName: "node1", Changed: s.tell})
		ctx, cancel := context.WithCancel(klog.NewContext(t.Context(), klog.Logger{}))
		defer cancel()
		go p.Run(ctx)
		synctest.Wait()
		script(p)
		cancel()
		synctest.Wait()
	})
}

// after lets the bubble's clock go on.
func after(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func TestProberAsksUntilAnsweredAndMoreSlowlyEachTime(t *testing.T) {
	s := &server{down: true, taints: true}
	run(t, s, func(p *Prober) {
		after(4 * time.Second)
		probes, told := s.seen()
		want := []time.Duration{0, 500 * time.Millisecond, 1500 * time.Millisecond, 3500 * time.Millisecond}
		if diff := cmp.Diff(want, probes); diff != "" {
			t.Errorf("asked at other times (-want +got):\n%s", diff)
		}
		if _, known := p.Features(); known || len(told) > 0 {
			t.Errorf("a failing server counts as an answer: %v", told)
		}
		s.set(false, true)
		after(4 * time.Second)
		if features, known := p.Features(); !known || !features.Taints {
			t.Errorf("features are %+v (known: %v), want taints", features, known)
		}
		if _, told := s.seen(); len(told) != 1 {
			t.Errorf("told %v, want one answer", told)
		}
	})
}

func TestProberKeepsTheLastAnswerWhileTheServerFails(t *testing.T) {
	s := &server{taints: true}
	run(t, s, func(p *Prober) {
		s.set(true, true)
		after(time.Hour)
		if probes, told := s.seen(); len(probes) < 60 || len(told) != 1 {
			t.Errorf("asked %d times and told %v, want many questions and one answer", len(probes), told)
		}
		if features, known := p.Features(); !known || !features.Taints {
			t.Errorf("features are %+v (known: %v), want those from before the failure", features, known)
		}
	})
}

func TestProberSeesAnUpgradeWithinTheInterval(t *testing.T) {
	s := &server{}
	run(t, s, func(*Prober) {
		s.set(false, true)
		after(9 * time.Minute)
		if probes, _ := s.seen(); len(probes) != 1 {
			t.Errorf("asked %d times in nine minutes, want once", len(probes))
		}
		want := []publish.Features{{}, {Taints: true}}
		after(3 * time.Minute)
		if _, told := s.seen(); !slices.Equal(told, want) {
			t.Errorf("told %v, want %v", told, want)
		}
		after(time.Hour)
		if _, told := s.seen(); len(told) != len(want) {
			t.Errorf("told %v although nothing changed", told[len(want):])
		}
	})
}

func TestProberAsksSoonAfterAFailedPublishButNotForEachRetry(t *testing.T) {
	s := &server{}
	run(t, s, func(p *Prober) {
		for range 50 {
			p.Again()
			after(100 * time.Millisecond)
		}
		after(time.Minute)
		probes, _ := s.seen()
		if diff := cmp.Diff([]time.Duration{0, breath}, probes); diff != "" {
			t.Errorf("asked at other times (-want +got):\n%s", diff)
		}
		p.Again()
		after(time.Millisecond)
		if probes, _ := s.seen(); len(probes) != 3 {
			t.Errorf("asked %d times, want the third at once: the last is a minute ago", len(probes))
		}
	})
}
