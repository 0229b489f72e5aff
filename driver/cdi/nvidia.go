// The edits for NVIDIA GPUs come from NVIDIA's own nvcdi library, which knows
// which of the driver's files belong into a container. It wants NVML, but all
// that it asks of it is in the snapshot already: it gets its answers from
// there, so that a GPU whose driver hangs cannot hang a prepare.
//
// Where the driver root lacks what nvcdi needs (no libcuda, say), a container
// gets the device nodes and the NVML library, and the log says why.

package cdi

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/NVIDIA/nvidia-container-toolkit/pkg/nvcdi"
	"k8s.io/klog/v2"
	"tags.cncf.io/container-device-interface/specs-go"

	"github.com/hostler-dev/hostler/topology"
)

// NVIDIAConfig says where the driver is, for the agent and for the runtime.
type NVIDIAConfig struct {
	// DriverRoot holds the driver's files; HostDriverRoot is the same as the runtime sees it.
	DriverRoot, HostDriverRoot string
	// Dev is the device directory; HostDev is the same as the runtime sees it.
	Dev, HostDev string
	// Hook is nvidia-cdi-hook on the host. If the file is not there, specs go
	// without its hooks (ldconfig, symlinks), and the log says so.
	Hook string
	// Proc is where the kernel lists the driver's capabilities if the driver root
	// has no proc of its own. Default: /proc.
	Proc string
}

// NVIDIA implements GPUEdits.
type NVIDIA struct {
	cfg NVIDIAConfig

	mu sync.Mutex
	// answers are nvcdi's last ones, the common edits under "" and those of GPUs under their UUIDs.
	answers map[string]answer
}

var _ GPUEdits = (*NVIDIA)(nil)

// NewNVIDIA returns the edits for NVIDIA GPUs.
func NewNVIDIA(cfg NVIDIAConfig) *NVIDIA {
	if cfg.Proc == "" {
		cfg.Proc = "/proc"
	}
	return &NVIDIA{cfg: cfg, answers: map[string]answer{}}
}

// Common implements GPUEdits. NVIDIA_DRIVER_CAPABILITIES is set for programs
// that look at it; nvcdi itself does not select files by capability.
func (n *NVIDIA) Common(ctx context.Context, driver topology.Driver, capabilities []string) (*specs.ContainerEdits, error) {
	edits, err := n.common(ctx, driver)
	if err != nil {
		return nil, err
	}
	if len(capabilities) > 0 {
		edits.Env = append(edits.Env, "NVIDIA_DRIVER_CAPABILITIES="+strings.Join(capabilities, ","))
	}
	return edits, nil
}

// Device implements GPUEdits.
func (n *NVIDIA) Device(ctx context.Context, driver topology.Driver, gpu *topology.GPU) (*specs.ContainerEdits, error) {
	if gpu.Minor < 0 {
		return nil, minorError(gpu)
	}
	edits, err := n.gpu(ctx, driver, gpu)
	if err != nil {
		klog.FromContext(ctx).V(2).Info("Container gets the bare device node of a GPU", "device", gpu.Name, "reason", oneLine(err))
		edits = &specs.ContainerEdits{}
	}
	return n.withGPUNode(edits, gpu)
}

// withGPUNode adds the GPU's own node if it is not among the edits.
func (n *NVIDIA) withGPUNode(edits *specs.ContainerEdits, gpu *topology.GPU) (*specs.ContainerEdits, error) {
	node := fmt.Sprintf("nvidia%d", gpu.Minor)
	if !slices.ContainsFunc(edits.DeviceNodes, func(d *specs.DeviceNode) bool { return d.Path == "/dev/"+node }) {
		if _, err := os.Stat(filepath.Join(n.cfg.Dev, node)); err != nil {
			return nil, fmt.Errorf("GPU %s has no device node: %w; nvidia-modprobe or the driver container makes it", gpu.Name, err)
		}
		edits.DeviceNodes = append(edits.DeviceNodes, n.node(node))
	}
	return edits, nil
}

func minorError(gpu *topology.GPU) error {
	return fmt.Errorf("the driver does not say which /dev/nvidia* node GPU %s has; see the problems of this GPU in `hostler topology`", gpu.Name)
}

// fromLibrary asks nvcdi for the edits of one GPU, or for the common ones if gpu is nil.
func (n *NVIDIA) fromLibrary(ctx context.Context, driver topology.Driver, gpu *topology.GPU) (edits *specs.ContainerEdits, err error) {
	// nvcdi asks its NVML for more in some modes than snapshotNVML answers;
	// such a question would be a nil call.
	defer func() {
		if r := recover(); r != nil {
			edits, err = nil, fmt.Errorf("nvcdi asked NVML for something that the snapshot does not hold: %v", r)
		}
	}()
	options := []nvcdi.Option{
		nvcdi.WithMode(nvcdi.ModeNvml),
		nvcdi.WithLogger(library{klog.FromContext(ctx)}),
		nvcdi.WithDriverRoot(n.cfg.DriverRoot),
		nvcdi.WithDevRoot(filepath.Dir(n.cfg.Dev)),
		nvcdi.WithNvmlLib(&snapshotNVML{driver: driver, gpu: gpu}),
		nvcdi.WithNVIDIACDIHookPath(n.cfg.Hook),
		nvcdi.WithFeatureFlags(nvcdi.FeatureDisableNvsandboxUtils),
		// This hook loads NVML on the host at every container start, to set
		// memory limits that no claim asks for.
		nvcdi.WithDisabledHooks("apply-cuda-memory-limits"),
	}
	if _, err := os.Stat(n.cfg.Hook); err != nil {
		klog.FromContext(ctx).V(2).Info("nvidia-cdi-hook is missing; containers run without its hooks", "path", n.cfg.Hook)
		options = append(options, nvcdi.WithDisabledHooks(nvcdi.AllHooks))
	}
	lib, err := nvcdi.New(options...)
	if err != nil {
		return nil, fmt.Errorf("start nvcdi: %w", err)
	}
	edits = &specs.ContainerEdits{}
	if gpu == nil {
		common, err := lib.GetCommonEdits()
		if err != nil {
			return nil, err
		}
		edits = common.ContainerEdits
	} else {
		devices, err := lib.GetDeviceSpecsByID(gpu.UUID)
		if err != nil {
			return nil, err
		}
		if len(devices) != 1 {
			return nil, fmt.Errorf("nvcdi made %d devices of GPU %s", len(devices), gpu.UUID)
		}
		*edits = devices[0].ContainerEdits
	}
	return n.onHost(edits), nil
}

// bareCommon is what a container can do with at least: open the control nodes
// and load NVML.
func (n *NVIDIA) bareCommon(driver topology.Driver) *specs.ContainerEdits {
	edits := &specs.ContainerEdits{Env: []string{"NVIDIA_VISIBLE_DEVICES=void"}}
	for _, node := range []string{"nvidiactl", "nvidia-uvm", "nvidia-uvm-tools", "nvidia-modeset"} {
		if _, err := os.Stat(filepath.Join(n.cfg.Dev, node)); err == nil {
			edits.DeviceNodes = append(edits.DeviceNodes, n.node(node))
		}
	}
	if driver.Library != "" {
		inContainer := "/" + strings.TrimPrefix(strings.TrimPrefix(driver.Library, filepath.Clean(n.cfg.DriverRoot)), "/")
		edits.Mounts = append(edits.Mounts, &specs.Mount{
			HostPath:      rebase(driver.Library, n.cfg.DriverRoot, n.cfg.HostDriverRoot),
			ContainerPath: inContainer,
			Options:       []string{"ro", "nosuid", "nodev", "rbind", "rprivate"},
		})
	}
	return edits
}

func (n *NVIDIA) node(name string) *specs.DeviceNode {
	return n.nodeOnHost(&specs.DeviceNode{Path: "/dev/" + name, HostPath: filepath.Join(n.cfg.Dev, name), Permissions: "rw"})
}

// onHost turns paths as the agent sees them into those that the runtime sees.
func (n *NVIDIA) onHost(edits *specs.ContainerEdits) *specs.ContainerEdits {
	for _, node := range edits.DeviceNodes {
		n.nodeOnHost(node)
	}
	for _, mount := range edits.Mounts {
		mount.HostPath = rebase(mount.HostPath, n.cfg.DriverRoot, n.cfg.HostDriverRoot)
	}
	return edits
}

func (n *NVIDIA) nodeOnHost(node *specs.DeviceNode) *specs.DeviceNode {
	host := node.HostPath
	if host == "" {
		host = node.Path
	}
	node.HostPath = rebase(host, n.cfg.Dev, n.cfg.HostDev)
	if node.HostPath == node.Path {
		node.HostPath = ""
	}
	return node
}
