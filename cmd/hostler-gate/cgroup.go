package main

// Where the kernel keeps a container's rdma.max: in its cgroup of the hierarchy that has
// the rdma controller, one of version 1 or the unified one (cgroups(7)). Both files that
// tell speak of this process's cgroup namespace (cgroup_namespaces(7)), the node's.

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

const (
	cgroupV1 = "cgroup"
	cgroupV2 = "cgroup2"
)

// limitsOf is the path of the process's rdma.max, "" if its cgroup has none. A cgroup
// that this process is in as well, as where no runtime makes one of this hierarchy, is
// not the container's: a limit there would be one on the node.
func (l rdmaLimits) limitsOf(pid int) (string, error) {
	var in [2]map[string]string
	for i, process := range []string{strconv.Itoa(pid), "self"} {
		raw, err := os.ReadFile(l.root + "/proc/" + process + "/cgroup")
		if err != nil {
			return "", fmt.Errorf("cannot find the container's cgroup: %w", err)
		}
		in[i] = memberships(string(raw))
	}
	raw, err := os.ReadFile(l.root + "/proc/self/mountinfo")
	if err != nil {
		return "", fmt.Errorf("cannot find the container's cgroup: %w", err)
	}
	for _, mount := range rdmaMounts(string(raw)) {
		cgroup, member := in[0][mount.version]
		if _, shared := below(cgroup, in[1][mount.version]); !member || shared {
			continue
		}
		folder, visible := below(mount.root, cgroup)
		if !visible {
			continue
		}
		path := filepath.Join(l.root, mount.point, folder, "rdma.max")
		switch _, err := os.Stat(path); {
		case err == nil:
			return path, nil
		case !errors.Is(err, fs.ErrNotExist):
			return "", fmt.Errorf("cannot look at the container's cgroup: %w", err)
		}
	}
	return "", nil
}

// memberships are the cgroups that a /proc/<pid>/cgroup has, of the hierarchies in which
// the rdma controller can be, by their version.
func memberships(raw string) map[string]string {
	paths := map[string]string{}
	for line := range strings.Lines(raw) {
		fields := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		switch {
		case len(fields) < 3:
		case fields[0] == "0":
			paths[cgroupV2] = fields[2]
		case slices.Contains(strings.Split(fields[1], ","), "rdma"):
			paths[cgroupV1] = fields[2]
		}
	}
	return paths
}

// cgroupMount shows the cgroups of a hierarchy from root on.
type cgroupMount struct{ version, root, point string }

// rdmaMounts are those of a mountinfo (proc_pid_mountinfo(5)) where the rdma controller
// can be.
func rdmaMounts(raw string) (mounts []cgroupMount) {
	// So the kernel writes what would end a field or a line (show_mountinfo).
	unescape := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`, `\043`, "#")
	for line := range strings.Lines(raw) {
		fields := strings.Fields(line)
		after := slices.Index(fields, "-")
		if after < 6 || len(fields) < after+4 {
			continue
		}
		version, options := fields[after+1], strings.Split(fields[after+3], ",")
		if version == cgroupV2 || version == cgroupV1 && slices.Contains(options, "rdma") {
			mounts = append(mounts, cgroupMount{version, unescape.Replace(fields[3]), unescape.Replace(fields[4])})
		}
	}
	return mounts
}

// below is where a cgroup is as seen from another one that it is in, or is.
func below(above, cgroup string) (string, bool) {
	rest, in := strings.CutPrefix(cgroup, strings.TrimSuffix(above, "/"))
	return rest, in && (rest == "" || rest[0] == '/')
}
