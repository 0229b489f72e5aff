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
	"strconv"

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
	// Of RDMA devices beyond the fixed minors.
	uverbsDynamicMajor = 506
	umadDynamicMajor   = 505
	issmDynamicMajor   = 504
	vfioMinor          = 196
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
	for _, g := range p.GPUs {
		for i := range migCapabilities {
			if g.MIG == nil {
				break
			}
			// Made by nvidia-modprobe when an instance is; here for all that could be.
			number := firstMIGCapability + g.Minor*migCapabilities + i
			nodes = append(nodes, deviceNode{fmt.Sprintf("nvidia-caps/nvidia-cap%d", number), nvidiaCapsMajor, number})
		}
	}
	devices := rdmaDevices(p)
	for _, r := range devices {
		for _, c := range r.charDevices() {
			nodes = append(nodes, deviceNode{"infiniband/" + c.name, c.major, c.minor})
		}
	}
	if len(devices) > 0 {
		nodes = append(nodes, deviceNode{"infiniband/rdma_cm", miscMajor, rdmaCMMinor})
	}
	return nodes
}

func rdmaDevices(p *Profile) []*RDMA {
	var devices []*RDMA
	for _, n := range p.NICs {
		if n.RDMA != nil {
			devices = append(devices, n.RDMA)
		}
		for _, f := range n.VFs {
			if f.RDMA != nil {
				devices = append(devices, f.RDMA)
			}
		}
	}
	return devices
}

// charDevice is a character device of an RDMA device.
type charDevice struct {
	class, name  string
	major, minor int
	// attribute is a file that devices of the class have.
	attribute string
}

// charDevices of an RDMA device. The fixed minors suffice for 32 verbs devices
// and 64 others; the kernel numbers the rest under majors of their own
// (IB_UVERBS_NUM_FIXED_MINOR, IB_UMAD_NUM_FIXED_MINOR).
func (r *RDMA) charDevices() []charDevice {
	number := func(fixedMinor, fixed, dynamicMajor int) (major, minor int) {
		if r.Index < fixed {
			return infinibandMajor, fixedMinor + r.Index
		}
		return dynamicMajor, r.Index - fixed
	}
	device := func(class, name, attribute string, fixedMinor, fixed, dynamicMajor int) charDevice {
		major, minor := number(fixedMinor, fixed, dynamicMajor)
		return charDevice{class: class, name: name + strconv.Itoa(r.Index), major: major, minor: minor, attribute: attribute}
	}
	return []charDevice{
		device("infiniband_verbs", "uverbs", "abi_version", uverbsMinor, 32, uverbsDynamicMajor),
		device("infiniband_mad", "umad", "port", 0, issmMinor, umadDynamicMajor),
		device("infiniband_mad", "issm", "port", issmMinor, issmMinor, issmDynamicMajor),
	}
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
