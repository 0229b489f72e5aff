package e2e

// A bed is a node with its simulated machine, and what both say themselves: netdevs,
// journal, partitions. It looks past the agent, so that that cannot vouch for itself.

import (
	"path/filepath"
	"testing"

	journals "github.com/hostler-dev/hostler/driver/claim"
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

// snapshot is look for tests.
func (b *bed) snapshot(t *testing.T) snapshot {
	t.Helper()
	s, err := b.look()
	must(t, err)
	return s
}

// journalEntries lists the claims that the agent's journal holds.
func (b *bed) journalEntries() ([]string, error) {
	journal, err := journals.ReadJournal(filepath.Join(b.Root, "lib/hostler/journal"))
	if err != nil {
		return nil, err
	}
	var claims []string
	for _, entry := range journal.Entries() {
		claims = append(claims, entry.ClaimNamespace+"/"+entry.ClaimName)
	}
	return claims, nil
}
