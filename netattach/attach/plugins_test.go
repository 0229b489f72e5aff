package attach

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/hostler-dev/hostler/netattach"
)

// realPlugins is where the test cluster's CNI plugins were built, see test/cluster/binaries.
func realPlugins(t *testing.T) string {
	t.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Skipf("no cache to find CNI plugins in: %v", err)
	}
	found, err := filepath.Glob(filepath.Join(cache, "hostler", "bin", "runtime-*", "macvlan"))
	if err != nil || len(found) == 0 {
		t.Skip("the CNI plugins are not built; `make cluster-up` builds them")
	}
	return filepath.Dir(found[len(found)-1])
}

// definition is a network of plugins whose state lies in the test's own directory.
func (n *node) definition(name, iface, plugins string) netattach.NetworkIntent {
	plugins = strings.NewReplacer("STATE", filepath.Join(n.run, "state"), "MAC", n.mac).Replace(plugins)
	return netattach.NetworkIntent{Namespace: "ns", Name: name, Interface: iface,
		Config: fmt.Appendf(nil, `{"cniVersion": "1.0.0", "name": %q, "plugins": [%s]}`, name, plugins)}
}

// attachOnHost has plugins run in the host's namespace, as the agent's do.
func (n *node) attachOnHost(t *testing.T) error {
	t.Helper()
	var err error
	n.host.Do(t, func() { err = n.attacher.AttachTo(context.Background(), n.sandbox, n.pod.FD) })
	return err
}

func (n *node) leases(t *testing.T) (list []string) {
	t.Helper()
	err := filepath.WalkDir(filepath.Join(n.run, "state"), func(path string, entry fs.DirEntry, err error) error {
		if err == nil && !entry.IsDir() && entry.Name() != "lock" && !strings.HasPrefix(entry.Name(), "last_reserved_ip") {
			list = append(list, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

const ipam = `"ipam": {"type": "host-local", "dataDir": "STATE", "ranges": [[{"subnet": "10.9.0.0/24"}]]}`

// What plugins in use do in a chain, and that nothing is left of it whoever undoes it.
func TestChainsOfRealPlugins(t *testing.T) {
	bin := realPlugins(t)
	for name, test := range map[string]struct {
		iface, plugins string
		// made is the interface with the address from IPAM.
		made string
	}{
		"upon the device":          {"", `{"type": "tuning", "mtu": 1400, "dataDir": "STATE"}`, ""},
		"on top of the device":     {"mv0", `{"type": "macvlan", "master": "net1", "linkInContainer": true, ` + ipam + `}, {"type": "tuning", "mtu": 1300, "dataDir": "STATE"}`, "mv0"},
		"apart from the device":    {"br0", `{"type": "bridge", "bridge": "chain0", ` + ipam + `}`, "br0"},
		"taking the device itself": {"", `{"type": "host-device", "hwaddr": "MAC", ` + ipam + `}, {"type": "tuning", "mtu": 1400, "dataDir": "STATE"}`, "net1"},
	} {
		for _, ending := range []string{"by the hook", "by another agent", "without the namespace"} {
			t.Run(name+", undone "+ending, func(t *testing.T) {
				n := newNode(t)
				if err := os.MkdirAll(filepath.Join(n.run, "state"), 0o755); err != nil {
					t.Fatal(err)
				}
				n.bin = bin
				n.restart(t)
				n.host.Up(t, "rail0", "192.0.2.7/24")
				n.mac = n.host.Link(t, "rail0").Attrs().HardwareAddr.String()
				device := n.device(t, "rail0", "net1", "10.1.0.5/24")
				device.Networks = []netattach.NetworkIntent{n.definition("chain", test.iface, test.plugins)}
				n.claim("claim-1", scope("10.1.0.0/24", 80), device)
				before := n.host.Snapshot(t)
				for range 2 {
					if err := n.attachOnHost(t); err != nil {
						t.Fatal(err)
					}
				}
				states, err := n.attacher.InPods("claim-1")
				if err != nil || len(states) != 1 || len(states[0].Networks) != 1 {
					t.Fatalf("told of %+v, %v; want one device with one network", states, err)
				}
				var made netattach.InterfaceState
				if told := states[0].Networks[0].Interfaces; len(told) > 0 {
					made = told[0]
				}
				if test.made != "" && (made.Name != test.made || len(made.Addresses) == 0 || !strings.HasPrefix(made.Addresses[0].String(), "10.9.0.")) {
					t.Errorf("the network is told as %+v, want %s with an address of 10.9.0.0/24", states[0].Networks[0], test.made)
				}
				if known := made.Index != 0; known != (test.iface != "") {
					t.Errorf("%s has index %d on record", made.Name, made.Index)
				}
				if test.made != "" && len(n.leases(t)) == 0 {
					t.Error("no lease was taken, so that none can be seen to be given back")
				}

				if ending == "by another agent" {
					n.restart(t)
				}
				if ending == "without the namespace" {
					n.sandboxGone(t, device, test.iface)
				}
				n.host.Do(t, func() { err = n.attacher.Release(context.Background(), "claim-1") })
				if err != nil {
					t.Fatal(err)
				}
				if link, err := n.host.Handle.LinkByName("chain0"); err == nil { // which the plugin never removes
					if err := n.host.Handle.LinkDel(link); err != nil {
						t.Fatal(err)
					}
				}
				n.host.Same(t, "after the claim", before)
				left := n.leases(t)
				if ending == "without the namespace" {
					// The plugin tuning keeps its backup of an interface that it cannot look at any
					// more (plugins/meta/tuning, cmdDel); its usual place is on a tmpfs.
					left = slices.DeleteFunc(left, func(path string) bool { return strings.HasSuffix(path, ".json") })
				}
				equal(t, "leases and the like", left)
			})
		}
	}
}

// sandboxGone has the kernel return the device as it returns a physical one, and
// destroy what was made in the pod.
func (n *node) sandboxGone(t *testing.T, device netattach.DeviceIntent, made string) {
	t.Helper()
	if made != "" {
		if err := n.pod.Handle.LinkDel(n.pod.Link(t, made)); err != nil {
			t.Fatal(err)
		}
	}
	carry(t, n.pod, device.PodName, n.host, "dev7")
	if err := os.Remove(n.sandbox.NetNS); err != nil {
		t.Fatal(err)
	}
}
