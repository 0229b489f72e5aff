package claim

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/hostler-dev/hostler/topology"
)

// Drivers that are loaded again may give a GPU or an RDMA device the number that
// another one had.
func TestRepeatedPrepareFollowsRenumberedDevices(t *testing.T) {
	directory := t.TempDir()
	r := newRoom(t, directory, boot)
	c := allocated("c", onAny(pairRDMA))
	spec := func() string {
		t.Helper()
		if _, err := r.prepare(c); err != nil {
			t.Fatal(err)
		}
		raw, err := os.ReadFile(r.cdi.File(c.UID))
		if err != nil {
			t.Fatal(err)
		}
		_, edits, _ := strings.Cut(string(raw), `"devices"`)
		return edits
	}
	if before := spec(); !strings.Contains(before, "MINOR=0") || !strings.Contains(before, "uverbs0") {
		t.Fatalf("spec is %s", before)
	}
	if err := os.WriteFile(filepath.Join(directory, "dev", "infiniband", "uverbs7"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	now := *r.snapshot
	now.GPUs, now.NICs = slices.Clone(now.GPUs), slices.Clone(now.NICs)
	now.GPUs[0].Minor = 5
	now.NICs[0].RDMA = &topology.RDMADevice{Name: "mlx5_0", CharDevices: []string{"/dev/infiniband/uverbs7"}}
	r.snapshot = &now
	if after := spec(); !strings.Contains(after, "MINOR=5") || !strings.Contains(after, "uverbs7") || strings.Contains(after, "uverbs0") {
		t.Errorf("spec is %s", after)
	}
	// In a pod, and with its GPU's driver gone, the device keeps what it had.
	now.GPUs, now.NICs[0].RDMA = nil, nil
	if after := spec(); !strings.Contains(after, "MINOR=0") || !strings.Contains(after, "uverbs0") {
		t.Errorf("spec is %s", after)
	}
}
