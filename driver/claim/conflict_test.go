package claim

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/types"
	"pgregory.net/rapid"

	"github.com/hostler-dev/hostler/netattach"
)

// entryOf plans a claim for the device. Watching: with admin access.
func entryOf(t interface{ Fatal(...any) }, name string, watch bool, device [2]string) *Entry {
	c := allocated(name, device)
	if watch {
		watching(c)
	}
	entry, err := Plan(PlanInput{Claim: c, NodeName: node, Snapshot: cutMachine(migDevice()), Resolvers: []netip.Addr{}})
	if err != nil {
		t.Fatal(err)
	}
	return entry
}

func TestWhatExcludesWhat(t *testing.T) {
	const gpuA, pf, vf1, vf2 = "gpu-0000-17-00-0", "nic-0000-1d-00-0", "nic-0000-1d-00-1", "nic-0000-1d-00-2"
	for _, test := range []struct {
		name         string
		held, wanted [2]string
		conflict     bool
	}{
		{"one GPU", onGPU(gpuA), onGPU(gpuA), true},
		{"one GPU, in pools of two ways to publish", onGPU(gpuA), onAny(gpuA), true},
		{"two GPUs", onGPU(gpuA), onGPU("gpu-0000-27-00-0"), false},
		{"partitions side by side", onGPU(part1g0), onGPU(part1g1), false},
		{"one partition", onGPU(part1g0), onAny(part1g0), true},
		{"partitions of other profiles, side by side", onGPU(part1g0), onGPU(part2g4), false},
		{"partitions that share a memory slice", onGPU(part2g0), onGPU(part1g1), true},
		{"the partition of all slices", onGPU(part1g4), onGPU(part7g), true},
		{"a partition of another GPU", onGPU(part1g0), onGPU(gpuA), false},
		{"a PF and its VF", onNIC(pf), onNIC(vf1), true},
		{"VFs of one PF", onNIC(vf1), onNIC(vf2), false},
		{"a pair and its GPU", onAny(pairPlain), onAny("gpu-0000-27-00-0"), true},
		{"a pair and its NIC", onAny(pairPlain), onNIC("nic-0000-19-00-0"), true},
		{"a pair and another GPU and NIC", onAny(pairPlain), onAny(pairRDMA), false},
		{"pairs with one GPU", onAny(pairPlain), onAny("pair-0000-27-00-0-0000-18-00-0"), true},
		{"pairs with one NIC", onAny(pairPlain), onAny("pair-0000-17-00-0-0000-19-00-0"), true},
		{"pairs with VFs of one PF", onAny("pair-0000-17-00-0-0000-1d-00-1"), onAny("pair-0000-27-00-0-0000-1d-00-2"), false},
		{"a pair with a VF, and the PF", onAny("pair-0000-17-00-0-0000-1d-00-1"), onNIC(pf), true},
		{"two scopes", onEgress(), onEgress(), false},
	} {
		t.Run(test.name, func(t *testing.T) {
			holder, wanting := entryOf(t, "holder", false, test.held), entryOf(t, "wanting", false, test.wanted)
			for _, order := range [][2]*Entry{{holder, wanting}, {wanting, holder}} {
				err := conflict(order[1], map[types.UID]*Entry{order[0].ClaimUID: order[0]})
				var held *HeldError
				if errors.As(err, &held) != test.conflict {
					t.Fatalf("%v; excluded: want %v", err, test.conflict)
				}
				if !test.conflict {
					continue
				}
				for _, name := range []string{order[0].Devices[0].Name, order[1].Devices[0].Name, "team/" + order[0].ClaimName} {
					if !strings.Contains(err.Error(), name) {
						t.Errorf("%v does not name %s", err, name)
					}
				}
			}
		})
	}
}

func TestConflictsAreMutualAndSpareAdministrators(t *testing.T) {
	devices := [][2]string{
		onGPU("gpu-0000-17-00-0"), onAny("gpu-0000-17-00-0"), onGPU(part1g0), onGPU(part1g1), onGPU(part2g0), onGPU(part2g4), onGPU(part7g),
		onNIC("nic-0000-19-00-0"), onNIC("nic-0000-1d-00-0"), onNIC("nic-0000-1d-00-1"), onNIC("nic-0000-1d-00-2"),
		onAny(pairPlain), onAny(pairRDMA), onAny("pair-0000-17-00-0-0000-1d-00-1"), onAny("pair-0000-27-00-0-0000-1d-00-0"), onEgress(),
	}
	rapid.Check(t, func(t *rapid.T) {
		pick := rapid.SampledFrom(devices)
		first, second := pick.Draw(t, "first"), pick.Draw(t, "second")
		a, b := entryOf(t, "a", false, first), entryOf(t, "b", false, second)
		there, back := collision(a, b), collision(b, a)
		if (there == nil) != (back == nil) {
			t.Fatalf("%s against %s: %v, the other way round: %v", first, second, there, back)
		}
		if there != nil && (there.Device != back.HeldDevice || there.HeldDevice != back.Device) {
			t.Fatalf("%v and %v name different devices", there, back)
		}
		if first[1] == second[1] && first != onEgress() && there == nil {
			t.Fatalf("%s is held twice", first)
		}
		if d := a.Devices[0]; d.GPU != nil && d.NIC == nil {
			if watcher := entryOf(t, "a", true, first); collision(watcher, b) != nil || collision(b, watcher) != nil {
				t.Fatalf("admin access to %s is refused because of %s", first, second)
			}
		}
	})
}

// A PF and its VF could be held by two claims before they excluded each other.
func TestHeldDevicesStayHeldWhenPodsChange(t *testing.T) {
	pf, vf := entryOf(t, "pf", false, onNIC("nic-0000-1d-00-0")), entryOf(t, "vf", false, onNIC("nic-0000-1d-00-1"))
	entries := map[types.UID]*Entry{pf.ClaimUID: pf, vf.ClaimUID: vf}
	updated := *vf
	updated.Pods = []netattach.PodReference{{UID: "another", Namespace: "team", Name: "another"}}
	if err := conflict(&updated, entries); err != nil {
		t.Errorf("%v; the claim has the VF already", err)
	}
	updated.BootID = "second-boot"
	if err := conflict(&updated, entries); err == nil {
		t.Error("after a reboot the claim starts anew, and the PF is held")
	}
}
