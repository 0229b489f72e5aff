package e2e

// A bed is a node with its simulated machine, and what both say themselves: netdevs,
// journal, partitions. It looks past the agent, so that that cannot vouch for itself.

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"github.com/hostler-dev/hostler/test/cluster"
	"github.com/hostler-dev/hostler/test/machine"
	"github.com/hostler-dev/hostler/test/nvmlsim"
	"github.com/hostler-dev/hostler/topology"
)

type bed struct {
	cluster.Node
	// machine is the profile, index the number from which its identities are derived.
	machine string
	index   int
}

type gpu struct {
	Index, Minor int
	UUID         string
}

// nvml is where the node's GPUs are broken, cut and healed.
func (b *bed) nvml() nvmlsim.Control {
	return nvmlsim.Control{Dir: filepath.Join(b.MachineRoot, "driver", "nvmlsim")}
}

// gpu looks the device up in the profile that the node was rendered from.
func (b *bed) gpu(t *testing.T, device string) gpu {
	t.Helper()
	p := b.profile(t)
	for i, g := range p.GPUs {
		if topology.GPUName(g.PCI) == device {
			return gpu{Index: i, Minor: g.Minor, UUID: p.GPUUUID(b.index, g.PCI)}
		}
	}
	t.Fatalf("profile %s has no GPU %s", b.machine, device)
	return gpu{}
}

func (b *bed) profile(t *testing.T) *machine.Profile {
	t.Helper()
	p, err := machine.Load(b.machine)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// links maps the names of the node's simulated NICs to "address state mtu".
func (b *bed) links() (map[string]string, error) {
	ns, err := netns.GetFromPath(b.NetNS)
	if err != nil {
		return nil, fmt.Errorf("opening the node's network namespace %s: %w", b.NetNS, err)
	}
	defer ns.Close()
	handle, err := netlink.NewHandleAt(ns)
	if err != nil {
		return nil, err
	}
	defer handle.Close()
	list, err := handle.LinkList()
	if err != nil {
		return nil, err
	}
	p, err := machine.Load(b.machine)
	if err != nil {
		return nil, err
	}
	claimable := map[string]bool{}
	for _, name := range p.NetdevNames() {
		claimable[name] = true
	}
	links := map[string]string{}
	for _, link := range list {
		if a := link.Attrs(); claimable[a.Name] {
			links[a.Name] = fmt.Sprintf("%s up=%t mtu=%d", a.HardwareAddr, a.RawFlags&1 != 0, a.MTU)
		}
	}
	return links, nil
}

func (b *bed) linksEqual(want map[string]string) error {
	got, err := b.links()
	if err != nil {
		return err
	}
	for name, state := range want {
		if got[name] != state {
			return fmt.Errorf("netdev %s is %q, was %q", name, got[name], state)
		}
	}
	return nil
}

// journalEntries lists the claims that the agent's journal holds.
func (b *bed) journalEntries() ([]string, error) {
	raw, err := os.ReadFile(filepath.Join(b.Root, "lib/hostler/journal"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	_, body, _ := bytes.Cut(raw, []byte("\n")) // the first line is the checksum
	var journal struct {
		Entries []struct{ ClaimNamespace, ClaimName string }
	}
	if err := json.Unmarshal(body, &journal); err != nil {
		return nil, fmt.Errorf("reading the agent's journal: %w", err)
	}
	var claims []string
	for _, entry := range journal.Entries {
		claims = append(claims, entry.ClaimNamespace+"/"+entry.ClaimName)
	}
	return claims, nil
}
