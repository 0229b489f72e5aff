package link

// A repeat that fails, in a pod whose containers have had the device for long.

import (
	"context"
	"net/netip"
	"testing"

	"github.com/hostler-dev/hostler/netattach"
)

func TestFailureLeavesInThePodWhatWasThere(t *testing.T) {
	refused := func(device netattach.DeviceIntent) netattach.DeviceIntent {
		device.Addresses = append(device.Addresses, netip.MustParsePrefix("ff02::1/128"))
		return device
	}
	t.Run("a device", func(t *testing.T) {
		m := newMachine(t)
		m.device.Rules = []netattach.Rule{{Priority: 1000, Source: netip.MustParsePrefix("10.1.0.5/32"), Table: 100}}
		m.attach(t)
		if _, err := m.links.Into(context.Background(), m.pod.FD, refused(m.device)); err == nil {
			t.Fatal("the kernel takes the address; the test is void")
		}
		if present, err := Present(m.pod.FD, m.device); err != nil || !present {
			t.Errorf("it was taken from the pod: %v, %v", present, err)
		}
		there, err := open(m.pod.FD)
		if err != nil {
			t.Fatal(err)
		}
		defer there.Close()
		if err := there.haveRules(m.device.Rules); err != nil {
			t.Error(err)
		}
	})
	t.Run("a child", func(t *testing.T) {
		m := newSharedMachine(t)
		device := m.attach(t, m.pod, m.share(t, "share-1", "net1", "10.1.0.5/24"))
		if _, err := m.links.Into(context.Background(), m.pod.FD, refused(device)); err == nil {
			t.Fatal("the kernel takes the address; the test is void")
		}
		if present, err := Present(m.pod.FD, device); err != nil || !present {
			t.Errorf("it was deleted: %v, %v", present, err)
		}
		if err := m.pod.Handle.LinkDel(m.pod.Link(t, "net1")); err != nil {
			t.Fatal(err)
		}
		if _, err := m.links.Into(context.Background(), m.pod.FD, refused(device)); err == nil || m.pod.Has(t, "net1") {
			t.Errorf("one that was made for nothing is left: %v", err)
		}
	})
}
