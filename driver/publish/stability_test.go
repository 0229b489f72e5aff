// What is rewritten when something changes: every slice that differs is a write,
// and more than one rewrites the pool.

package publish

import (
	"fmt"
	"math/rand"
	"slices"
	"strings"
	"testing"

	resourceapi "k8s.io/api/resource/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/dynamic-resource-allocation/resourceslice"
	"pgregory.net/rapid"

	"github.com/hostler-dev/hostler/topology"
)

// In whatever order the machine, the taints and the NICs come: the same slices.
func TestOrderOfDiscoveryDoesNotMatter(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := drawInput(t)
		before, told := Resources(in), Shortfalls(in)
		random := rand.New(rand.NewSource(rapid.Int64().Draw(t, "order")))
		shuffled := *in.Snapshot
		shuffled.GPUs, shuffled.NICs, in.Taints = shuffle(random, shuffled.GPUs), shuffle(random, shuffled.NICs), shuffle(random, in.Taints)
		in.Snapshot = &shuffled
		if !apiequality.Semantic.DeepEqual(before, Resources(in)) {
			t.Fatal("another order makes other slices")
		}
		if !slices.Equal(told, Shortfalls(in)) {
			t.Fatalf("another order makes other shortfalls: %q and %q", told, Shortfalls(in))
		}
	})
}

func shuffle[T any](random *rand.Rand, list []T) []T {
	list = slices.Clone(list)
	random.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	return list
}

// drawMachine is a machine that makes sense: GPUs, of which some are in MIG mode,
// and PFs with VFs.
func drawMachine(t *rapid.T) *topology.Snapshot {
	s := dgx()
	for i := range s.GPUs {
		if rapid.Bool().Draw(t, "mig") {
			place := s.GPUs[i].Placement
			s.GPUs[i] = migGPU(place.PCI)
			s.GPUs[i].Placement = place
		}
	}
	for i := range rapid.IntRange(1, 3).Draw(t, "pfs") {
		s.NICs = append(s.NICs, withVFs(nic(fmt.Sprintf("0001:%02x:00.0", i)), rapid.IntRange(1, 128).Draw(t, "vfs"))...)
	}
	return s
}

func TestChangeOfOneVFWritesOneSlice(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := Input{NodeName: node, Features: everything, Snapshot: drawMachine(t)}
		before := Resources(in)
		vfs := slices.DeleteFunc(slices.Clone(in.Snapshot.NICs), func(n topology.NIC) bool { return n.Kind == topology.PF })
		name := vfs[rapid.IntRange(0, len(vfs)-1).Draw(t, "vf")].Name
		link := *in.Snapshot.NIC(name).Link
		link.Name = "renamed"
		in.Snapshot.NIC(name).Link = &link
		mustChange(t, before, Resources(in), 1, func(d string) bool { return strings.HasPrefix(d, in.Snapshot.NIC(name).Parent[:len("nic-0001-00-")]) })

		before = Resources(in)
		in.Taints = []Taint{{Device: name, Key: "hostler.dev/port", Effect: resourceapi.DeviceTaintEffectNoSchedule}}
		mustChange(t, before, Resources(in), 1, func(d string) bool { return d != "" })
	})
}

func TestVFThatVanishesMovesNoOther(t *testing.T) {
	in := Input{NodeName: node, Features: everything, Snapshot: &topology.Snapshot{NICs: append(withVFs(nic("0000:18:00.0"), 128), withVFs(nic("0000:19:00.0"), 128)...)}}
	before := Resources(in)
	in.Snapshot.NICs = slices.Delete(in.Snapshot.NICs, 4, 5)
	mustChange(t, before, Resources(in), 1, func(d string) bool { return strings.HasPrefix(d, "nic-0000-18-") })
}

func TestTaintOfAGPUWritesItsOwnSliceOnly(t *testing.T) {
	for _, composite := range []bool{false, true} {
		rapid.Check(t, func(t *rapid.T) {
			in := Input{NodeName: node, Features: everything, Snapshot: drawMachine(t)}
			in.Publish.CompositeDevices = composite
			before := Resources(in)
			faulty := in.Snapshot.GPUs[rapid.IntRange(0, 7).Draw(t, "gpu")]
			in.Taints = []Taint{{Device: faulty.Name, Key: "hostler.dev/xid", Value: "79", Effect: resourceapi.DeviceTaintEffectNoSchedule}}
			after := Resources(in)
			mustChange(t, before, after, 1, func(string) bool { return true })
			// The GPU, its partitions and its pairs are tainted at once, and nothing else.
			for _, pool := range after.Pools {
				for _, slice := range pool.Slices {
					for _, d := range slice.Devices {
						part := strings.HasPrefix(d.Name, faulty.Name) || strings.HasPrefix(d.Name, "pair"+strings.TrimPrefix(faulty.Name, "gpu")+"-")
						if tainted := slices.ContainsFunc(d.Taints, func(t resourceapi.DeviceTaint) bool { return t.Key == "hostler.dev/xid" }); tainted != part {
							t.Fatalf("%s tainted: %v", d.Name, tainted)
						}
					}
				}
			}
		})
	}
}

// Another number of VFs changes their own slices: the PF's slice, all counters and
// every other device stay as they are.
func TestVFCountChangesTheVFsOfThatPFOnly(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := Input{NodeName: node, Features: everything, Snapshot: drawMachine(t)}
		before := Resources(in).Pools[NICPool(node)]
		changed := *in.Snapshot
		pf := nic("0001:00:00.0")
		changed.NICs = slices.DeleteFunc(slices.Clone(changed.NICs), func(n topology.NIC) bool { return n.Name == pf.Name || n.Parent == pf.Name })
		changed.NICs = append(changed.NICs, withVFs(pf, rapid.IntRange(0, 128).Draw(t, "now"))...)
		in.Snapshot = &changed
		after := Resources(in).Pools[NICPool(node)]
		for _, slice := range append(newSlices(before, after), newSlices(after, before)...) {
			for _, d := range slice.Devices {
				if text(d, "hostler.dev/pfName") != pf.Name {
					t.Fatalf("the slice of %s changed too", d.Name)
				}
			}
			if len(slice.SharedCounters) > 0 {
				t.Fatal("counters changed")
			}
		}
	})
}

// A partition that is made, used and removed writes nothing at all.
func TestLifeOfAPartitionWritesNothing(t *testing.T) {
	in := Input{NodeName: node, Features: everything, Snapshot: &topology.Snapshot{GPUs: []topology.GPU{migGPU("0000:17:00.0")}}}
	before := Resources(in)
	name := "gpu-0000-17-00-0-mig-3g-40gb-4"
	for _, stage := range []struct {
		name        string
		made, inUse bool
		exists      bool
	}{
		{"about to be made", true, true, false}, {"made", true, true, true}, {"given back", true, false, true}, {"removed", true, false, false}, {"forgotten", false, false, false},
	} {
		in.Made, in.InUse = map[string]bool{name: stage.made}, nil
		if stage.inUse {
			in.InUse = map[string]Use{name: {Pool: GPUPool(node), GPU: "gpu-0000-17-00-0"}}
		}
		in.Snapshot.GPUs[0] = migGPU("0000:17:00.0")
		if stage.exists {
			in.Snapshot.GPUs[0] = migGPU("0000:17:00.0", instance(9, 4, 4))
		}
		if !apiequality.Semantic.DeepEqual(before, Resources(in)) {
			t.Errorf("%s: slices changed", stage.name)
		}
	}
}

// mustChange wants so many writes in all pools, none of which adds or removes a
// slice, and those to slices with such devices.
func mustChange(t interface {
	Helper()
	Fatalf(string, ...any)
}, before, after resourceslice.DriverResources, want int, only func(string) bool,
) {
	t.Helper()
	total := 0
	for name := range after.Pools {
		if len(before.Pools[name].Slices) != len(after.Pools[name].Slices) {
			t.Fatalf("pool %s had %d slices and has %d", name, len(before.Pools[name].Slices), len(after.Pools[name].Slices))
		}
		for _, slice := range changes(before.Pools[name], after.Pools[name]) {
			total++
			if len(slice.SharedCounters) > 0 || len(slice.Devices) > 0 && !only(slice.Devices[0].Name) {
				t.Fatalf("pool %s: a slice changed that should not have: %d counter sets, %d devices", name, len(slice.SharedCounters), len(slice.Devices))
			}
		}
	}
	if total != want {
		t.Fatalf("%d slices changed, want %d", total, want)
	}
}
