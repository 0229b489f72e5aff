package cluster

// What the machine must bring: root, a few programs that Debian packages, and
// apt-get where one of them is missing. Everything else is built from source.

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
)

// requirement is a program and the Debian package that has it.
type requirement struct{ program, pkg string }

func requirements() []requirement {
	return []requirement{
		{"etcd", "etcd-server"}, {"runc", "runc"}, {"nft", "nftables"}, {"ip", "iproute2"}, {"busybox", "busybox-static"},
		{"conntrack", "conntrack"}, {"modprobe", "kmod"}, {"nsenter", "util-linux"}, {"mount", "mount"}, {"gcc", "build-essential"},
	}
}

// ErrNotRoot says that namespaces, mounts and control groups need privilege.
var ErrNotRoot = errors.New("a test cluster needs root for namespaces, mounts and control groups: run as root (sudo)")

// prepareMachine installs what is missing, or says why it cannot.
func prepareMachine(ctx context.Context, progress *progress) error {
	if os.Geteuid() != 0 {
		return ErrNotRoot
	}
	missing := missingPackages()
	if len(missing) == 0 {
		return nil
	}
	list := strings.Join(missing, " ")
	if _, err := exec.LookPath("apt-get"); err != nil {
		return fmt.Errorf("this machine lacks %s and has no apt-get; install them by hand", list)
	}
	done := progress.begin("installing " + list)
	for _, args := range [][]string{{"update", "-q"}, append([]string{"install", "-qy", "--no-install-recommends"}, missing...)} {
		cmd := exec.CommandContext(ctx, "apt-get", args...)
		cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive", "RUNLEVEL=1")
		// apt's children may hold the pipe open; ending the group ends them all.
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		var output bytes.Buffer
		cmd.Stdout, cmd.Stderr = &output, &output
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("install %s with apt-get %s: %w; install them by hand and try again\n%s", list, args[0], err, strings.TrimSpace(output.String()))
		}
	}
	if still := missingPackages(); len(still) > 0 {
		return fmt.Errorf("apt-get installed %s, but %s is still not found in PATH", list, strings.Join(still, " "))
	}
	done()
	return nil
}

func missingPackages() []string {
	var missing []string
	for _, r := range requirements() {
		if _, err := exec.LookPath(r.program); err != nil && !slices.Contains(missing, r.pkg) {
			missing = append(missing, r.pkg)
		}
	}
	return missing
}
