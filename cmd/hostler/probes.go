package main

// What the agent says about itself. Live: the process can still do its work, so
// that only what a restart mends may fail here. Ready: this node's devices are
// published and claims can be prepared.

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync/atomic"
	"time"

	"github.com/hostler-dev/hostler/metrics"
)

func (a *agent) live() []metrics.Check {
	return []metrics.Check{{Name: "discovery", Run: func() error {
		last := time.Unix(0, a.hardware.lastRead.Load())
		if limit := 10*a.cfg.Discovery.PollInterval.Duration + time.Minute; last.Unix() > 0 && time.Since(last) > limit {
			return fmt.Errorf("the machine was last read %s ago", time.Since(last).Round(time.Second))
		}
		return nil
	}}}
}

// ready fails while a successor waits: it has the same port, so that the kubelet's
// probes of its pod are answered here, and it is not to be taken for ready yet.
func (a *agent) ready(succeeded *atomic.Bool) []metrics.Check {
	return []metrics.Check{
		{Name: "successor", Run: func() error {
			if succeeded.Load() {
				return errors.New("a successor waits for this agent to finish what it has begun")
			}
			return nil
		}},
		{Name: "api-server", Run: a.node.failure},
		{Name: "discovery", Run: func() error {
			if a.observer.Snapshot() == nil {
				return errors.New("the first look at the machine is not over")
			}
			return nil
		}},
		{Name: "kubelet-plugin", Run: a.front.Registered},
		{Name: "nri", Run: func() error {
			// A runtime that has no NRI at all is no fault: the gate attaches its pods.
			if _, err := os.Stat(a.cfg.Paths.NRI); !a.doors.connected.Load() && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("the container runtime's NRI socket %s does not answer; pods with network claims wait at the gate", a.cfg.Paths.NRI)
			}
			return nil
		}},
	}
}
