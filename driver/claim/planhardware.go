// The plans for GPUs and partitions. A pair is planned as its GPU and then as its NIC.

package claim

import (
	"cmp"
	"fmt"

	"github.com/hostler-dev/hostler/api/v1alpha1"
	"github.com/hostler-dev/hostler/topology"
)

func planGPU(in PlanInput, device *Device, found parts, configs []given) error {
	config, err := merged(configs, device.Request, overlay[v1alpha1.GPUConfig])
	if err != nil {
		return err
	}
	if in.ComingHome[found.gpu.Name] {
		return fmt.Errorf("GPU %s: %w; the kubelet tries again", nameOf(device, found.gpu.Name), ErrComingHome)
	}
	if err := driverError(in.Snapshot.Driver, "GPU "+nameOf(device, found.gpu.Name)); err != nil {
		return err
	}
	gpu := found.gpu
	switch {
	case gpu.Lost:
		return fmt.Errorf("GPU %s has fallen off the bus (the driver answers \"GPU is lost\"); it needs a reset or a reboot; delete the pod to have another one allocated", nameOf(device, gpu.Name))
	case found.partition == nil && gpu.MIGEnabled && !device.AdminAccess:
		return fmt.Errorf("GPU %s is in MIG mode; CUDA does not run on it whole; ask for a partition (class mig.hostler.dev)", nameOf(device, gpu.Name))
	case found.partition != nil && found.partition.Instance == nil && in.Partitions == v1alpha1.PartitionsExisting:
		return fmt.Errorf("partition %s: %w", device.Name, errOnlyExisting)
	}
	if config.Mode == v1alpha1.GPUModeVFIO {
		if err := planGPUInUserSpace(device, found); err != nil {
			return err
		}
	}
	copied := *gpu
	// How the GPU is and could be cut is nothing that a claim keeps.
	copied.MIG = nil
	// Nor is what it is linked to: it would be most of the entry, in the journal and in the
	// CDI spec, all of which the runtime reads again at each change of one. Only in user
	// space, where NVML does not see it, the GPU is published as the claim remembers it.
	if device.VFIO == nil {
		copied.NVLinks = nil
	}
	device.GPU, device.Capabilities = &copied, config.DriverCapabilities
	if p := found.partition; p != nil {
		device.Partition = &Partition{Profile: p.Profile.Name, ProfileID: p.Profile.ID, Placement: p.Placement}
	}
	return nil
}

// nameOf names a part, and the device that it is a part of if that has another name.
func nameOf(device *Device, part string) string {
	if device.Name == part {
		return part
	}
	return fmt.Sprintf("%s (of device %s)", part, device.Name)
}

// driverError is nil while the driver works. Subject is "GPU gpu-…", say.
func driverError(driver topology.Driver, subject string) error {
	if driver.State == topology.DriverReady {
		return nil
	}
	return fmt.Errorf("%s cannot be given to a pod while the node's accelerator driver does not work (%s): %s", subject, driver.State, cmp.Or(driver.Message, "the agent has not read the machine yet"))
}
