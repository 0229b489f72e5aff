// The Node reactor keeps three things on the Node object true: one Event per
// fault raised and cleared, the condition AcceleratorsHealthy, and the taint that
// keeps pods away while a fault concerns the whole node. It compares what should
// be with what is, so a restart, a conflict or a lost update only delays it.

package react

import (
	"context"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"

	"github.com/hostler-dev/hostler/health"
)

// EventSink takes Events; record.EventRecorder is one.
type EventSink interface {
	Event(object runtime.Object, eventType, reason, message string)
}

// NodeConfig is what a Node reactor needs.
type NodeConfig struct {
	Client   kubernetes.Interface
	NodeName string
	Events   EventSink
	// Taint allows the node taint. Without it, one that is there is removed.
	Taint bool
	// Resync is how often an unchanged node is looked at again. Default: 5m.
	Resync time.Duration
	// RetryInterval after a failure. Default: 2s.
	RetryInterval time.Duration
	// Clock defaults to the real one.
	Clock clock.Clock
}

// Node reacts on the Node object.
type Node struct {
	cfg  NodeConfig
	wake chan struct{}

	mu       sync.Mutex
	verdicts []health.Verdict
	// primed: verdicts were handed over at least once. Before that, the node is
	// left as it is: an agent that just started must not lift a taint.
	primed bool
}

// NewNode makes the reactor.
func NewNode(cfg NodeConfig) *Node {
	if cfg.Resync <= 0 {
		cfg.Resync = 5 * time.Minute
	}
	if cfg.RetryInterval <= 0 {
		cfg.RetryInterval = 2 * time.Second
	}
	if cfg.Clock == nil {
		cfg.Clock = clock.RealClock{}
	}
	return &Node{cfg: cfg, wake: make(chan struct{}, 1)}
}

// SetVerdicts hands over all standing verdicts; it returns at once. The first
// call is the state before this agent's time and raises no Events.
func (n *Node) SetVerdicts(verdicts []health.Verdict) {
	n.mu.Lock()
	before, primed := n.verdicts, n.primed
	n.verdicts, n.primed = verdicts, true
	n.mu.Unlock()
	if primed {
		n.announce(before, verdicts)
	}
	select {
	case n.wake <- struct{}{}:
	default:
	}
}

func (n *Node) standing() (verdicts []health.Verdict, primed bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.verdicts, n.primed
}

// Run keeps the node's condition and taint true until ctx ends.
func (n *Node) Run(ctx context.Context) error {
	logger := klog.FromContext(ctx).WithName("health-node")
	next, told := n.cfg.Resync, ""
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-n.wake:
		case <-n.cfg.Clock.After(next):
		}
		verdicts, primed := n.standing()
		if !primed {
			continue
		}
		next = n.cfg.Resync
		if err := n.reconcile(ctx, verdicts); err != nil && ctx.Err() == nil {
			// An API server that is away for an hour is one fact, not 1800.
			if err.Error() != told {
				logger.Error(err, "The node's condition or taint is out of date; trying again until it is not", "node", n.cfg.NodeName, "every", n.cfg.RetryInterval)
				told = err.Error()
			}
			next = n.cfg.RetryInterval
			continue
		}
		told = ""
	}
}

// announce writes one Event for each fault that was raised, worsened or cleared.
func (n *Node) announce(before, after []health.Verdict) {
	// The kubelet's Events on its Node use the name as UID; kubectl describe finds both.
	node := &corev1.ObjectReference{APIVersion: "v1", Kind: "Node", Name: n.cfg.NodeName, UID: nodeUID(n.cfg.NodeName)}
	for _, change := range health.Changes(before, after) {
		v := change.Verdict
		switch change.Change {
		case health.Raised, health.Worsened:
			eventType := corev1.EventTypeWarning
			if v.Severity <= health.Info {
				eventType = corev1.EventTypeNormal
			}
			n.cfg.Events.Event(node, eventType, "AcceleratorFault", fmt.Sprintf("%s: %s: %s", subject(v), v.Severity, v.Message))
		case health.Cleared:
			if v.Severity <= health.Info {
				continue // nothing was wrong with the device
			}
			n.cfg.Events.Event(node, corev1.EventTypeNormal, "AcceleratorRecovered",
				fmt.Sprintf("%s: the fault %s (%s) is over", subject(v), v.Family, v.Reason))
		}
	}
}

func subject(v health.Verdict) string {
	if v.Device == "" {
		return "node"
	}
	return v.Device
}
