// Which pods have processes on this node, by the kernel's word alone: the kubelet
// puts every pod's UID into the names of its control groups, and the kernel shows
// each process's. That also finds pods on the host's network, of which no
// network namespace tells whether they live.

package driver

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
	"k8s.io/apimachinery/pkg/types"

	"github.com/hostler-dev/hostler/netattach/attach"
)

// podProcesses are the control groups of all processes under proc, normally
// "/proc", as /proc/<pid>/cgroup shows them.
type podProcesses string

func readPodProcesses(proc string) (podProcesses, error) {
	files, err := filepath.Glob(filepath.Join(proc, "[0-9]*", "cgroup"))
	if err != nil {
		return "", fmt.Errorf("list the node's processes: %w", err)
	}
	var all strings.Builder
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) {
			continue // it has ended
		}
		if err != nil {
			return "", fmt.Errorf("look which pods still run: %w; run this as root", err)
		}
		all.Write(raw)
	}
	return podProcesses(all.String()), nil
}

// RunningPods says which pods have processes under proc, normally "/proc". It
// refuses to say where it sees a container's processes only: there the first process
// is of the own control group, while a node's is its init.
func RunningPods(proc string) (attach.Running, error) {
	first, err := os.ReadFile(filepath.Join(proc, "1", "cgroup"))
	if err != nil {
		return nil, fmt.Errorf("look at the node's first process: %w", err)
	}
	own, err := os.ReadFile(filepath.Join(proc, "self", "cgroup"))
	if err != nil {
		return nil, fmt.Errorf("look at the own control group: %w", err)
	}
	if string(first) == string(own) {
		return nil, errors.New("the agent sees no processes but its own (its pod needs hostPID: true)")
	}
	processes, err := readPodProcesses(proc)
	if err != nil {
		return nil, err
	}
	return processes.of, nil
}

// of reports whether a process of the pod is there. The kubelet's systemd driver
// writes UIDs with underscores, because in a slice's name a dash is a level.
func (p podProcesses) of(pod types.UID) bool {
	if pod == "" {
		return false
	}
	return strings.Contains(string(p), "pod"+string(pod)) ||
		strings.Contains(string(p), "pod"+strings.ReplaceAll(string(pod), "-", "_")+".slice")
}
