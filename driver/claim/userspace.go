// Devices in user space. What is planned is only which functions are to go there;
// their IOMMU group and what they were before are read at admission, when no other claim
// can have them any more, and the steps go by that.

package claim

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/hostler-dev/hostler/driver/vfio"
	"github.com/hostler-dev/hostler/topology"
)

// ErrNetdevAway says that the NIC's netdev is not in the host's network namespace, as far
// as is known: it may be on its way home from a claim that is over.
var ErrNetdevAway = errors.New("its netdev is not in the host's network namespace; some other program on the node took it, or it is on its way home from an earlier pod")

// ErrComingHome says that a claim had the GPU in user space until a moment ago, or
// has it still, and that its driver does not list it.
var ErrComingHome = errors.New("an earlier claim had it in user space, and it is not back at its driver yet")

// toUserSpace plans that a part of the device, the function at the address, is
// given to user space.
func (d *Device) toUserSpace(pci string) {
	planned := &vfio.Binding{Functions: []vfio.Function{{PCI: pci}}}
	if d.VFIO == nil {
		d.VFIO = planned
		return
	}
	d.VFIO.Paired = planned
}

// bindings of the device's parts, none if nothing of it is in user space.
func (d *Device) bindings() []*vfio.Binding {
	var bindings []*vfio.Binding
	for binding := d.VFIO; binding != nil; binding = binding.Paired {
		bindings = append(bindings, binding)
	}
	return bindings
}

// inUserSpace reports whether the function at the address is what is given away.
func (d *Device) inUserSpace(pci string) bool {
	return slices.ContainsFunc(d.bindings(), func(b *vfio.Binding) bool { return b.Functions[0].PCI == pci })
}

func (d *Device) gpuInUserSpace() bool {
	return d.GPU != nil && d.inUserSpace(d.GPU.Placement.PCI)
}

func (d *Device) nicInUserSpace() bool {
	return d.NIC != nil && d.inUserSpace(d.NIC.Placement.PCI)
}

// sharesGroup reports whether both devices have something in one IOMMU group, of
// which only the whole can be given away.
func (d *Device) sharesGroup(o *Device) bool {
	return slices.ContainsFunc(d.bindings(), func(mine *vfio.Binding) bool {
		return mine.Group != "" && slices.ContainsFunc(o.bindings(), func(theirs *vfio.Binding) bool { return mine.Group == theirs.Group })
	})
}

func planGPUInUserSpace(device *Device, found parts) error {
	name := nameOf(device, found.gpu.Name)
	switch {
	case found.partition != nil:
		return fmt.Errorf("partition %s: mode vfio gives PCI functions to user space, and a partition is none; ask for a whole GPU, or set mode driver", device.Name)
	case device.AdminAccess:
		return fmt.Errorf("GPU %s: admin access is for devices that can be looked at while others use them; mode vfio takes the GPU from its driver; ask for one of the two", name)
	case found.gpu.MIGEnabled:
		return fmt.Errorf("GPU %s is in MIG mode, in which it is not given to user space; turn the mode off (`nvidia-smi -mig 0`), or ask for another GPU", name)
	}
	device.toUserSpace(found.gpu.Placement.PCI)
	return nil
}

func planNICInUserSpace(device *Device, nic *topology.NIC) error {
	if nic.NumVFs > 0 {
		return fmt.Errorf("NIC %s is a PF with %d VFs, which would go with its driver; ask for one of the VFs, or have the node's administrator remove them", nameOf(device, nic.Name), nic.NumVFs)
	}
	device.toUserSpace(nic.Placement.PCI)
	return nil
}

// admitToUserSpace completes the bindings of a device. The journal is asked before
// the kernel: a claim that lets go of a device has it bound to its driver first and
// leaves the journal then, so that what is bound to vfio-pci now was so before any claim.
func (a *Admission) admitToUserSpace(ctx context.Context, entry *Entry, device *Device) error {
	for _, other := range a.Journal.Entries() {
		if other.ClaimUID == entry.ClaimUID {
			continue
		}
		if held := collision(entry, other); held != nil {
			return held
		}
	}
	for _, binding := range device.bindings() {
		if binding.Group != "" {
			continue
		}
		if a.VFIO == nil {
			return fmt.Errorf("device %s: this agent cannot give devices to user space", device.Name)
		}
		group, err := a.VFIO.Group(ctx, binding.Functions[0].PCI)
		if err != nil {
			return fmt.Errorf("device %s: %w", device.Name, err)
		}
		judged, err := vfio.Judge(binding.Functions[0].PCI, group)
		if err != nil {
			return fmt.Errorf("device %s: %w", device.Name, err)
		}
		binding.Group, binding.Functions = judged.Group, judged.Functions
	}
	return checkGroups(entry)
}

// checkGroups refuses two devices of one claim in one group: what is done for one
// would be undone for the other.
func checkGroups(entry *Entry) error {
	for i := range entry.Devices {
		for j := range i {
			if first, second := &entry.Devices[j], &entry.Devices[i]; first.sharesGroup(second) {
				return fmt.Errorf("devices %s and %s are in one IOMMU group (%s), which is given to user space as a whole; ask for devices of different groups", first.Name, second.Name, second.VFIO.Group)
			}
		}
	}
	return nil
}

// userSpace are the steps that give a device's parts away, the GPU's first.
func (s *Steps) userSpace(entry *Entry, device *Device) []Step {
	var steps []Step
	if s.VFIO == nil {
		return nil
	}
	for _, binding := range device.bindings() {
		cfg := vfio.StepConfig{Device: device.Name, Binding: binding, OtherBoot: entry.BootID != s.BootID, Bus: s.VFIO, Changed: s.Recut}
		if device.GPU != nil && binding.Functions[0].PCI == device.GPU.Placement.PCI {
			cfg.LetGo, cfg.Nodes = s.LetGo, s.nodesOf(device.GPU)
		}
		steps = append(steps, vfio.NewStep(cfg))
	}
	return steps
}

// nodesOf are the GPU's nodes by the number that it has today.
func (s *Steps) nodesOf(gpu *topology.GPU) []string {
	if now := s.Snapshot().GPU(gpu.Name); now != nil {
		gpu = now
	}
	if gpu.Minor < 0 {
		return nil
	}
	return []string{fmt.Sprintf("nvidia%d", gpu.Minor)}
}

// userSpaceNodes are the device nodes for containers, relative to /dev.
func (s *Steps) userSpaceNodes(device *Device) ([]string, error) {
	var nodes []string
	if s.VFIO == nil {
		return nil, nil
	}
	for _, binding := range device.bindings() {
		more, err := s.VFIO.Nodes(binding)
		if err != nil {
			return nil, fmt.Errorf("device %s: %w", device.Name, err)
		}
		for _, node := range more {
			if !slices.Contains(nodes, node) { // both halves of a pair need /dev/vfio/vfio
				nodes = append(nodes, node)
			}
		}
	}
	return nodes, nil
}
