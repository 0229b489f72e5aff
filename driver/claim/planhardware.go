// The plans for GPUs, partitions and NICs. A pair is planned as its GPU and then
// as its NIC.

package claim

import (
	"cmp"
	"fmt"
	"net/netip"

	"github.com/hostler-dev/hostler/api/v1alpha1"
	"github.com/hostler-dev/hostler/netattach"
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
		return fmt.Errorf("GPU %s has fallen off the bus (the driver answers \"GPU is lost\"); it needs a reset or a reboot", nameOf(device, gpu.Name))
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

func planNIC(in PlanInput, device *Device, nic *topology.NIC, configs []given) error {
	config, err := merged(configs, device.Request, overlay[v1alpha1.NICConfig])
	if err != nil {
		return err
	}
	switch {
	case nic.Uplink != "":
		return uplinkError(nameOf(device, nic.Name), nic.Uplink)
	case device.AdminAccess:
		return fmt.Errorf("NIC %s: admin access is for devices that can be looked at while others use them; a NIC is in one network namespace at a time", nameOf(device, nic.Name))
	case nic.NetdevAway():
		return fmt.Errorf("NIC %s: its netdev is not in the host's network namespace; some other program on the node took it, or it is on its way home from an earlier pod; the kubelet tries again", nameOf(device, nic.Name))
	}
	if err := planVF(in, device, nic, config.VF, configs); err != nil {
		return err
	}
	copied := *nic
	device.NIC = &copied
	if config.Mode == v1alpha1.NICModeVFIO {
		return planNICInUserSpace(device, nic)
	}
	device.RDMA = nic.RDMA != nil && config.RDMA == v1alpha1.RDMAAuto
	if nic.Link == nil {
		return needNoNetdev(device, config)
	}
	device.Network, err = networkIntent(device, nic, config, in.Claim.Namespace)
	if err == nil && device.VF != nil && device.VF.Wanted.MAC != nil {
		// By then the netdev has it, and it has to have it still when it comes home.
		device.Network.HostMAC = *device.VF.Wanted.MAC
	}
	return err
}

// needNoNetdev refuses settings of a netdev for a NIC that has none (InfiniBand without IPoIB).
func needNoNetdev(device *Device, config *v1alpha1.NICConfig) error {
	if config.InterfaceName != "" || config.MTU != nil || len(config.Addresses)+len(config.Routes)+len(config.Networks) > 0 {
		return fmt.Errorf("NIC %s has an RDMA device and no netdev; its NICConfig can set nothing but rdma", device.Name)
	}
	return nil
}

func networkIntent(device *Device, nic *topology.NIC, config *v1alpha1.NICConfig, namespace string) (*netattach.DeviceIntent, error) {
	intent := &netattach.DeviceIntent{
		Request: device.Request, Pool: device.Pool, Device: device.Name, PCI: nic.Placement.PCI,
		HostName: nic.Link.Name, PodName: nic.Link.Name, HostMAC: nic.Link.MAC,
	}
	if config.InterfaceName != "" {
		intent.PodName = config.InterfaceName
	}
	if config.MTU != nil {
		intent.MTU = int(*config.MTU)
	}
	for _, address := range config.Addresses {
		prefix, err := netip.ParsePrefix(address)
		if err != nil {
			return nil, fmt.Errorf("NIC %s: address %q: %w", device.Name, address, err)
		}
		intent.Addresses = append(intent.Addresses, prefix)
	}
	for _, route := range config.Routes {
		planned, err := planRoute(route)
		if err != nil {
			return nil, fmt.Errorf("NIC %s: %w", device.Name, err)
		}
		intent.Routes = append(intent.Routes, planned)
	}
	for _, network := range config.Networks {
		if network.Namespace == "" {
			network.Namespace = namespace
		}
		intent.Networks = append(intent.Networks, netattach.NetworkIntent{Namespace: network.Namespace, Name: network.Name})
	}
	return intent, nil
}

func planRoute(route v1alpha1.Route) (netattach.Route, error) {
	var planned netattach.Route
	var err error
	if planned.Destination, err = netip.ParsePrefix(route.Destination); err != nil {
		return planned, fmt.Errorf("route to %q: %w", route.Destination, err)
	}
	if route.Gateway != "" {
		if planned.Gateway, err = netip.ParseAddr(route.Gateway); err != nil {
			return planned, fmt.Errorf("route to %s: gateway: %w", route.Destination, err)
		}
	}
	return planned, nil
}
