package cluster

// The clusters of a machine share one directory. Its lock serialises starts and
// stops, so that two of them never claim the same index; the plan is on disk
// before anything else is made, so that Stop can undo a start that died anywhere.

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// lock waits for other starts and stops on this machine. The directory is
// removed with the last cluster, so the lock counts only if the path still names it.
func lock(ctx context.Context) (unlock func(), err error) {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		if err := os.MkdirAll(stateRoot, 0o755); err != nil {
			return nil, fmt.Errorf("make the directory for clusters: %w", err)
		}
		dir, err := os.Open(stateRoot)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("open the directory of clusters: %w", err)
		}
		if err := unix.Flock(int(dir.Fd()), unix.LOCK_EX|unix.LOCK_NB); err == nil {
			held, err1 := dir.Stat()
			named, err2 := os.Stat(stateRoot)
			if err1 == nil && err2 == nil && os.SameFile(held, named) {
				return func() { dir.Close() }, nil
			}
		}
		dir.Close()
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("another start or stop of a cluster holds %s: %w", stateRoot, ctx.Err())
		case <-tick.C:
		}
	}
}

// claimPlan picks the lowest free index and writes the plan down.
func claimPlan(options Options, bin, tree string) (Plan, error) {
	index := 0
	for taken(index) {
		index++
	}
	plan, err := newPlan(options, options.Dir, index)
	if err != nil {
		return Plan{}, err
	}
	plan.Binaries, plan.Tree = bin, tree
	plan.PCIBus = servesPCI() && slices.ContainsFunc(plan.Nodes, func(n NodePlan) bool { return n.Machine != "" })
	for i, n := range plan.Nodes {
		if plan.Nodes[i].Uplink, plan.Nodes[i].UplinkMAC, err = uplink(n); err != nil {
			return Plan{}, err
		}
	}
	if err := os.MkdirAll(plan.Dir, 0o755); err != nil {
		return Plan{}, fmt.Errorf("make the cluster's directory: %w", err)
	}
	return plan, plan.save()
}

// taken says whether a cluster has the index: by its link, or by a plan that has no link yet.
func taken(index int) bool {
	if _, err := net.InterfaceByName(rootLinkName(index)); err == nil {
		return true
	}
	plans, err := filepath.Glob(filepath.Join(stateRoot, "*", "cluster.json"))
	if err != nil {
		return false
	}
	for _, path := range plans {
		if c, err := Open(filepath.Dir(path)); err == nil && c.plan.Index == index {
			return true
		}
	}
	return false
}

func (p Plan) save() error {
	content, err := json.MarshalIndent(p, "", "  ")
	if err != nil {
		return fmt.Errorf("encode the cluster's plan: %w", err)
	}
	if err := os.WriteFile(p.path("cluster.json"), append(content, '\n'), 0o644); err != nil {
		return fmt.Errorf("write the cluster's plan: %w", err)
	}
	return nil
}
