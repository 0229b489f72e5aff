// What nvcdi answered is remembered. It looks at dozens of files for every GPU, and
// walks the driver root for what all have in common, while a pod waits. It is asked
// again when something that its answer comes from has changed, and at no other time.

package cdi

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"k8s.io/klog/v2"
	"tags.cncf.io/container-device-interface/specs-go"

	"github.com/hostler-dev/hostler/topology"
)

// answer is what nvcdi made of a state of the machine.
type answer struct {
	fingerprint string
	// edits are never changed; who adds to them adds to a copy, see sharing.
	edits *specs.ContainerEdits
}

// remembered returns the edits of one GPU, or the common ones if gpu is nil. Ask is
// called if they are not known, or not of the machine as it is now.
func (n *NVIDIA) remembered(driver topology.Driver, gpu *topology.GPU, ask func() (*specs.ContainerEdits, error)) (*specs.ContainerEdits, error) {
	key, fingerprint := "", n.fingerprint(driver, gpu)
	if gpu != nil {
		key = gpu.UUID
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if last, known := n.answers[key]; known && last.fingerprint == fingerprint {
		return sharing(last.edits), nil
	}
	edits, err := ask()
	if err != nil {
		return nil, err
	}
	n.answers[key] = answer{fingerprint, edits}
	return sharing(edits), nil
}

// fingerprint changes with the driver, its library and the directory of that, with
// the device nodes, with the hook, and for a GPU with its numbers and DRM nodes.
func (n *NVIDIA) fingerprint(driver topology.Driver, gpu *topology.GPU) string {
	parts := []string{driver.Version, stamp(driver.Library), stamp(filepath.Dir(driver.Library)), stamp(n.cfg.Dev), stamp(n.cfg.Hook)}
	if gpu != nil {
		dri := filepath.Join(n.cfg.Dev, "dri")
		parts = append(parts, fmt.Sprint(gpu.Index, gpu.Minor, gpu.Placement.PCI), stamp(dri), stamp(filepath.Join(dri, "by-path")))
	}
	return strings.Join(parts, "|")
}

// sharing is a copy that can be added to. What it has already it has in common with the edits.
func sharing(edits *specs.ContainerEdits) *specs.ContainerEdits {
	copied := *edits
	copied.Env = slices.Clip(copied.Env)
	copied.DeviceNodes = slices.Clip(copied.DeviceNodes)
	copied.NetDevices = slices.Clip(copied.NetDevices)
	copied.Hooks = slices.Clip(copied.Hooks)
	copied.Mounts = slices.Clip(copied.Mounts)
	copied.AdditionalGIDs = slices.Clip(copied.AdditionalGIDs)
	return &copied
}

// common walks the driver root. Where that lacks what nvcdi needs, the bare minimum is remembered.
func (n *NVIDIA) common(ctx context.Context, driver topology.Driver) (*specs.ContainerEdits, error) {
	return n.remembered(driver, nil, func() (*specs.ContainerEdits, error) {
		edits, err := n.fromLibrary(ctx, driver, nil)
		if err != nil {
			klog.FromContext(ctx).Info("Containers get GPU device nodes and the NVML library only, because the driver root is incomplete", "driverRoot", n.cfg.DriverRoot, "reason", oneLine(err))
			edits = n.bareCommon(driver)
		}
		return edits, nil
	})
}

// gpu asks for the nodes of one GPU.
func (n *NVIDIA) gpu(ctx context.Context, driver topology.Driver, gpu *topology.GPU) (*specs.ContainerEdits, error) {
	return n.remembered(driver, gpu, func() (*specs.ContainerEdits, error) { return n.fromLibrary(ctx, driver, gpu) })
}
