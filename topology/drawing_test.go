package topology_test

import (
	"bytes"
	"encoding/xml"
	"errors"
	"flag"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/hostler-dev/hostler/topology"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// The picture of a partial mesh, with a pod that holds a GPU and a NIC, a fault and a lost GPU.
func TestPictureOfAPartialMeshWithHoldersAndFaults(t *testing.T) {
	s := dgx1()
	s.GPUs[5].Lost = true
	s.NICs[1].Uplink = "carries the default route 0.0.0.0/0 via ib1"
	train := []topology.Holder{{Claim: "research/train-0-devices-x7k2p", Pods: []string{"research/train-0"}}}
	options := topology.DrawOptions{
		Title:   "node-1",
		Holders: map[string][]topology.Holder{"gpu-0000-06-00-0": train, "gpu-0000-07-00-0": train, "nic-0000-05-00-0": train},
		Faults:  map[string][]string{"gpu-0000-89-00-0": {"XID 79"}, "nic-0000-8b-00-0": {"port down"}},
	}
	allGolden(t, "dgx1", s, options)
}

// allGolden compares every drawing of a machine with its golden file.
func allGolden(t *testing.T, name string, s *topology.Snapshot, options topology.DrawOptions) {
	golden(t, name+".svg", func(w io.Writer) error { return topology.WriteSVG(w, s, options) })
	golden(t, name+".matrix.txt", func(w io.Writer) error { return topology.WriteMatrix(w, s, options) })
	golden(t, name+".tree.txt", func(w io.Writer) error { return topology.WriteTree(w, s, options) })
	golden(t, name+".dot", func(w io.Writer) error { return topology.WriteDOT(w, s, options) })
}

// A PF's 128 VFs are one strip, one row and one line, unless somebody holds one or one is faulty.
func TestDrawingsOfTwoThousandVFs(t *testing.T) {
	s := sixteenPFs()
	options := topology.DrawOptions{Title: "node-2", Holders: map[string][]topology.Holder{}, Faults: map[string][]string{}}
	for i := range s.NICs {
		if nic := &s.NICs[i]; nic.Kind == topology.VF && (nic.VFID == 3 || nic.VFID == 17+i%97) {
			options.Holders[nic.Name] = []topology.Holder{{Claim: "web/net", Pods: []string{"web/proxy"}}}
		}
	}
	options.Faults["nic-0000-11-02-6"] = []string{"no carrier"}
	allGolden(t, "sixteen-pfs", s, options)
}

func TestVFsHaveRowsWhereAskedFor(t *testing.T) {
	s := sixteenPFs()
	var matrix, tree bytes.Buffer
	if err := topology.WriteMatrix(&matrix, s, topology.DrawOptions{VFs: true}); err != nil {
		t.Fatal(err)
	}
	if err := topology.WriteTree(&tree, s, topology.DrawOptions{VFs: true}); err != nil {
		t.Fatal(err)
	}
	row := regexp.MustCompile(`(?m)^NIC2v127 +NODE +NODE +PIX`)
	if !row.MatchString(matrix.String()) {
		t.Errorf("the last VF of NIC2 has no row that says that it is near its PF:\n%.2000s", matrix.String())
	}
	if n := strings.Count(matrix.String(), "\nNIC"); n != 1+16*129 {
		t.Errorf("the matrix has %d lines of NICs, want one for each function and the legend's title", n)
	}
	if n := strings.Count(tree.String(), "VF "); n != 16*128 {
		t.Errorf("the tree has %d VFs", n)
	}
}

func TestDrawingsOfPartitionsSwitchLevelsAndStackedLinks(t *testing.T) {
	s := smallCloud()
	held := topology.Partitions(&s.GPUs[2])
	options := topology.DrawOptions{
		Title: "node-3", IOMMUGroups: true,
		Holders: map[string][]topology.Holder{
			held[len(held)-2].Name: {{Claim: "ml/notebook-gpu", Pods: []string{"ml/notebook-0"}}},
			s.GPUs[4].Name:         {{Claim: "render/whole-card"}},
			"nic-0000-1d-00-0":     {{Claim: "ml/shared", Pods: []string{"ml/a", "ml/b"}}},
		},
		Faults: map[string][]string{held[7].Name: {"XID 43"}},
	}
	allGolden(t, "small-cloud", s, options)
}

func TestDrawingsOfNVLinkBridges(t *testing.T) {
	allGolden(t, "bridged", bridged(), topology.DrawOptions{Title: "node-4"})
}

func TestDrawingsOfATrayWhoseFabricIsElsewhere(t *testing.T) {
	allGolden(t, "tray", tray(), topology.DrawOptions{Title: "node-5"})
}

func golden(t *testing.T, name string, write func(io.Writer) error) {
	t.Helper()
	var got bytes.Buffer
	if err := write(&got); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got.String()); diff != "" {
		t.Errorf("%s differs (run with -update if that is meant): %s", path, diff)
	}
}

func TestAMachineWithoutDevicesHasDrawingsToo(t *testing.T) {
	s := &topology.Snapshot{Driver: topology.Driver{State: topology.DriverMissing, Message: "no NVML library"}}
	var matrix, picture bytes.Buffer
	if err := topology.WriteMatrix(&matrix, s, topology.DrawOptions{}); err != nil {
		t.Fatal(err)
	}
	if want := "No GPUs and no NICs.\n\nDriver missing: no NVML library\n"; matrix.String() != want {
		t.Errorf("matrix is %q, want %q", matrix.String(), want)
	}
	if err := topology.WriteSVG(&picture, s, topology.DrawOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := wellFormed(picture.Bytes()); err != nil {
		t.Error(err)
	}
}

func wellFormed(document []byte) error {
	decoder := xml.NewDecoder(bytes.NewReader(document))
	for {
		if _, err := decoder.Token(); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
	}
}
