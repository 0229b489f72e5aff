package conformance

// The slices of every machine as files: read them to see what users' claims select
// from, and run with -update after a change that is meant to show.

import (
	"crypto/sha256"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"k8s.io/dynamic-resource-allocation/resourceslice"
	"sigs.k8s.io/yaml"

	"github.com/hostler-dev/hostler/api/v1alpha1"
)

func golden(t *testing.T, n *node) {
	resources := n.resources(v1alpha1.PublishConfig{})
	got := fmt.Sprintf(`# The slices of %s, with a line for each device and what all of a slice have in common said once.
# attribute=value, capacity:quantity, takes(counters), taint(key=value:effect); names are below hostler.dev/.
`, n.Profile.Name)
	if len(n.snapshot.NICs) > 1000 {
		got += outline(resources)
	} else {
		got += slicesText(resources)
	}
	if err := yaml.Unmarshal([]byte(got), &map[string]any{}); err != nil {
		t.Errorf("the text is not YAML: %v", err)
	}
	path := filepath.Join("testdata", n.Profile.Name+".slices.yaml")
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := difference(string(want), got); diff != "" {
		t.Errorf("%s differs from what is published (run with -update if that is meant):\n%s", path, diff)
	}
}

// outline of a pool that nobody reads in full: how large its slices are, the first
// device of each, and a hash over all.
func outline(resources resourceslice.DriverResources) string {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(resources.Pools)) {
		fmt.Fprintf(&b, "%s:\n", strings.TrimPrefix(name, nodeName+"/"))
		for _, slice := range resources.Pools[name].Slices {
			b.WriteString(outlineOf(slice))
		}
	}
	fmt.Fprintf(&b, "sha256: %x\n", sha256.Sum256([]byte(slicesText(resources))))
	return b.String()
}

func outlineOf(slice resourceslice.Slice) string {
	switch {
	case len(slice.SharedCounters) > 0:
		set := slice.SharedCounters[0]
		return fmt.Sprintf("- {counterSets: %d, first: %s, counters: %q}\n", len(slice.SharedCounters), set.Name, countersText(set.Counters))
	case len(slice.Devices) > 0:
		return fmt.Sprintf("- {devices: %d, first: %s}\n", len(slice.Devices), slice.Devices[0].Name)
	}
	return "- {devices: 0}\n"
}
