// The machine's /dev: the accelerators' and RDMA devices' character devices
// under their real numbers, and the ordinary nodes that a container needs when
// this folder is mounted over its /dev. None of the former has a driver behind
// it here: opening one answers ENXIO where the device cgroup allows it, and
// EPERM where it does not, which is how isolation tests tell the two apart.

package machine

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Device numbers: Documentation/admin-guide/devices.txt for fixed ones; the
// others are what dynamic allocation usually gives on such machines.
const (
	nvidiaMajor     = 195
	nvidiaModeset   = 254
	nvidiaControl   = 255
	nvidiaUVMMajor  = 511
	nvidiaCapsMajor = 237
	nvswitchMajor   = 508
	infinibandMajor = 231
	issmMinor       = 64
	uverbsMinor     = 192
	miscMajor       = 10
	rdmaCMMinor     = 122
	vfioMinor       = 196
)

type deviceNode struct {
	name         string
	major, minor int
}

func deviceNodes(p *Profile) []deviceNode {
	nodes := []deviceNode{
		{"null", 1, 3}, {"zero", 1, 5}, {"full", 1, 7}, {"random", 1, 8}, {"urandom", 1, 9}, {"kmsg", 1, 11}, {"tty", 5, 0},
		{"vfio/vfio", miscMajor, vfioMinor},
	}
	if len(p.GPUs) > 0 {
		nodes = append(nodes,
			deviceNode{"nvidiactl", nvidiaMajor, nvidiaControl}, deviceNode{"nvidia-modeset", nvidiaMajor, nvidiaModeset},
			deviceNode{"nvidia-uvm", nvidiaUVMMajor, 0}, deviceNode{"nvidia-uvm-tools", nvidiaUVMMajor, 1},
			deviceNode{"nvidia-caps/nvidia-cap1", nvidiaCapsMajor, 1}, deviceNode{"nvidia-caps/nvidia-cap2", nvidiaCapsMajor, 2})
	}
	for _, g := range p.GPUs {
		nodes = append(nodes, deviceNode{fmt.Sprintf("nvidia%d", g.Minor), nvidiaMajor, g.Minor})
	}
	if len(p.NVSwitches) > 0 {
		nodes = append(nodes, deviceNode{"nvidia-nvswitchctl", nvswitchMajor, 255})
	}
	for i := range p.NVSwitches {
		nodes = append(nodes, deviceNode{fmt.Sprintf("nvidia-nvswitch%d", i), nvswitchMajor, i})
	}
	indexes := rdmaIndexes(p)
	for _, i := range indexes {
		nodes = append(nodes,
			deviceNode{fmt.Sprintf("infiniband/uverbs%d", i), infinibandMajor, uverbsMinor + i},
			deviceNode{fmt.Sprintf("infiniband/umad%d", i), infinibandMajor, i},
			deviceNode{fmt.Sprintf("infiniband/issm%d", i), infinibandMajor, issmMinor + i})
	}
	if len(indexes) > 0 {
		nodes = append(nodes, deviceNode{"infiniband/rdma_cm", miscMajor, rdmaCMMinor})
	}
	return nodes
}

func rdmaIndexes(p *Profile) []int {
	var indexes []int
	for _, n := range p.NICs {
		if n.RDMA != nil {
			indexes = append(indexes, n.RDMA.Index)
		}
		for _, f := range n.VFs {
			if f.RDMA != nil {
				indexes = append(indexes, f.RDMA.Index)
			}
		}
	}
	return indexes
}

// renderDev returns a note if this process may not make device nodes.
func renderDev(p *Profile, root string) ([]string, error) {
	t := newTree(root)
	for _, folder := range []string{"pts", "shm", "mqueue", "net"} {
		t.folder(folder)
	}
	for name, target := range map[string]string{
		"ptmx": "pts/ptmx", "fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2", "core": "/proc/kcore",
	} {
		t.linkTo(name, target)
	}
	if t.err != nil {
		return nil, t.err
	}
	for _, n := range deviceNodes(p) {
		t.folder(filepath.Dir(n.name))
		err := makeNode(filepath.Join(root, n.name), n)
		if errors.Is(err, unix.EPERM) {
			return []string{"the device nodes under " + root + " are missing: making them needs CAP_MKNOD"}, nil
		}
		if err != nil {
			return nil, err
		}
	}
	return nil, t.err
}

func makeNode(path string, n deviceNode) error {
	if err := unix.Mknod(path, unix.S_IFCHR|0o666, int(unix.Mkdev(uint32(n.major), uint32(n.minor)))); err != nil {
		return fmt.Errorf("make device node %s (%d:%d): %w", path, n.major, n.minor, err)
	}
	// The umask has no say in the modes of device nodes.
	if err := os.Chmod(path, 0o666); err != nil {
		return fmt.Errorf("make device node %s: %w", path, err)
	}
	return nil
}
