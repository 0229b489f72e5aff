package cluster

// Control groups: one tree per cluster in every mounted hierarchy (version 1),
// or in the unified one. The kubelets put pods below it and our own processes
// sit in its "system" leaf, so the tree's members are exactly what the cluster
// runs, also after a crash that lost every pid.

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const cgroupMount = "/sys/fs/cgroup"

// hierarchies lists the cgroup mounts that a kubelet would use.
func hierarchies() (paths []string, unified bool, err error) {
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return nil, false, fmt.Errorf("find the cgroup hierarchies: %w", err)
	}
	for line := range strings.Lines(string(mounts)) {
		fields := strings.Fields(line)
		switch {
		case len(fields) < 3:
		case fields[2] == "cgroup2" && fields[1] == cgroupMount:
			return []string{cgroupMount}, true, nil
		case fields[2] == "cgroup" && filepath.Dir(fields[1]) == cgroupMount:
			paths = append(paths, fields[1])
		}
	}
	if len(paths) == 0 {
		return nil, false, errors.New("no cgroup hierarchy is mounted below " + cgroupMount + "; mount one before starting a cluster")
	}
	return paths, false, nil
}

// createCgroups makes the cluster's group, its "system" leaf and one group per node.
func (p Plan) createCgroups() error {
	mounts, unified, err := hierarchies()
	if err != nil {
		return err
	}
	groups := []string{p.cgroup(), filepath.Join(p.cgroup(), "system")}
	for _, n := range p.Nodes {
		groups = append(groups, filepath.Join(p.cgroup(), n.Name))
	}
	for _, mount := range mounts {
		for _, group := range groups {
			if err := makeCgroup(mount, group, unified); err != nil {
				return fmt.Errorf("make the control group %s: %w", filepath.Join(mount, group), err)
			}
		}
	}
	return nil
}

func makeCgroup(mount, group string, unified bool) error {
	path := filepath.Join(mount, group)
	if err := os.Mkdir(path, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	parent := filepath.Dir(path)
	if unified {
		controllers, err := os.ReadFile(filepath.Join(parent, "cgroup.controllers"))
		if err != nil {
			return err
		}
		enable := "+" + strings.Join(strings.Fields(string(controllers)), " +")
		return os.WriteFile(filepath.Join(parent, "cgroup.subtree_control"), []byte(enable), 0o644)
	}
	// A new cpuset is empty and refuses processes until it has CPUs and memory (cpuset(7)).
	for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
		value, err := os.ReadFile(filepath.Join(parent, file))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(path, file), value, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// systemCgroups are the groups that the cluster's own programs join: one is
// enough to find them again, so on version 1 it is pids, which limits nothing.
func (p Plan) systemCgroups() []string {
	for _, mount := range []string{filepath.Join(cgroupMount, "pids"), cgroupMount} {
		group := filepath.Join(mount, p.cgroup(), "system")
		if _, err := os.Stat(group); err == nil {
			return []string{group}
		}
	}
	return nil
}

// cgroupDirs lists the cluster's groups, deepest first.
func (p Plan) cgroupDirs() []string {
	roots, err := filepath.Glob(filepath.Join(cgroupMount, "*", p.cgroup()))
	if err != nil {
		return nil
	}
	var dirs []string
	for _, root := range append(roots, filepath.Join(cgroupMount, p.cgroup())) {
		// Groups vanish while we walk; what is gone needs no removal.
		_ = filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
			if err == nil && entry.IsDir() {
				dirs = append(dirs, path)
			}
			return nil
		})
	}
	slices.Reverse(dirs)
	return dirs
}

func (p Plan) cgroupMembers() []int {
	var pids []int
	for _, dir := range p.cgroupDirs() {
		procs, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
		if err != nil {
			continue
		}
		pids = append(pids, parsePids(procs)...)
	}
	return pids
}

func parsePids(text []byte) []int {
	var pids []int
	for field := range strings.FieldsSeq(string(text)) {
		if pid, err := strconv.Atoi(field); err == nil && pid > 1 {
			pids = append(pids, pid)
		}
	}
	return pids
}

// killAll ends every process that members names, and those it names after that, until there are none.
func killAll(ctx context.Context, members func() []int) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		pids := slices.DeleteFunc(members(), func(pid int) bool {
			_, err := startTime(pid)
			return err != nil || pid == os.Getpid()
		})
		if len(pids) == 0 {
			return nil
		}
		for _, pid := range pids {
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
				return fmt.Errorf("kill process %d of the cluster: %w", pid, err)
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("processes %v of the cluster do not end: %w", pids, ctx.Err())
		case <-tick.C:
		}
	}
}

// removeCgroups removes the empty tree; the kernel says EBUSY until the last member is reaped.
func (p Plan) removeCgroups(ctx context.Context) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		var last error
		for _, dir := range p.cgroupDirs() {
			if err := syscall.Rmdir(dir); err != nil && !errors.Is(err, syscall.ENOENT) {
				last = fmt.Errorf("remove the control group %s: %w", dir, err)
			}
		}
		if last == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return last
		case <-tick.C:
		}
	}
}
