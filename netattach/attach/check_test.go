package attach

// What CNI plugins say when the next agent asks them for what they made.

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/types"

	"github.com/hostler-dev/hostler/netattach"
)

// reconciled has another agent begin and look twice, in the host's namespace, and returns
// what it tells of the plugins' answers.
func (n *node) reconciled(t *testing.T) (told []string) {
	t.Helper()
	n.restart(t)
	n.attacher.cfg.Checked = func(pod netattach.PodReference, claim types.UID, wrong string) {
		told = append(told, string(pod.UID)+" "+string(claim)+": "+wrong)
	}
	for range 2 {
		n.reconcile(t)
	}
	return told
}

func (n *node) reconcile(t *testing.T) {
	t.Helper()
	n.host.Do(t, func() {
		if err := errors.Join(n.attacher.Reconcile(context.Background()), n.attacher.CheckAdopted(context.Background())); err != nil {
			t.Error(err)
		}
	})
}

// faults are those on record, of all networks of all devices.
func (n *node) faults(t *testing.T) (list []string) {
	t.Helper()
	states, err := n.attacher.InPods("claim-1")
	if err != nil {
		t.Fatal(err)
	}
	for _, state := range states {
		for _, network := range state.Networks {
			if network.Fault != "" {
				list = append(list, network.Fault)
			}
		}
	}
	return list
}

func (n *node) withRealPlugins(t *testing.T, iface, plugins string) netattach.DeviceIntent {
	t.Helper()
	n.bin = realPlugins(t)
	if err := os.MkdirAll(filepath.Join(n.run, "state"), 0o755); err != nil {
		t.Fatal(err)
	}
	n.host.Up(t, "rail0", "192.0.2.7/24")
	n.mac = n.host.Link(t, "rail0").Attrs().HardwareAddr.String()
	n.restart(t)
	device := n.device(t, "rail0", "net1", "10.1.0.5/24")
	device.Networks = []netattach.NetworkIntent{n.definition("chain", iface, plugins)}
	return device
}

func TestNextAgentAsksThePlugins(t *testing.T) {
	const macvlan = `{"type": "macvlan", "master": "net1", "linkInContainer": true, ` + ipam + `}`
	for name, test := range map[string]struct {
		iface, plugins string
		change         func(t *testing.T, n *node)
		says           string // "" if all is well
	}{
		"all of a macvlan is there":     {"mv0", macvlan, func(*testing.T, *node) {}, ""},
		"a device that a chain brought": {"", `{"type": "host-device", "hwaddr": "MAC", ` + ipam + `}, {"type": "tuning", "mtu": 1400, "dataDir": "STATE"}`, func(*testing.T, *node) {}, ""},
		"a port of a bridge":            {"br0", `{"type": "bridge", "bridge": "chain0", ` + ipam + `}`, func(*testing.T, *node) {}, ""},
		"a lease is lost": {"mv0", macvlan, func(t *testing.T, n *node) {
			for _, lease := range n.leases(t) {
				if err := os.Remove(lease); err != nil {
					t.Fatal(err)
				}
			}
		}, "host-local"},
		"an MTU was changed": {"", `{"type": "tuning", "mtu": 1400, "dataDir": "STATE"}`, func(t *testing.T, n *node) {
			if err := n.pod.Handle.LinkSetMTU(n.pod.Link(t, "net1"), 1300); err != nil {
				t.Fatal(err)
			}
		}, "1300"},
		"the cache is lost": {"mv0", macvlan, func(t *testing.T, n *node) {
			if err := os.RemoveAll(filepath.Join(n.run, "cni")); err != nil {
				t.Fatal(err)
			}
		}, "the CNI cache has nothing"},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			n.claim("claim-1", nil, n.withRealPlugins(t, test.iface, test.plugins))
			if err := n.attachOnHost(t); err != nil {
				t.Fatal(err)
			}
			defer n.host.Do(t, func() { n.release(t) })
			n.reconcile(t)
			if faults := n.faults(t); len(faults) != 0 {
				t.Errorf("the agent that attached it asks: %v", faults)
			}
			test.change(t, n)
			told := n.reconciled(t)
			faults := n.faults(t)
			if test.says == "" {
				if len(told)+len(faults) != 0 {
					t.Errorf("told %v, on record %v; want nothing", told, faults)
				}
				return
			}
			if len(told) != 1 || len(faults) != 1 || !strings.Contains(faults[0], test.says) || !strings.Contains(faults[0], "ns/chain") || !strings.HasPrefix(told[0], "pod-1 claim-1: ") || !strings.HasSuffix(told[0], faults[0]) {
				t.Errorf("told %v, on record %v; want once that %q", told, faults, test.says)
			}
			if !n.pod.Has(t, "net1") || n.recordCount(t) != 1 {
				t.Error("the pod was taken its device")
			}
		})
	}
}

// checking is a plugin that fails CHECK while the file is there.
func (n *node) checking(t *testing.T) (fails string) {
	t.Helper()
	fails = filepath.Join(n.run, "fails")
	n.plugin(t, "asked", `true
elif [ "$CNI_COMMAND" = CHECK ] && [ -e `+fails+` ]; then
echo '{"cniVersion": "1.0.0", "code": 11, "msg": "the lease is lost"}'; exit 1
fi
if [ "$CNI_COMMAND" = ADD ]; then`)
	return fails
}

func TestPluginsAreAskedAgainUntilAllIsWell(t *testing.T) {
	n := newNode(t)
	fails := n.checking(t)
	n.claim("claim-1", nil, n.withNetworks(t, "rail0", "net1", "10.1.0.5/24", network("a", "", "asked"), network("b", "mv0", "asked")))
	n.attach(t)
	if err := os.WriteFile(fails, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	n.called(t)
	told := n.reconciled(t)
	if len(told) != 1 || strings.Count(told[0], "the lease is lost") != 2 || len(n.faults(t)) != 2 {
		t.Errorf("told %v, on record %v; want both networks, once", told, n.faults(t))
	}
	equal(t, "two looks", n.called(t), "asked CHECK net1", "asked CHECK mv0", "asked CHECK net1", "asked CHECK mv0")
	n.attach(t) // which a container of another claim may bring about
	if len(n.faults(t)) != 2 {
		t.Errorf("forgotten, with nothing mended: %v", n.faults(t))
	}
	if err := os.Remove(fails); err != nil {
		t.Fatal(err)
	}
	told = nil
	n.attacher.cfg.Checked = func(_ netattach.PodReference, _ types.UID, wrong string) { told = append(told, wrong) }
	for range 2 {
		n.reconcile(t)
	}
	if !slices.Equal(told, []string{""}) || len(n.faults(t)) != 0 {
		t.Errorf("told %q, on record %v; want once that all is well", told, n.faults(t))
	}
	equal(t, "until all is well", n.called(t), "asked CHECK net1", "asked CHECK mv0")
}

func TestPluginsAreNotAskedForWhatTheAgentChanged(t *testing.T) {
	const tuning = `{"type": "tuning", "mtu": 1400, "dataDir": "STATE"}`
	t.Run("the hardware address of a device that a chain brought", func(t *testing.T) {
		n := newNode(t)
		device := n.withRealPlugins(t, "", `{"type": "host-device", "hwaddr": "MAC", `+ipam+`}, `+tuning)
		device.HardwareAddress = "02:00:5e:10:00:01"
		n.claim("claim-1", nil, device)
		if err := n.attachOnHost(t); err != nil {
			t.Fatal(err)
		}
		defer n.host.Do(t, func() { n.release(t) })
		if told := n.reconciled(t); len(told) != 0 {
			t.Errorf("told %v", told)
		}
	})
	t.Run("the pod's default route", func(t *testing.T) {
		n := newNode(t)
		device := n.withRealPlugins(t, "mv0", `{"type": "macvlan", "master": "net1", "linkInContainer": true, "ipam": {"type": "host-local", "dataDir": "STATE", "ranges": [[{"subnet": "10.9.0.0/24", "gateway": "10.9.0.1"}]], "routes": [{"dst": "0.0.0.0/0"}]}}`)
		tuned := n.definition("tuned", "", tuning)
		tuned.DefaultRoute = append(tuned.DefaultRoute, device.Addresses[0].Addr().Next())
		device.Networks = append(device.Networks, tuned)
		n.claim("claim-1", nil, device)
		if err := n.attachOnHost(t); err != nil {
			t.Fatal(err)
		}
		defer n.host.Do(t, func() { n.release(t) })
		if told := n.reconciled(t); len(told) != 0 {
			t.Errorf("told %v", told)
		}
	})
}
