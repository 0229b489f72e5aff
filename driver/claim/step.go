// A Step is one thing that is done on the node for a claim. Steps are derived
// from the entry alone, at any time, by the process that began them or by its
// successor.

package claim

import (
	"context"
	"errors"
	"fmt"

	"k8s.io/apimachinery/pkg/types"
	"tags.cncf.io/container-device-interface/specs-go"

	"github.com/hostler-dev/hostler/driver/cdi"
	"github.com/hostler-dev/hostler/driver/gpu"
	"github.com/hostler-dev/hostler/driver/metadata"
	"github.com/hostler-dev/hostler/driver/publish"
	"github.com/hostler-dev/hostler/driver/vfio"
	"github.com/hostler-dev/hostler/netattach"
	"github.com/hostler-dev/hostler/netattach/multus"
	"github.com/hostler-dev/hostler/topology"
)

// Step is idempotent in both directions: Do may find its work done, and Undo
// may find nothing to undo, because either may have been interrupted.
type Step interface {
	// Name for logs and errors, an action: "write the CDI spec".
	Name() string
	// Kind is a short fixed word by which timings are counted: "cdi".
	Kind() string
	Do(ctx context.Context) error
	// Verify reads back from the kernel, the disk or the hardware whether the
	// step's effect is there.
	Verify(ctx context.Context) error
	Undo(ctx context.Context) error
}

// Attacher brings home what a claim has in network namespaces.
type Attacher interface {
	// Release returns when all netdevs and rules of the claim are out of its
	// pods. A claim that has none is no error.
	Release(ctx context.Context, claim types.UID) error
	// InUse reports whether a sandbox of one of the claim's pods still lives.
	InUse(claim types.UID) (bool, error)
	// InPods returns how the claim's netdevs are known in the pods that they are in.
	InPods(claim types.UID) ([]netattach.DeviceState, error)
}

// Specs makes CDI specs, see cdi.Builder.
type Specs interface {
	Build(ctx context.Context, claim *cdi.Claim) (*specs.Spec, error)
}

// Steps derives the steps of entries.
type Steps struct {
	Attacher  Attacher
	Specs     Specs
	Directory cdi.Directory
	// Metadata is where files for the claims' containers are kept.
	Metadata *metadata.Directory
	// Describe returns what slices say of a device, see publish.Describer.
	Describe func(publish.Subject) (described publish.Attributes, known bool)
	// Snapshot is the machine now: driver files and device nodes may have
	// changed since the entry was made.
	Snapshot func() *topology.Snapshot
	// Partitioner cuts GPUs; nil if the agent has none, and then no entry of its
	// has partitions.
	Partitioner gpu.Partitioner
	// GPUGone returns why a GPU cannot have partitions any more, "" if it can; see gpu.PartitionConfig.
	GPUGone func(name string) string
	// GPUsSilent returns why GPUs cannot be asked at present, "" if they can.
	GPUsSilent func() string
	// Recut is called when partitions were made or removed, or devices bound to another driver.
	Recut func()
	// VFs sets up VFs; nil if the agent cannot, and then no entry of its has any set up.
	VFs VFs
	// VFIO binds devices to vfio-pci; nil if the agent cannot, and then no entry of its has any bound.
	VFIO *vfio.Bus
	// LetGo runs an action while nobody of ours has the GPU at the address open, see
	// nvml.Source. Nil: nobody ever has.
	LetGo func(ctx context.Context, pci string, action func(context.Context) error) error
	// RDMANodes returns the device nodes that an RDMA device has now, in whatever network
	// namespace it is, see nic.CharDevices.
	RDMANodes func(device string) ([]string, error)
	// DeviceInfo is where Multus looks for what is known of devices.
	DeviceInfo multus.DeviceInfo
	// BootID of the running machine.
	BootID string

	// attachments are locked while files are compared with the records of attachments.
	attachments claimLocks
}

// Of returns the steps of an entry in the order in which they are done. The
// spec comes last: while it is there a container of the claim can start. It
// names what the partitions' steps made. These come first, one for each partition
// in the order of the entry's devices; of a released entry nothing else is left.
func (s *Steps) Of(entry *Entry) []Step {
	var steps []Step
	spec := &specStep{steps: s, entry: entry, partitions: map[string]*gpu.PartitionStep{}}
	for i := range entry.Devices {
		if device := &entry.Devices[i]; device.Partition != nil {
			step := s.partition(entry, device)
			spec.partitions[device.Name] = step
			steps = append(steps, step)
		}
	}
	if entry.Released {
		return steps
	}
	for i := range entry.Devices {
		if device := &entry.Devices[i]; device.VF != nil {
			steps = append(steps, s.vf(entry, device))
		}
	}
	for i := range entry.Devices {
		steps = append(steps, s.userSpace(entry, &entry.Devices[i])...)
	}
	for i := range entry.Devices {
		if device := &entry.Devices[i]; device.Network != nil && device.Network.External {
			steps = append(steps, s.deviceInfo(device))
		}
	}
	return append(steps, &networkStep{attacher: s.Attacher, entry: entry}, &metadataStep{steps: s, entry: entry, partitions: spec.partitions}, spec)
}

func (s *Steps) partition(entry *Entry, device *Device) *gpu.PartitionStep {
	return gpu.NewPartitionStep(gpu.PartitionConfig{
		Name: device.Name, GPU: device.GPU.Name, PCI: device.GPU.Placement.PCI,
		Profile: device.Partition.Profile, ProfileID: device.Partition.ProfileID, Placement: device.Partition.Placement,
		Static: device.Partition.Static, OtherBoot: entry.BootID != s.BootID, First: entry.First,
		Partitioner: s.Partitioner, Gone: s.GPUGone, Silent: s.GPUsSilent, Changed: s.Recut,
	})
}

// networkStep has nothing to do on the host at prepare: the intent is in the
// journal, and the sandbox's hook takes it from there. What it undoes is what
// the hook did.
type networkStep struct {
	attacher Attacher
	entry    *Entry
}

func (s *networkStep) Name() string                 { return "offer the network intent" }
func (s *networkStep) Kind() string                 { return "network" }
func (s *networkStep) Do(context.Context) error     { return nil }
func (s *networkStep) Verify(context.Context) error { return nil }

// Undo is for claims that want nothing of the network, too: the gate keeps a
// record of every claim whose containers it let start.
func (s *networkStep) Undo(ctx context.Context) error {
	return s.attacher.Release(ctx, s.entry.ClaimUID)
}

type specStep struct {
	steps *Steps
	entry *Entry
	// partitions of the entry, whose steps come before.
	partitions map[string]*gpu.PartitionStep
	// encoded is kept from Compose for Do, and from there for Verify, which follow at once.
	encoded []byte
	// mended is what Do found to be wrong.
	mended Drift
}

func (s *specStep) Name() string { return "write the CDI spec" }
func (s *specStep) Kind() string { return "cdi" }

func (s *specStep) Do(ctx context.Context) error {
	spec, err := s.build(ctx)
	if err != nil {
		return err
	}
	return s.ensure(func() (bool, error) { return s.steps.Directory.Ensure(s.entry.ClaimUID, spec) })
}

func (s *specStep) Verify(ctx context.Context) error {
	spec, err := s.build(ctx)
	if err != nil {
		return err
	}
	return s.steps.Directory.Verify(s.entry.ClaimUID, spec)
}

func (s *specStep) Undo(context.Context) error {
	return errors.Join(s.steps.Directory.Remove(s.entry.ClaimUID), s.steps.Directory.RemoveUnfinished(s.entry.ClaimUID))
}

// build returns the spec, encoded.
func (s *specStep) build(ctx context.Context) ([]byte, error) {
	if s.encoded != nil {
		return s.encoded, nil
	}
	raw, err := encodeEntry(s.entry)
	if err != nil {
		return nil, fmt.Errorf("encode the journal entry of claim %s: %w", s.entry.ClaimUID, err)
	}
	claim, snapshot := s.entry.cdiClaim(), s.steps.Snapshot()
	claim.Entry, claim.Driver = raw, snapshot.Driver
	s.steps.mount(s.entry, claim)
	for i := range claim.Devices {
		device := &claim.Devices[i]
		s.entry.Devices[i].renumber(device, snapshot)
		if device.Partition != nil {
			device.Partition.Instance = s.partitions[device.Name].Instance()
		}
		if device.UserSpace, err = s.steps.userSpaceNodes(&s.entry.Devices[i]); err != nil {
			return nil, err
		}
	}
	if err := s.steps.followRDMA(s.entry, claim); err != nil {
		return nil, err
	}
	spec, err := s.steps.Specs.Build(ctx, claim)
	if err != nil {
		return nil, err
	}
	s.encoded, err = cdi.Encode(s.entry.ClaimUID, spec)
	return s.encoded, err
}

// renumber has the device's nodes be those of today. Drivers number GPUs and RDMA
// devices anew when they are loaded again: by its number of then, a container might
// get the device of somebody else. What is not there, or in a pod, keeps its numbers.
func (d *Device) renumber(device *cdi.Device, now *topology.Snapshot) {
	if device.GPU != nil {
		if gpu := now.GPU(d.GPU.Name); gpu != nil {
			device.GPU = gpu
		}
	}
	if device.RDMA != nil {
		if nic := now.NIC(d.NIC.Name); nic != nil && nic.RDMA != nil {
			device.RDMA = nic.RDMA
		}
	}
}

// cdiClaim is the entry in the terms of package cdi.
func (e *Entry) cdiClaim() *cdi.Claim {
	claim := &cdi.Claim{UID: e.ClaimUID}
	for i := range e.Devices {
		d := &e.Devices[i]
		device := cdi.Device{Name: d.Name, Share: d.share(), GPU: d.GPU, Capabilities: d.Capabilities}
		if d.gpuInUserSpace() {
			device.GPU = nil
		}
		if d.Partition != nil {
			device.Partition = &cdi.Partition{Profile: d.Partition.Profile}
		}
		if d.byClaimName(e) {
			device.DeviceID = d.NIC.Placement.PCI
		}
		if d.RDMA {
			device.RDMA = d.NIC.RDMA
		}
		claim.Devices = append(claim.Devices, device)
	}
	return claim
}

// CDIDeviceIDs are the CDI devices that give a container that device of the claim.
func (e *Entry) CDIDeviceIDs(device *Device) []string {
	return e.cdiClaim().DeviceIDs(device.Name, device.share())
}

// share is the device's share, "" if it is not shared out.
func (d *Device) share() types.UID {
	if d.ShareID == nil {
		return ""
	}
	return *d.ShareID
}
