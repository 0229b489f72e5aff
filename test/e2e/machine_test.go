package e2e

// What the node itself says: its netdevs, its journal, its simulated machine.
// These helpers look past the agent, so that it cannot vouch for itself.

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

	"github.com/hostler-dev/hostler/test/machine"
	"github.com/hostler-dev/hostler/topology"
)

// nodeIndex is the number from which the node's machine derives its identities.
const nodeIndex = 0

type gpu struct {
	Index, Minor int
	UUID         string
}

// machineGPU looks the device up in the profile that the node was rendered from.
func machineGPU(t *testing.T, device string) gpu {
	t.Helper()
	p := profile(t)
	for i, g := range p.GPUs {
		if topology.GPUName(g.PCI) == device {
			return gpu{Index: i, Minor: g.Minor, UUID: p.GPUUUID(nodeIndex, g.PCI)}
		}
	}
	t.Fatalf("profile %s has no GPU %s", machineName, device)
	return gpu{}
}

func machineUplink(t *testing.T) string { return profile(t).UplinkName() }

func profile(t *testing.T) *machine.Profile {
	t.Helper()
	p, err := machine.Load(machineName)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func nodeLinks(t *testing.T) map[string]string {
	t.Helper()
	links, err := linksOf(node.NetNS)
	if err != nil {
		t.Fatal(err)
	}
	return links
}

// linksOf maps the names of a namespace's simulated NICs to "address state mtu".
func linksOf(path string) (map[string]string, error) {
	ns, err := netns.GetFromPath(path)
	if err != nil {
		return nil, fmt.Errorf("opening the node's network namespace %s: %w", path, err)
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
	p, err := machine.Load(machineName)
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

func linksEqual(want map[string]string) error {
	got, err := linksOf(node.NetNS)
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
func journalEntries() ([]string, error) {
	raw, err := os.ReadFile(filepath.Join(node.Root, "lib/hostler/journal"))
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
