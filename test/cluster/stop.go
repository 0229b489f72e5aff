package cluster

// Taking a cluster down. Its state is thrown away, so nothing needs to end in
// good order: every process is killed, found by control group, by record and by
// the network namespace it lives in. Mounts go with the nodes' mount namespaces,
// links with the network namespaces; what the kernel does late is waited for.

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Stop removes the cluster and everything it made, however far its start came.
func (c *Cluster) Stop(ctx context.Context) error {
	unlock, err := lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	return c.remove(ctx)
}

func (c *Cluster) remove(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	p := c.plan
	steps := []struct {
		what string
		do   func(context.Context) error
	}{
		{"processes", p.killProcesses},
		{"namespaces and links", p.removeNetwork},
		{"control groups", p.removeCgroups},
		{"kernel settings", func(context.Context) error { return p.restoreSettings() }},
		{"directories", func(context.Context) error { return p.removeDirectory() }},
	}
	// A step that fails does not keep the others from cleaning up theirs.
	var failed []error
	for _, step := range steps {
		if err := step.do(ctx); err != nil {
			failed = append(failed, fmt.Errorf("remove the %s of cluster %s: %w", step.what, p.Name, err))
		}
	}
	return errors.Join(failed...)
}

// Down removes the cluster whose state lies in dir; it is no error if there is none.
func Down(ctx context.Context, dir string) error {
	unlock, err := lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	c, err := Open(dir)
	if errors.Is(err, ErrNotRunning) {
		return removeStateRoot()
	}
	if err != nil {
		return err
	}
	return c.remove(ctx)
}

func (p Plan) killProcesses(ctx context.Context) error {
	return killAll(ctx, func() []int {
		pids := p.cgroupMembers()
		for _, c := range p.components() {
			if pid, alive := c.running(); alive {
				pids = append(pids, pid)
			}
		}
		return append(pids, p.netNSMembers(ctx)...)
	})
}

func (p Plan) parts() []string {
	parts := []string{"net", "world", "fabric"}
	for _, n := range p.Nodes {
		parts = append(parts, n.Name)
	}
	return parts
}

// netNSMembers finds processes that entered the cluster's namespaces from outside, such as a test's tcpdump.
func (p Plan) netNSMembers(ctx context.Context) []int {
	var pids []int
	for _, part := range p.parts() {
		if _, err := os.Stat(p.netNSPath(part)); err != nil {
			continue
		}
		// An unreadable namespace is reported by removeNetwork.
		output, err := exec.CommandContext(ctx, "ip", "netns", "pids", p.netNS(part)).Output()
		if err == nil {
			pids = append(pids, parsePids(output)...)
		}
	}
	return pids
}

func (p Plan) removeNetwork(ctx context.Context) error {
	var batch strings.Builder
	if _, err := net.InterfaceByName(p.rootLink()); err == nil {
		fmt.Fprintf(&batch, "link del %s\n", p.rootLink())
	}
	for _, part := range p.parts() {
		if _, err := os.Stat(p.netNSPath(part)); err == nil {
			fmt.Fprintf(&batch, "netns del %s\n", p.netNS(part))
		}
	}
	if batch.Len() > 0 {
		if err := feed(ctx, batch.String(), "ip", "-batch", "-"); err != nil {
			return err
		}
	}
	tables, err := exec.CommandContext(ctx, "nft", "list", "tables", "inet").Output()
	if err != nil {
		return fmt.Errorf("list the machine's nftables: %w", err)
	}
	if bytes.Contains(tables, []byte("table inet "+p.rootLink()+"\n")) {
		return feed(ctx, "delete table inet "+p.rootLink()+"\n", "nft", "-f", "-")
	}
	return nil
}

func (p Plan) removeDirectory() error {
	// The nodes' /run are mounts. Others would be somebody's mistake: deleting through one would reach what it shows.
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return fmt.Errorf("look for mounts below %s: %w", p.Dir, err)
	}
	for line := range strings.Lines(string(mounts)) {
		if fields := strings.Fields(line); len(fields) > 4 && strings.HasPrefix(fields[4], p.Dir+"/") {
			if err := unix.Unmount(fields[4], unix.MNT_DETACH); err != nil {
				return fmt.Errorf("unmount %s: %w", fields[4], err)
			}
		}
	}
	if err := os.RemoveAll(p.Dir); err != nil {
		return err
	}
	return removeStateRoot()
}

// removeStateRoot removes the shared directory with the last cluster.
func removeStateRoot() error {
	if err := unix.Rmdir(stateRoot); err != nil && !errors.Is(err, unix.ENOTEMPTY) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("remove %s: %w", stateRoot, err)
	}
	return nil
}
