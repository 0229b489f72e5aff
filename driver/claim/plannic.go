// The plan for a NIC: by whom and as what the pod gets it, and that this NIC can be
// given so. What goes into the pod is written down in plannetwork.go.

package claim

import (
	"errors"
	"fmt"
	"strings"

	resourceapi "k8s.io/api/resource/v1"

	"github.com/hostler-dev/hostler/api/v1alpha1"
	"github.com/hostler-dev/hostler/driver/publish"
	"github.com/hostler-dev/hostler/netattach"
	"github.com/hostler-dev/hostler/topology"
)

func planNIC(in PlanInput, device *Device, nic *topology.NIC, result *resourceapi.DeviceRequestAllocationResult, configs []given) error {
	config, err := merged(configs, device.Request, overlay[v1alpha1.NICConfig])
	if err != nil {
		return err
	}
	_, askedTooMuch := askedOfVF(device.Request, configs)
	if err := errors.Join(checkClassOnly(device.Request, in.Claim.Namespace, config, configs), askedTooMuch); err != nil {
		return err
	}
	name := nameOf(device, nic.Name)
	switch {
	case nic.Uplink != "":
		return uplinkError(name, nic.Uplink)
	case device.AdminAccess:
		return fmt.Errorf("NIC %s: admin access is for devices that can be looked at while others use them; a NIC is in one network namespace at a time; leave adminAccess out of the request", name)
	case nic.NetdevAway():
		return fmt.Errorf("NIC %s: %w; the kubelet tries again", name, ErrNetdevAway)
	}
	bandwidth, err := shareOf(name, nic, result, config)
	if err != nil {
		return err
	}
	if err := planVF(in, device, nic, config.VF, configs); err != nil {
		return err
	}
	copied := *nic
	device.NIC = &copied
	if config.Mode == v1alpha1.NICModeVFIO {
		return planNICInUserSpace(device, nic)
	}
	rdma, err := planRDMA(name, nic, config)
	if err != nil {
		return err
	}
	device.RDMA = rdma != nil
	if nic.Link == nil {
		return planWithoutNetdev(device, config, rdma)
	}
	if err := checkLink(in, name, nic, config); err != nil {
		return err
	}
	if device.Network, err = networkIntent(device, nic, config, in.Claim.Namespace); err != nil {
		return fmt.Errorf("NIC %s: %w", name, err)
	}
	device.Network.RDMA, device.Network.Bandwidth = rdma, bandwidth
	if device.VF != nil && device.VF.Wanted.MAC != nil {
		// By then the netdev has it, and it has to have it still when it comes home.
		device.Network.HostMAC = *device.VF.Wanted.MAC
	}
	if device.Network.External {
		return planMultus(in, device, nic, device.Network)
	}
	return nil
}

// shareOf returns the bandwidth, in bits per second, that a pod's child of the NIC
// is held to, 0 if the claim has the NIC for itself. It refuses what would take the NIC
// from the others that share it.
func shareOf(name string, nic *topology.NIC, result *resourceapi.DeviceRequestAllocationResult, config *v1alpha1.NICConfig) (uint64, error) {
	share, all := publish.Share(result, nic)
	if share == 0 {
		return 0, nil
	}
	speed := "its speed is not known at present, because it has no carrier"
	if nic.Link != nil && nic.Link.SpeedMbps > 0 {
		speed = fmt.Sprintf("its speed is %d Mbit/s", nic.Link.SpeedMbps)
	} else {
		all = false
	}
	if all && config.Mode.IsChild() && share > uint64(nic.Link.SpeedMbps)*1e6 {
		// The link has become slower than shares of it are, and there may be several.
		all = false
	}
	switch {
	case all:
		return 0, nil
	case !config.Mode.IsChild():
		return 0, fmt.Errorf("NIC %s: the claim has a share of it, %d Mbit/s (%s), and mode %s takes the whole NIC; set mode macvlan or ipvlan in the NICConfig, or leave the capacity %s out of the request, and the claim gets all of a NIC", name, share/1e6, speed, config.Mode, publish.BandwidthCapacity)
	case config.VF != nil && *config.VF != (v1alpha1.VFConfig{}):
		return 0, fmt.Errorf("NIC %s: the claim has a share of it, and what a NICConfig has under vf would be set for all who share it; leave vf out, or leave the capacity %s out of the request, and the claim gets all of a NIC", name, publish.BandwidthCapacity)
	}
	return share, nil
}

// planRDMA says what becomes of the NIC's RDMA device, nil if the pod gets nothing of
// it. Of a child's parent it gets nothing unless that is asked for: verbs know neither
// the child nor its bandwidth.
func planRDMA(name string, nic *topology.NIC, config *v1alpha1.NICConfig) (*netattach.RDMAIntent, error) {
	asked := config.RDMA == v1alpha1.RDMAShared || config.RDMA == v1alpha1.RDMAExclusive
	switch {
	case config.RDMA == v1alpha1.RDMANone || config.RDMA == v1alpha1.RDMAAuto && config.Mode.IsChild():
		return nil, nil
	case nic.RDMA == nil && asked:
		return nil, fmt.Errorf("NIC %s has no RDMA device, and its NICConfig asks for \"rdma: %s\"; ask for a NIC that has one (attribute hostler.dev/rdma), or set \"rdma: Auto\"", name, config.RDMA)
	case nic.RDMA == nil:
		return nil, nil
	}
	return &netattach.RDMAIntent{Device: nic.RDMA.Name, NodeGUID: nic.RDMA.NodeGUID, Mode: config.RDMA}, nil
}

// planWithoutNetdev is for InfiniBand without IPoIB and its like. What is set of a
// netdev is refused.
func planWithoutNetdev(device *Device, config *v1alpha1.NICConfig, rdma *netattach.RDMAIntent) error {
	switch settings := config.InterfaceSettings(); {
	case len(settings) > 0:
		return fmt.Errorf("NIC %s has an RDMA device and no netdev; its NICConfig can set nothing but rdma; leave out %s", device.Name, strings.Join(settings, ", "))
	case config.Mode.IsChild():
		return fmt.Errorf("NIC %s has an RDMA device and no netdev of which there could be a child; set mode netdev", device.Name)
	case config.Attach == v1alpha1.AttachMultus:
		return fmt.Errorf("NIC %s has an RDMA device and no netdev that Multus could attach; leave attach out", device.Name)
	}
	if rdma != nil {
		device.Network = &netattach.DeviceIntent{
			Request: device.Request, Pool: device.Pool, Device: device.Name, ShareID: device.ShareID, PCI: device.NIC.Placement.PCI, RDMA: rdma,
		}
	}
	return nil
}

// checkLink refuses all that the NIC's netdev cannot be or have.
func checkLink(in PlanInput, name string, nic *topology.NIC, config *v1alpha1.NICConfig) error {
	var faults []error
	if nic.Link.Type == "infiniband" {
		// The first two are of Ethernet's hardware addresses; for children see
		// macvlan_common_newlink and ipvlan_port_create in the kernel's drivers/net.
		for _, setting := range []struct {
			name string
			set  bool
		}{{"hardwareAddress", config.HardwareAddress != ""}, {"neighbours", len(config.Neighbours) > 0}, {"mode " + string(config.Mode), config.Mode.IsChild()}} {
			if setting.set {
				faults = append(faults, fmt.Errorf("NIC %s is one of InfiniBand (IPoIB), and %s is for Ethernet; leave it out, or ask for an Ethernet NIC (attribute hostler.dev/linkType)", name, setting.name))
			}
		}
	}
	if config.MTU == nil {
		return errors.Join(faults...)
	}
	mtu := int(*config.MTU)
	if most := nic.Link.MTU; config.Mode.IsChild() && most > 0 && mtu > most {
		faults = append(faults, fmt.Errorf("NIC %s has an MTU of %d, which no child of it can exceed, and its NICConfig asks for %d (mtu); ask for less, or have the NIC's MTU raised on the node", name, most, mtu))
	}
	if pf := in.Snapshot.NIC(nic.Parent); pf != nil && pf.Link != nil && pf.Link.MTU > 0 && mtu > pf.Link.MTU {
		faults = append(faults, fmt.Errorf("NIC %s is a VF of %s, which has an MTU of %d and drops what is longer, and the NICConfig asks for %d (mtu); ask for less, or have the PF's MTU raised on the node", name, pf.Name, pf.Link.MTU, mtu))
	}
	return errors.Join(faults...)
}
