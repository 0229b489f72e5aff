// The device nodes of a partition. A process may use a MIG device if it can open
// three nodes: the GPU's, and one for each of the two capabilities that stand for
// the GPU instance and its compute instance. The GPU's node alone gives access to
// nothing. So a container gets these three and no other capability.
//
// nvcdi would make the same choice, but reads the capabilities from /proc of
// whoever calls it, and asks NVML for the profile's name; both are given here.
// The files are described in NVIDIA's MIG user guide, "Device nodes and capabilities".

package cdi

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"k8s.io/klog/v2"
	"k8s.io/utils/ptr"
	"tags.cncf.io/container-device-interface/specs-go"

	"github.com/hostler-dev/hostler/topology"
)

// Partition implements GPUEdits.
func (n *NVIDIA) Partition(ctx context.Context, driver topology.Driver, gpu *topology.GPU, partition *Partition) (*specs.ContainerEdits, error) {
	instance := partition.Instance
	switch {
	case gpu.Minor < 0:
		return nil, minorError(gpu)
	case instance == nil || len(instance.ComputeInstances) != 1:
		return nil, fmt.Errorf("the partition of GPU %s does not exist whole", gpu.Name)
	}
	edits := &specs.ContainerEdits{}
	if graphics(partition.Profile) {
		// Graphics go through the GPU's DRM nodes, which only such partitions can use.
		var err error
		if edits, err = n.gpu(ctx, driver, gpu); err != nil {
			klog.FromContext(ctx).V(2).Info("Container gets no graphics nodes for its partition", "device", gpu.Name, "reason", oneLine(err))
			edits = &specs.ContainerEdits{}
		}
	}
	edits, err := n.withGPUNode(edits, gpu)
	if err != nil {
		return nil, err
	}
	place := fmt.Sprintf("gpu%d/gi%d", gpu.Minor, instance.GPUInstance)
	for _, capability := range []string{
		place + "/access",
		fmt.Sprintf("%s/ci%d/access", place, instance.ComputeInstances[0].ComputeInstance),
	} {
		node, err := n.capabilityNode(capability)
		if err != nil {
			return nil, fmt.Errorf("find the device node for the capability %s of GPU %s: %w", capability, gpu.Name, err)
		}
		edits.DeviceNodes = append(edits.DeviceNodes, node)
	}
	return edits, nil
}

// graphics reports whether the profile is one with graphics engines, "1g.24gb+gfx".
func graphics(profile string) bool {
	return slices.Contains(strings.Split(profile, "+")[1:], "gfx")
}

// capabilityNode finds the node by its minor number. Where nobody has made the
// node on the host, which nvidia-modprobe does on behalf of NVML if it is installed
// where NVML runs, the runtime makes it in the container from its numbers.
func (n *NVIDIA) capabilityNode(capability string) (*specs.DeviceNode, error) {
	minor, err := n.procNumber("driver/nvidia-caps/mig-minors", capability, 0)
	if err != nil {
		return nil, err
	}
	name := fmt.Sprintf("nvidia-caps/nvidia-cap%d", minor)
	_, err = os.Stat(filepath.Join(n.cfg.Dev, name))
	if err == nil {
		return n.node(name), nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	major, err := n.procNumber("devices", "nvidia-caps", 1)
	if err != nil {
		return nil, fmt.Errorf("the node /dev/%s is missing, and its numbers are not known: %w; nvidia-modprobe makes it", name, err)
	}
	// The driver's own mode for these nodes, cr--r--r--.
	return &specs.DeviceNode{Path: "/dev/" + name, Type: "c", Major: major, Minor: minor, FileMode: ptr.To(os.FileMode(0o444)), Permissions: "rw"}, nil
}

// procNumber looks for a line of two words, one of which is key, in a file of
// proc and returns the other word. keyColumn is 0 or 1. The driver root's proc is
// the one that goes with the driver; the agent's own is good for a driver on the host.
func (n *NVIDIA) procNumber(file, key string, keyColumn int) (int64, error) {
	var faults []error
	for _, proc := range []string{filepath.Join(n.cfg.DriverRoot, "proc"), n.cfg.Proc} {
		path := filepath.Join(proc, file)
		content, err := os.Open(path)
		if err != nil {
			faults = append(faults, err)
			continue
		}
		number, err := numberIn(content, key, keyColumn)
		err = errors.Join(err, content.Close())
		if err != nil {
			return 0, fmt.Errorf("%s: %w", path, err)
		}
		return number, nil
	}
	return 0, fmt.Errorf("the kernel's list %s cannot be read: %w; is the NVIDIA kernel module loaded, with MIG support?", file, errors.Join(faults...))
}

func numberIn(content fs.File, key string, keyColumn int) (int64, error) {
	lines := bufio.NewScanner(content)
	for lines.Scan() {
		words := strings.Fields(lines.Text())
		if len(words) != 2 || words[keyColumn] != key {
			continue
		}
		number, err := strconv.ParseInt(words[1-keyColumn], 10, 32)
		if err != nil || number < 0 {
			return 0, fmt.Errorf("the line %q has no device number", lines.Text())
		}
		return number, nil
	}
	if err := lines.Err(); err != nil {
		return 0, err
	}
	return 0, fmt.Errorf("it does not list %s", key)
}
