package topology_test

import (
	"bytes"
	"encoding/xml"
	"errors"
	"flag"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/hostler-dev/hostler/topology"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// The picture of a partial mesh, with a pod that holds a GPU and a NIC, a fault and a lost GPU.
func TestPictureOfAPartialMeshWithHoldersAndFaults(t *testing.T) {
	s := dgx1()
	s.GPUs[5].Lost = true
	s.NICs[1].Uplink = "carries the default route 0.0.0.0/0 via ib1"
	options := topology.SVGOptions{
		Title: "node-1",
		Holders: map[string]string{
			"gpu-0000-06-00-0": "research/train-0", "gpu-0000-07-00-0": "research/train-0", "nic-0000-05-00-0": "research/train-0",
		},
		Faults: map[string]string{"gpu-0000-89-00-0": "XID 79", "nic-0000-8b-00-0": "port down"},
	}
	golden(t, "dgx1.svg", func(w io.Writer) error { return topology.WriteSVG(w, s, options) })
	golden(t, "dgx1.matrix.txt", func(w io.Writer) error { return topology.WriteMatrix(w, s) })
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
	if err := topology.WriteMatrix(&matrix, s); err != nil {
		t.Fatal(err)
	}
	if want := "No GPUs and no NICs.\n\nDriver missing: no NVML library\n"; matrix.String() != want {
		t.Errorf("matrix is %q, want %q", matrix.String(), want)
	}
	if err := topology.WriteSVG(&picture, s, topology.SVGOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := wellFormed(picture.Bytes()); err != nil {
		t.Error(err)
	}
}

// Names of devices, pods and faults come from firmware and from users: whatever
// they are, the picture stays XML and nothing of them becomes markup.
func TestNoTextBreaksThePicture(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := dgx1()
		text := rapid.OneOf(rapid.String(), rapid.Just(`<script>alert("&")</script>`), rapid.Just("\x00\x1b]8;;\xff￾"))
		s.GPUs[0].ProductName = text.Draw(t, "product")
		s.NICs[0].Link = &topology.Link{Name: text.Draw(t, "link")}
		options := topology.SVGOptions{
			Title:   text.Draw(t, "title"),
			Holders: map[string]string{s.GPUs[1].Name: text.Draw(t, "holder")},
			Faults:  map[string]string{s.GPUs[2].Name: text.Draw(t, "fault")},
		}
		var picture bytes.Buffer
		if err := topology.WriteSVG(&picture, s, options); err != nil {
			t.Fatal(err)
		}
		if err := wellFormed(picture.Bytes()); err != nil {
			t.Fatal(err)
		}
		if strings.Contains(picture.String(), "<script") {
			t.Fatal("text became markup")
		}
	})
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
