package driver

import (
	"strings"
	"testing"

	"github.com/hostler-dev/hostler/driver/claim"
	"github.com/hostler-dev/hostler/driver/vfio"
	"github.com/hostler-dev/hostler/netattach"
	"github.com/hostler-dev/hostler/netattach/attach"
	"github.com/hostler-dev/hostler/topology"
)

const releasedPCI = "0000:19:00.0"

// onEth2 is a device of the NIC there, in a pod as intent says.
func onEth2(intent *netattach.DeviceIntent) claim.Device {
	return claim.Device{Name: "nic-0", NIC: &topology.NIC{Placement: topology.Placement{PCI: releasedPCI}}, Network: intent}
}

func eth2() *netattach.DeviceIntent {
	return &netattach.DeviceIntent{HostName: "eth2", HostMAC: "02:00:00:00:00:02", PodName: "net1"}
}

// Every kind of device gets a sentence that is true of it, before a reboot and after.
func TestReleasedDevicesAreNamedAsWhatTheyAre(t *testing.T) {
	changed := func(intent *netattach.DeviceIntent, change func(*netattach.DeviceIntent)) *netattach.DeviceIntent {
		change(intent)
		return intent
	}
	bound := &vfio.Binding{Group: "7", Functions: []vfio.Function{{PCI: releasedPCI}, {PCI: "0000:19:00.1"}}}
	gpu := &topology.GPU{Placement: topology.Placement{PCI: "0000:17:00.0"}}
	rdma := &netattach.RDMAIntent{Device: "mlx5_0"}
	for name, test := range map[string]struct {
		device        claim.Device
		now, rebooted string
	}{
		"a GPU":                           {claim.Device{Name: "gpu-0", GPU: gpu}, "gpu-0: GPU", ""},
		"a GPU that is only looked at":    {claim.Device{Name: "gpu-0", GPU: gpu, AdminAccess: true}, "gpu-0: GPU, to be looked at with admin access", ""},
		"a partition that was made":       {claim.Device{Name: "gpu-0-1g", GPU: gpu, Partition: &claim.Partition{Profile: "1g.10gb"}}, "gpu-0-1g: GPU partition 1g.10gb, made for the claim", "gpu-0-1g: GPU partition 1g.10gb, gone with the machine's reboot"},
		"a partition that was there":      {claim.Device{Name: "gpu-0-1g", GPU: gpu, Partition: &claim.Partition{Profile: "1g.10gb", Static: true}}, "gpu-0-1g: GPU partition 1g.10gb, which is not the claim's to remove", ""},
		"a GPU in user space":             {claim.Device{Name: "gpu-0", GPU: &topology.GPU{Placement: topology.Placement{PCI: releasedPCI}}, VFIO: bound}, "gpu-0: GPU in user space, IOMMU group 7: 0000:19:00.0, 0000:19:00.1", "gpu-0: GPU in user space, at its driver since the machine's reboot"},
		"a netdev":                        {onEth2(eth2()), "nic-0: netdev eth2", "nic-0: netdev eth2, at home since the machine's reboot"},
		"a netdev with RDMA":              {onEth2(changed(eth2(), func(i *netattach.DeviceIntent) { i.RDMA = rdma })), "nic-0: netdev eth2 and RDMA device mlx5_0", "nic-0: netdev eth2 and RDMA device mlx5_0, at home since the machine's reboot"},
		"a netdev of Multus":              {onEth2(changed(eth2(), func(i *netattach.DeviceIntent) { i.External = true })), "nic-0: netdev eth2, for Multus to bring into pods and home", "nic-0: netdev eth2, at home since the machine's reboot"},
		"a child":                         {onEth2(changed(eth2(), func(i *netattach.DeviceIntent) { i.Child = &netattach.ChildIntent{Kind: "macvlan"} })), "nic-0: macvlan child of netdev eth2, gone with its pods", ""},
		"a child, and its parent's RDMA":  {onEth2(changed(eth2(), func(i *netattach.DeviceIntent) { i.Child, i.RDMA = &netattach.ChildIntent{Kind: "ipvlan"}, rdma })), "nic-0: ipvlan child of netdev eth2, gone with its pods; RDMA device mlx5_0, which others share", ""},
		"InfiniBand without a netdev":     {onEth2(&netattach.DeviceIntent{RDMA: rdma}), "nic-0: RDMA device mlx5_0", ""},
		"that, from an earlier version":   {claim.Device{Name: "nic-0", NIC: &topology.NIC{RDMA: &topology.RDMADevice{Name: "mlx5_1"}}, RDMA: true}, "nic-0: RDMA device mlx5_1", ""},
		"a NIC with rdma: None, and none": {onEth2(nil), "nic-0: NIC of which its pods get nothing", ""},
		"a NIC in user space":             {claim.Device{Name: "nic-0", NIC: &topology.NIC{Placement: topology.Placement{PCI: releasedPCI}}, VFIO: bound}, "nic-0: NIC in user space, IOMMU group 7: 0000:19:00.0, 0000:19:00.1", "nic-0: NIC in user space, at its driver since the machine's reboot"},
		"a scope":                         {claim.Device{Name: "egress"}, "egress: egress scope, in force in its pods until they end", "egress: egress scope, gone with the machine's reboot"},
		"a pair with settings on its VF": {claim.Device{Name: "pair-0", GPU: gpu, NIC: &topology.NIC{}, Network: eth2(), VF: &claim.VFChange{PF: "0000:1d:00.0", Index: 3, Wanted: netattach.VFSettings{VLAN: new(7)}}},
			"pair-0: GPU\npair-0: netdev eth2\npair-0: VF settings that the claim changed (vlan 7), of VF 3 of 0000:1d:00.0",
			"pair-0: GPU\npair-0: netdev eth2, at home since the machine's reboot\npair-0: VF settings, gone with the machine's reboot"},
	} {
		t.Run(name, func(t *testing.T) {
			r := Released{Entry: &claim.Entry{BootID: "boot", Devices: []claim.Device{test.device}}}
			if got := strings.Join(r.Devices("boot"), "\n"); got != test.now {
				t.Errorf("it is called\n%s, want\n%s", got, test.now)
			}
			if test.rebooted == "" {
				test.rebooted = test.now
			}
			if got := strings.Join(r.Devices("later boot"), "\n"); got != test.rebooted {
				t.Errorf("after a reboot it is called\n%s, want\n%s", got, test.rebooted)
			}
		})
	}
}

// A record that outlives the release is of what did not come home.
func TestWhatDidNotComeHomeIsNamed(t *testing.T) {
	rdma := &netattach.RDMAIntent{Device: "mlx5_0"}
	with := eth2()
	with.RDMA = rdma
	child := eth2()
	child.Child = &netattach.ChildIntent{Kind: "macvlan"}
	for _, test := range []struct {
		name    string
		devices []netattach.DeviceIntent
		want    string
	}{
		{"a netdev", []netattach.DeviceIntent{*eth2()}, "netdev eth2 (02:00:00:00:00:02): neither in pod team/p nor on the host;"},
		{"a netdev and its RDMA device", []netattach.DeviceIntent{*with}, "netdev eth2 (02:00:00:00:00:02) with RDMA device mlx5_0: neither in"},
		{"a netdev without an address", []netattach.DeviceIntent{{HostName: "eth2"}}, "netdev eth2: neither in"},
		{"an RDMA device without netdev", []netattach.DeviceIntent{{RDMA: rdma}}, "RDMA device mlx5_0: neither in"},
		{"a child", []netattach.DeviceIntent{*child}, "the macvlan child net1 of netdev eth2: neither in"},
		{"two of them", []netattach.DeviceIntent{*eth2(), {RDMA: rdma}}, "netdev eth2 (02:00:00:00:00:02), RDMA device mlx5_0: neither in"},
	} {
		t.Run(test.name, func(t *testing.T) {
			d, _ := newDriver(t, nil, pathsIn(t))
			record := attach.Record{Pod: netattach.PodReference{UID: "pod", Namespace: "team", Name: "p"}, Intent: netattach.Intent{ClaimUID: "uid-c", Devices: test.devices}}
			released, err := d.Release(t.Context(), ReleaseOptions{Force: true, Records: func() ([]attach.Record, error) { return []attach.Record{record}, nil }})
			if err != nil || len(released) != 1 || released[0].Err == nil {
				t.Fatalf("%+v, %v", released, err)
			}
			if text := released[0].Err.Error(); !strings.HasPrefix(text, test.want) || strings.Contains(text, "()") {
				t.Errorf("told %q, want %q", text, test.want)
			}
		})
	}
}
