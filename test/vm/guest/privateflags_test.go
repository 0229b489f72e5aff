package guest

// Private flags, which no netdev without hardware has. Of the machine's drivers igb has
// one that can be switched (igb_priv_flags_strings in its igb_ethtool.c).

import (
	"context"
	"testing"

	"github.com/safchain/ethtool"

	"github.com/hostler-dev/hostler/netattach"
	"github.com/hostler-dev/hostler/netattach/link"
)

const legacyRX = "legacy-rx"

func TestPrivateFlagsAreSetInThePodAndPutBackAtHome(t *testing.T) {
	asBefore(t)
	nic := find(t, discover(t, noUplink), pf1)
	if nic.RDMA != nil { // soft RoCE goes with its netdev
		t.Cleanup(func() { rdmaAgain(t, nic) })
	}
	host, err := link.NewHost(link.HostConfig{})
	if err != nil {
		t.Fatal(err)
	}
	defer host.Close()
	before := privateFlag(t, nic.Link.Name)
	device, err := host.Remember(netattach.DeviceIntent{Device: nic.Name, PCI: pf1, HostName: nic.Link.Name, PodName: "net1", HostMAC: nic.Link.MAC, PrivateFlags: map[string]bool{legacyRX: !before}})
	if err != nil {
		t.Fatal(err)
	}
	pod := namespace(t, "pod")
	if device.PodIndex, err = host.Into(context.Background(), pod, device); err != nil {
		t.Fatal(err)
	}
	if err := host.Up(context.Background(), pod, device); err != nil {
		t.Error(err)
	}
	var inPod bool
	if err := inNamespace(t, pod, func() error { inPod = privateFlag(t, "net1"); return nil }); err != nil {
		t.Error(err)
	}
	if inPod == before {
		t.Errorf("%s is %t in the pod, as it was", legacyRX, inPod)
	}
	if found, err := host.Home(context.Background(), pod, device); err != nil || !found {
		t.Fatalf("%v, %v", found, err)
	}
	if after := privateFlag(t, nic.Link.Name); after != before {
		t.Errorf("%s is %t at home, and was %t", legacyRX, after, before)
	}
}

// privateFlag asks the driver in the calling thread's namespace.
func privateFlag(t *testing.T, name string) bool {
	t.Helper()
	tool, err := ethtool.NewEthtool()
	if err != nil {
		t.Fatal(err)
	}
	defer tool.Close()
	flags, err := tool.PrivFlags(name)
	if err != nil {
		t.Fatal(err)
	}
	value, has := flags[legacyRX]
	if !has {
		t.Fatalf("%s has no private flag %s, but %v", name, legacyRX, flags)
	}
	return value
}
