// Who has a device node open. NVIDIA's driver waits in unbind until nobody has the
// GPU open, and drivers 595 and newer never come back from that, even when the
// user has ended meanwhile (open-gpu-kernel-modules issues 1119 and 1374): so it is looked
// before. Only processes of the agent's PID namespace can be seen.

package vfio

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// InUseError says that a device cannot be taken from its driver. Whose pods the
// processes are of the claim's namespace need not know, so the text does not name them.
type InUseError struct {
	Device string
	// Processes as "nvidia-smi (4711)".
	Processes []string
}

func (e *InUseError) Error() string {
	return fmt.Sprintf("device %s cannot be taken from its driver while processes of the node have it open (%d, which the agent's log names); end them, nvidia-persistenced and monitoring agents among them; the kubelet tries again", e.Device, len(e.Processes))
}

// Details is for the agent's log, see claim.Details.
func (e *InUseError) Details() string {
	return fmt.Sprintf("device %s is open in %s", e.Device, strings.Join(e.Processes, ", "))
}

// users are the processes that have one of the device nodes open, as
// "nvidia-smi (4711)". Nodes that are not there are nobody's.
func (b *Bus) users(nodes []string) ([]string, error) {
	numbers := map[uint64]bool{}
	for _, node := range nodes {
		info, err := os.Stat(filepath.Join(b.dev, node))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("look who uses the device: %w", err)
		}
		if info.Mode()&os.ModeCharDevice != 0 {
			numbers[info.Sys().(*syscall.Stat_t).Rdev] = true
		}
	}
	if len(numbers) == 0 {
		return nil, nil
	}
	processes, err := filepath.Glob(filepath.Join(b.proc, "[0-9]*"))
	if err != nil {
		return nil, fmt.Errorf("list the node's processes: %w", err)
	}
	var users []string
	for _, process := range processes {
		if opens(process, numbers) {
			users = append(users, fmt.Sprintf("%s (%s)", command(process), filepath.Base(process)))
		}
	}
	slices.SortFunc(users, strings.Compare)
	return users, nil
}

// opens reports whether a process has a device of one of the numbers open. One
// that ends meanwhile has not.
func opens(process string, numbers map[uint64]bool) bool {
	files, err := os.ReadDir(filepath.Join(process, "fd"))
	if err != nil {
		return false
	}
	return slices.ContainsFunc(files, func(file fs.DirEntry) bool {
		// Following the link asks for the open file itself, whatever its path is called there.
		info, err := os.Stat(filepath.Join(process, "fd", file.Name()))
		if err != nil || info.Mode()&os.ModeCharDevice == 0 {
			return false
		}
		return numbers[info.Sys().(*syscall.Stat_t).Rdev]
	})
}

func command(process string) string {
	raw, err := os.ReadFile(filepath.Join(process, "comm"))
	if err != nil {
		return "process " + strconv.Quote(filepath.Base(process))
	}
	return strings.TrimSpace(string(raw))
}
