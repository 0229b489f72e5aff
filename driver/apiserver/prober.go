package apiserver

// Features come and go while the agent runs: control planes are upgraded under
// their nodes, one API server of several at a time, and rolled back. So the
// prober asks at start until it is answered, again at an interval, and soon
// after a publish failed, which is how a feature that went away makes itself felt.

import (
	"context"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/klog/v2"

	"github.com/hostler-dev/hostler/driver/publish"
)

const (
	// firstRetry doubles with every unanswered probe, up to slowestRetry.
	firstRetry   = 500 * time.Millisecond
	slowestRetry = 30 * time.Second
	// breath is the least time between two probes that Again asks for: the library
	// repeats a failing publish within milliseconds.
	breath = 10 * time.Second
)

// ProberConfig is what a Prober needs.
type ProberConfig struct {
	Client   kubernetes.Interface
	NodeName string
	// Interval between probes, lengthened at random by up to a fifth. Default: 10 minutes.
	Interval time.Duration
	// Changed is called, from Run's goroutine, after the first answer and
	// whenever an answer differs from the one before. Optional.
	Changed func(publish.Features)
}

// Prober knows the features of the API server as of the last answer.
type Prober struct {
	cfg   ProberConfig
	again chan struct{}

	mu       sync.Mutex
	features publish.Features
	known    bool
}

// NewProber returns a prober that knows nothing until Run was called.
func NewProber(cfg ProberConfig) *Prober {
	if cfg.Interval == 0 {
		cfg.Interval = 10 * time.Minute
	}
	return &Prober{cfg: cfg, again: make(chan struct{}, 1)}
}

// Features are those of the last answer, and whether there was one.
func (p *Prober) Features() (publish.Features, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.features, p.known
}

// Again asks for another probe soon, because slices could not be published. It
// does not wait, and may be called from anywhere and often.
func (p *Prober) Again() {
	select {
	case p.again <- struct{}{}:
	default:
	}
}

// Run probes until ctx ends. An unanswered probe changes nothing: the last
// answer stays, and the next attempt comes sooner.
func (p *Prober) Run(ctx context.Context) {
	retry := firstRetry
	for {
		begin := time.Now()
		select {
		case <-p.again: // What was asked until now, this probe answers.
		default:
		}
		features, err := Probe(ctx, p.cfg.Client, p.cfg.NodeName)
		if ctx.Err() != nil {
			return
		}
		// Spread, because an upgrade of the DaemonSet starts agents at the same time.
		next := wait.Jitter(p.cfg.Interval, 0.2)
		if err != nil {
			next, retry = min(retry, p.cfg.Interval), min(2*retry, slowestRetry)
			klog.FromContext(ctx).Error(err, "The API server's features are not known or may have changed; asking again", "after", next)
		} else {
			retry = firstRetry
			p.learn(ctx, features)
		}
		if !p.rest(ctx, begin, next) {
			return
		}
	}
}

func (p *Prober) learn(ctx context.Context, features publish.Features) {
	p.mu.Lock()
	changed := !p.known || p.features != features
	p.features, p.known = features, true
	p.mu.Unlock()
	if !changed {
		return
	}
	klog.FromContext(ctx).Info("The API server told its features; what it lacks is left out of ResourceSlices",
		"taints", features.Taints, "fewTaints", features.FewTaints, "sharedCounters", features.Counters,
		"sharedDevices", features.SharedDevices, "listAttributes", features.ListAttributes)
	if p.cfg.Changed != nil {
		p.cfg.Changed(features)
	}
}

// rest returns when the next probe is due, or false when ctx ended.
func (p *Prober) rest(ctx context.Context, begin time.Time, next time.Duration) bool {
	timer := time.NewTimer(next)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	case <-p.again:
		timer.Reset(min(time.Until(begin.Add(breath)), next))
	}
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
