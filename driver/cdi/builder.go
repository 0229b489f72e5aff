// Builder makes the spec of a claim. Each allocated device is a CDI device of
// its own, because a container gets the devices of the requests that it names
// and no others; the driver's libraries and control nodes, which all GPUs
// share, are one more device that goes with every GPU. What holds for every
// container of the claim, the gate hook above all, is in the spec's own edits.

package cdi

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"k8s.io/apimachinery/pkg/types"
	tagscdi "tags.cncf.io/container-device-interface/pkg/cdi"
	"tags.cncf.io/container-device-interface/specs-go"

	"github.com/hostler-dev/hostler/topology"
)

// commonGPU is the device that holds what all GPUs of a claim share.
const commonGPU = "gpu-driver"

// Gate is the hook without whose consent no container of a claim starts.
type Gate struct {
	// Path of the hook on the host; "" leaves the hook out, for unit tests of other parts.
	Path string
	// Socket of the agent and Records of attached pods, on the host.
	Socket, Records string
}

// Builder turns devices into specs.
type Builder struct {
	// GPUs makes the edits for GPUs; nil where the node has none.
	GPUs GPUEdits
	Gate Gate
	// Dev is the device directory as the agent sees it, HostDev as the runtime does.
	Dev, HostDev string
}

// GPUEdits are the container edits that GPUs need.
type GPUEdits interface {
	// Common edits go with any GPU: driver libraries, programs and control nodes.
	Common(ctx context.Context, driver topology.Driver, capabilities []string) (*specs.ContainerEdits, error)
	// Device edits are those of one GPU: its device nodes.
	Device(ctx context.Context, driver topology.Driver, gpu *topology.GPU) (*specs.ContainerEdits, error)
	// Partition edits are those of one partition of the GPU.
	Partition(ctx context.Context, driver topology.Driver, gpu *topology.GPU, partition *Partition) (*specs.ContainerEdits, error)
}

// Device is one device of a claim.
type Device struct {
	Name string
	// Share is the ID of the device's share that this is, "" if the device is not shared out.
	Share types.UID
	// GPU of the device, nil if it has none.
	GPU *topology.GPU
	// Partition of the GPU, nil if the device has the whole GPU.
	Partition *Partition
	// Capabilities of the driver that the claim asks for, with a GPU.
	Capabilities []string
	// RDMA is the NIC's RDMA device if the claim wants its device nodes.
	RDMA *topology.RDMADevice
	// UserSpace are the device nodes, relative to /dev, of what of the device is
	// given to user space.
	UserSpace []string
	// Mounts are files that containers with the device can read.
	Mounts []Mount
	// DeviceID is what Multus is to read in the name of the claim's only device, "" if
	// that is to have an ordinary name.
	DeviceID string
}

// Mount is a file of the host in a container.
type Mount struct{ Host, Container string }

// Partition is a MIG device.
type Partition struct {
	// Profile is NVIDIA's name of its profile, "1g.10gb".
	Profile string
	// Instance that it is, with one compute instance.
	Instance *topology.MIGInstance
}

// Claim is what a spec is made of.
type Claim struct {
	UID     types.UID
	Driver  topology.Driver
	Devices []Device
	// Entry is the journal entry to carry along.
	Entry []byte
}

// DeviceIDs are the CDI devices that give a container the named device, or that
// share of it. Its own comes first, because the kubelet names that one in the pod's status.
func (c *Claim) DeviceIDs(device string, share types.UID) []string {
	names := c.names()
	ids := []string{names.qualified(c.key(device, share))}
	for i := range c.Devices {
		if c.Devices[i].Name == device && c.Devices[i].GPU != nil {
			return append(ids, names.qualified(commonGPU))
		}
	}
	return ids
}

// key is what a device is called within its claim: by its name, or by its share
// if the claim has several of one device.
func (c *Claim) key(device string, share types.UID) string {
	for i := range c.Devices {
		if c.Devices[i].Name == device && c.Devices[i].Share != share {
			return device + "-" + string(share)
		}
	}
	return device
}

// Build makes the claim's spec.
func (b *Builder) Build(ctx context.Context, claim *Claim) (*specs.Spec, error) {
	names := claim.names()
	spec := &specs.Spec{
		Kind:           names.kind(),
		Annotations:    map[string]string{EntryAnnotation: string(claim.Entry)},
		ContainerEdits: b.claimEdits(claim.UID),
	}
	seen := map[string]bool{}
	for i := range claim.Devices {
		device := &claim.Devices[i]
		if device.GPU != nil && !seen[commonGPU] {
			seen[commonGPU] = true
			edits, err := b.GPUs.Common(ctx, claim.Driver, capabilitiesOf(claim.Devices))
			if err != nil {
				return nil, fmt.Errorf("collect the GPU driver's files: %w", err)
			}
			spec.Devices = append(spec.Devices, specs.Device{Name: names.device(commonGPU), ContainerEdits: *edits})
		}
		// Two requests of a claim may have one device; it is one CDI device.
		key := claim.key(device.Name, device.Share)
		if seen[key] {
			continue
		}
		seen[key] = true
		edits, err := b.deviceEdits(ctx, claim, device)
		if err != nil {
			return nil, fmt.Errorf("collect what a container needs for device %s: %w", device.Name, err)
		}
		spec.Devices = append(spec.Devices, specs.Device{Name: names.device(key), ContainerEdits: *edits})
	}
	version, err := specs.MinimumRequiredVersion(spec)
	if err != nil {
		return nil, fmt.Errorf("the CDI spec of claim %s is of no known version: %w", claim.UID, err)
	}
	spec.Version = version
	return spec, nil
}

func (b *Builder) deviceEdits(ctx context.Context, claim *Claim, device *Device) (*specs.ContainerEdits, error) {
	edits := &specs.ContainerEdits{}
	if device.GPU != nil {
		var err error
		if edits, err = b.gpuEdits(ctx, claim, device); err != nil {
			return nil, err
		}
	}
	if device.RDMA != nil {
		rdma, err := b.rdmaEdits(device.RDMA)
		if err != nil {
			return nil, err
		}
		edits.DeviceNodes = append(edits.DeviceNodes, rdma.DeviceNodes...)
	}
	for _, node := range device.UserSpace {
		edits.DeviceNodes = append(edits.DeviceNodes, b.node(node))
	}
	for _, mount := range device.Mounts {
		edits.Mounts = append(edits.Mounts, &specs.Mount{HostPath: mount.Host, ContainerPath: mount.Container, Options: []string{"ro", "bind"}})
	}
	// The variable names the claim and device inside the container; it also
	// keeps the edits of a virtual device from being empty, which CDI forbids.
	variable := "HOSTLER_DEVICE_" + strings.ToUpper(strings.ReplaceAll(device.Name, "-", "_")) + "=" + device.Name
	edits.Env = append(edits.Env, variable)
	return edits, nil
}

func (b *Builder) gpuEdits(ctx context.Context, claim *Claim, device *Device) (*specs.ContainerEdits, error) {
	if device.Partition != nil {
		return b.GPUs.Partition(ctx, claim.Driver, device.GPU, device.Partition)
	}
	return b.GPUs.Device(ctx, claim.Driver, device.GPU)
}

// claimEdits hold for every container that gets any device of the claim.
func (b *Builder) claimEdits(claim types.UID) specs.ContainerEdits {
	// "void" keeps an NVIDIA runtime, where one is installed as well, from
	// adding GPUs of its own choice.
	edits := specs.ContainerEdits{Env: []string{"NVIDIA_VISIBLE_DEVICES=void"}}
	if b.Gate.Path != "" {
		edits.Hooks = []*specs.Hook{{
			HookName: tagscdi.CreateRuntimeHook,
			Path:     b.Gate.Path,
			Args:     []string{"hostler-gate", "--socket", b.Gate.Socket, "--records", b.Gate.Records, "--claim", string(claim)},
		}}
	}
	return edits
}

// rdmaEdits gives access to an RDMA device through verbs. Nodes that the
// kernel did not make (issm and umad without their modules) are left out; only
// without uverbs there is no RDMA.
func (b *Builder) rdmaEdits(rdma *topology.RDMADevice) (*specs.ContainerEdits, error) {
	edits := &specs.ContainerEdits{}
	verbs := false
	for _, path := range rdma.CharDevices {
		relative := strings.TrimPrefix(strings.TrimPrefix(path, "/"), "dev/")
		if _, err := os.Stat(filepath.Join(b.Dev, relative)); err != nil {
			continue
		}
		verbs = verbs || strings.HasPrefix(filepath.Base(relative), "uverbs")
		edits.DeviceNodes = append(edits.DeviceNodes, b.node(relative))
	}
	if !verbs {
		return nil, fmt.Errorf("RDMA device %s has no uverbs node under %s: is the kernel module ib_uverbs loaded? A NICConfig with \"rdma: None\" does without", rdma.Name, b.Dev)
	}
	return edits, nil
}

// node is a device node by its path relative to /dev.
func (b *Builder) node(relative string) *specs.DeviceNode {
	node := &specs.DeviceNode{Path: filepath.Join("/dev", relative), Permissions: "rw"}
	if host := filepath.Join(b.HostDev, relative); host != node.Path {
		node.HostPath = host
	}
	return node
}

// capabilitiesOf is the union of what the claim's GPUs ask for, in first-seen order.
func capabilitiesOf(devices []Device) []string {
	var out []string
	seen := map[string]bool{}
	for i := range devices {
		for _, capability := range devices[i].Capabilities {
			if !seen[capability] {
				seen[capability] = true
				out = append(out, capability)
			}
		}
	}
	return out
}
