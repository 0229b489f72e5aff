package host_test

// Every profile is found as it was published, and its drawings and snapshot are kept
// as files: read them to see what a machine looks like, and run with -update after a
// change that is meant to show.

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

	"github.com/hostler-dev/hostler/test/machine"
	"github.com/hostler-dev/hostler/topology"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func TestEveryMachine(t *testing.T) {
	for _, profile := range machine.Names() {
		t.Run(profile, func(t *testing.T) { golden(t, profile) })
	}
}

func golden(t *testing.T, profile string) {
	if !inOwnProcess(t) {
		return
	}
	s := simulate(t, profile, machine.RenderOptions{})
	snapshot := *s.observe(t)
	snapshot.BootID = "" // this machine's own
	snapshot.Driver.Library = strings.TrimPrefix(snapshot.Driver.Library, s.Rendered.DriverRoot)
	drawings := map[string]func(io.Writer) error{
		"matrix.txt": func(w io.Writer) error { return topology.WriteMatrix(w, &snapshot, topology.DrawOptions{}) },
		"tree.txt":   func(w io.Writer) error { return topology.WriteTree(w, &snapshot, topology.DrawOptions{}) },
		"yaml":       func(w io.Writer) error { return topology.WriteYAML(w, &snapshot) },
		"svg":        func(w io.Writer) error { return topology.WriteSVG(w, &snapshot, topology.DrawOptions{Title: profile}) },
	}
	if len(snapshot.NICs) > 1000 {
		delete(drawings, "yaml") // nobody reads two thousand VFs that differ in their numbers
	}
	for suffix, draw := range drawings {
		var got bytes.Buffer
		if err := draw(&got); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join("testdata", profile+"."+suffix)
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
			t.Errorf("%s differs from its golden file (run with -update if that is meant): %s", path, diff)
		}
	}
	wellFormed(t, filepath.Join("testdata", profile+".svg"))
}

func wellFormed(t *testing.T, path string) {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	decoder := xml.NewDecoder(bytes.NewReader(raw))
	for {
		_, err := decoder.Token()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatalf("%s is not well-formed: %v", path, err)
		}
	}
}
