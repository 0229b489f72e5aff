package main

// An agent's life beside others. On one node one agent at a time is active and
// holds everything that there can be only one of: the journal, the gate's socket,
// the HTTP port, the connection to NRI. One that comes while another is active is its
// successor: it registers with the kubelet, lets the calls wait, and asks for its
// turn. The other ends its turn in order and stays, retired, until it is told to end:
// if it exited, the kubelet would restart its container, which would ask for its turn
// again. If the successor dies, the retired one takes over.

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"

	"github.com/hostler-dev/hostler/api/v1alpha1"
	"github.com/hostler-dev/hostler/driver"
)

const (
	// linger is how long the active agent serves on once a successor is registered.
	// The kubelet sends new calls to the successor from then on, and some that it has
	// begun to send to this one.
	linger = time.Second
	// handOverLimit and stopLimit are how long calls in flight hold up the end of the
	// turn. The kubelet's limit is 45 seconds, a stopped pod's 15 (the chart's
	// terminationGracePeriodSeconds).
	handOverLimit = 30 * time.Second
	stopLimit     = 8 * time.Second
)

var (
	errRetired = errors.New("a successor took over")
	errStopped = errors.New("told to stop")
)

// service is what stays the same over an agent's turns.
type service struct {
	cfg    *v1alpha1.AgentConfig
	rest   *rest.Config
	client kubernetes.Interface
	// pod's UID, empty outside of a pod: such an agent never asks for its turn.
	pod types.UID
	// succeeded is set while a successor waits for the active agent to end.
	succeeded atomic.Bool
}

// run returns when ctx ends or when something fails that only a restart can mend.
func (s *service) run(ctx context.Context) error {
	go dropStart(ctx)
	turn, front, err := s.firstTurn(ctx)
	for err == nil {
		err = s.serve(ctx, front)
		err = errors.Join(err, turn.Close())
		if !errors.Is(err, errRetired) {
			break
		}
		klog.FromContext(ctx).Info("Retired; a successor serves the node")
		s.succeeded.Store(false)
		front = nil
		turn, err = driver.AwaitTurn(ctx, s.cfg.Paths, nil)
	}
	if ctx.Err() != nil && (errors.Is(err, errStopped) || errors.Is(err, context.Canceled)) {
		klog.FromContext(ctx).Info("Stopped; what pods hold stays as it is")
		return nil
	}
	return err
}

// firstTurn is at once if no agent is active. Else it comes with a front at which
// calls may wait already.
func (s *service) firstTurn(ctx context.Context) (*driver.StateLock, *driver.Front, error) {
	turn, err := driver.TakeTurn(s.cfg.Paths)
	if !errors.Is(err, driver.ErrStateInUse) {
		return turn, nil, err
	}
	klog.FromContext(ctx).Info("Another agent serves the node; this one waits for its turn")
	if s.pod == "" {
		turn, err = driver.AwaitTurn(ctx, s.cfg.Paths, nil)
		return turn, nil, err
	}
	front, err := s.openFront(ctx)
	if err != nil {
		return nil, nil, err
	}
	turn, err = driver.AwaitTurn(ctx, s.cfg.Paths, front.Registered)
	if err != nil {
		return nil, nil, errors.Join(err, front.Close())
	}
	return turn, front, nil
}

func (s *service) openFront(ctx context.Context) (*driver.Front, error) {
	return driver.OpenFront(ctx, driver.FrontConfig{NodeName: s.cfg.NodeName, KubeClient: s.client, Paths: s.cfg.Paths, PodUID: s.pod})
}

// serve is one turn. It returns errRetired or errStopped once nothing of it works on
// the node any more.
func (s *service) serve(ctx context.Context, front *driver.Front) (err error) {
	// What runs ends after the calls in flight, not when ctx does.
	working, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	if front == nil {
		if front, err = s.openFront(ctx); err != nil {
			return err
		}
	}
	a, err := newAgent(working, s, front)
	if err != nil {
		return errors.Join(err, front.Close())
	}
	defer a.gpus.Close()
	group, working := errgroup.WithContext(working)
	group.Go(func() error { return a.run(working) })
	group.Go(func() error { return s.leave(ctx, working, front) })
	err = group.Wait()
	if a.driverEnd != nil {
		// Only the end of the process ends what may still work on claims.
		return a.driverEnd
	}
	return err
}

// leave returns, with the reason, when the turn is over and the calls in flight are
// answered. It returns nil if working ended by itself.
func (s *service) leave(ctx, working context.Context, front *driver.Front) error {
	waiting, stop := context.WithCancel(ctx)
	defer stop()
	defer context.AfterFunc(working, stop)()
	logger := klog.FromContext(ctx)
	for {
		err := driver.AwaitSuccessor(waiting, s.cfg.Paths)
		switch {
		case working.Err() != nil:
			return nil
		case ctx.Err() != nil:
			logger.Info("Told to stop; finishing what was begun")
			s.awaitQuiet(working, front, stopLimit)
			return errStopped
		case err != nil:
			return fmt.Errorf("look for a successor: %w", err)
		}
		logger.Info("A successor is registered with the kubelet; finishing what was begun")
		s.succeeded.Store(true)
		select {
		case <-time.After(linger):
		case <-waiting.Done():
			continue
		}
		if waits, err := driver.SuccessorWaits(s.cfg.Paths); err == nil && !waits {
			logger.Info("The successor is gone; serving on")
			s.succeeded.Store(false)
			continue
		}
		s.awaitQuiet(working, front, handOverLimit)
		return errRetired
	}
}

// awaitQuiet gives calls in flight their time. What they began goes on beyond that.
func (s *service) awaitQuiet(ctx context.Context, front *driver.Front, limit time.Duration) {
	patience, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if err := front.Quiet(patience); err != nil && ctx.Err() == nil {
		klog.FromContext(ctx).Error(err, "Cutting off calls of the kubelet, which repeats them", "after", limit)
	}
}
