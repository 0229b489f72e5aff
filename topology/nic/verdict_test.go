package nic

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/hostler-dev/hostler/topology"
)

// The machine was read a moment ago; these are what may have changed since.
func TestTheLastLook(t *testing.T) {
	for _, c := range []struct {
		name    string
		network *namespace
		nic     string
		link    string // by which the NIC was known
		want    string
	}{
		{"nothing changed", ports().route("0.0.0.0/0", 0, "p0"), "nic-0000-11-00-0", "p1", ""},
		{"a default route came", ports().route("0.0.0.0/0", 0, "p0", "p1"), "nic-0000-11-00-0", "p1", "carries the default route 0.0.0.0/0 via p1"},
		{"a default route came over a stack", ports().link("b", "bridge", "", "").port("p1", "b").route("0.0.0.0/0", 0, "b"), "nic-0000-11-00-0", "p1",
			"is stacked with b and through it carries the default route 0.0.0.0/0 via b"},
		{"the name belongs to another function", ports().route("0.0.0.0/0", 0, "p0"), "nic-0000-11-00-0", "p2",
			"was known as p2, a name that now belongs to the PCI function 0000:12:00.0: which netdev is whose has changed since the machine was read"},
		{"the name belongs to a bridge", ports().link("old", "bridge", "", "").route("0.0.0.0/0", 0, "p0"), "nic-0000-11-00-0", "old",
			"was known as old, a name that now belongs to a netdev without PCI function (bridge): which netdev is whose has changed since the machine was read"},
		{"the netdev has another name now", ports().route("0.0.0.0/0", 0, "p0"), "nic-0000-11-00-0", "eth1", ""},
		{"the netdev has another name and carries the default route", ports().route("0.0.0.0/0", 0, "p1"), "nic-0000-11-00-0", "eth1", "carries the default route 0.0.0.0/0 via p1"},
		{"the PF of a VF carries it", ports().route("0.0.0.0/0", 0, "p2"), "nic-0000-12-00-1", "p2v0", "is a VF of nic-0000-12-00-0, which carries the default route 0.0.0.0/0 via p2"},
		{"a VF of the PF carries it", ports().route("0.0.0.0/0", 0, "p2v1"), "nic-0000-12-00-0", "p2", "is the PF of nic-0000-12-00-2, which carries the default route 0.0.0.0/0 via p2v1"},
		{"a sibling VF carries it", ports().route("0.0.0.0/0", 0, "p2v1"), "nic-0000-12-00-1", "p2v0", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			root, tree := hardware(t)
			reader := New(Config{Sys: root, Dev: t.TempDir(), Kernel: c.network})
			var asked []topology.NIC
			for _, nic := range read(t.Context(), reader, tree) {
				if nic.Name == c.nic {
					nic.Link = &topology.Link{Name: c.link}
					asked = append(asked, nic)
				}
			}
			got, err := reader.Uplinks(t.Context(), asked)
			if err != nil {
				t.Fatal(err)
			}
			if got[c.nic] != c.want || len(asked) != 1 || len(got) > 1 {
				t.Errorf("it %q, want %q", got[c.nic], c.want)
			}
		})
	}
}

func TestTheLastLookFailsClosed(t *testing.T) {
	root, tree := hardware(t)
	n := ports().route("0.0.0.0/0", 0, "p0")
	reader := New(Config{Sys: root, Dev: t.TempDir(), Kernel: n})
	nics := read(t.Context(), reader, tree)
	n.routesErr = fmt.Errorf("list the node's routes: %w", errors.New("operation not permitted"))
	if got, err := reader.Uplinks(t.Context(), nics); got != nil || err == nil || !strings.Contains(err.Error(), "operation not permitted") {
		t.Errorf("it says %v, %v", got, err)
	}
}
