package publish

import (
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	resourceapi "k8s.io/api/resource/v1"

	"github.com/hostler-dev/hostler/topology"
)

func TestPairsOfADGX(t *testing.T) {
	resources := Resources(Input{NodeName: node, Features: everything, Publish: withPairs, Snapshot: dgx()})
	if _, ok := resources.Pools[GPUPool(node)]; ok || len(resources.Pools) != 2 {
		t.Errorf("pools are %v; GPUs, NICs and pairs have to share one", resources.Pools)
	}
	pairs := names(resources, DevicePool(node), "pair-")
	if len(pairs) != 8 || pairs[0] != "pair-0000-13-00-0-0000-15-00-0" {
		t.Fatalf("pairs are %v", pairs)
	}
	// Whatever is tainted together changes in one write.
	if n := len(resources.Pools[DevicePool(node)].Slices); n != 3+1 {
		t.Errorf("%d slices, want 3 of counter sets (8 GPUs and 10 NICs) and 1 of devices", n)
	}
	d := *find(resources, pairs[0])
	for name, want := range map[string]string{
		"hostler.dev/type": "pair", "hostler.dev/gpuName": "gpu-0000-13-00-0", "hostler.dev/nicName": "nic-0000-15-00-0", "hostler.dev/distance": "PIX",
		"hostler.dev/uuid": "GPU-0000:13:00.0", "hostler.dev/nvlinkIsland": "gpu-0000-13-00-0", "hostler.dev/ifName": "eth0", "hostler.dev/rdmaDevice": "mlx5_0",
		"hostler.dev/linkSpeed": "400000", "hostler.dev/rail": "0", "k8s.cni.cncf.io/deviceID": "0000:15:00.0", "resource.kubernetes.io/pciBusID": "0000:13:00.0",
		"resource.kubernetes.io/numaNode": "0",
	} {
		if got := text(d, name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	memory, bandwidth := d.Capacity["hostler.dev/memory"].Value, d.Capacity["hostler.dev/bandwidth"].Value
	if memory.String() != "80Gi" || bandwidth.String() != "400G" {
		t.Errorf("capacities are memory %s and bandwidth %s", memory.String(), bandwidth.String())
	}
}

func TestPairIsTaintedWithBothHalves(t *testing.T) {
	s := dgx()
	taint := func(device, key string, effect resourceapi.DeviceTaintEffect) Taint {
		return Taint{Device: device, Key: key, Effect: effect}
	}
	resources := Resources(Input{NodeName: node, Features: everything, Publish: withPairs, Snapshot: s, Taints: []Taint{
		taint(s.GPUs[0].Name, "hostler.dev/xid", "NoSchedule"), taint(s.GPUs[0].Name, "hostler.dev/pcie", "NoSchedule"),
		taint(s.NICs[0].Name, "hostler.dev/pcie", "NoSchedule"), taint(s.NICs[0].Name, "hostler.dev/port", "NoExecute"),
	}})
	var got []string
	for _, t := range find(resources, "pair-0000-13-00-0-0000-15-00-0").Taints {
		got = append(got, t.Key)
	}
	if want := []string{"hostler.dev/port", "hostler.dev/pcie", "hostler.dev/xid"}; !slices.Equal(got, want) {
		t.Errorf("taints are %v, want %v", got, want)
	}
}

func TestPairWithAHeldNICStaysAsItWas(t *testing.T) {
	const pair = "pair-0000-13-00-0-0000-15-00-0"
	in := Input{NodeName: node, Features: everything, Publish: withPairs, Snapshot: dgx()}
	before := Resources(in)
	in.Held, in.InUse = map[string]topology.NIC{in.Snapshot.NICs[0].Name: in.Snapshot.NICs[0]},
		map[string]Use{pair: {Pool: DevicePool(node), GPU: in.Snapshot.GPUs[0].Name, NIC: in.Snapshot.NICs[0].Name}}
	in.Snapshot.NICs[0].Link = nil
	if diff := cmp.Diff(before, Resources(in)); diff != "" {
		t.Errorf("the netdev is in the pod, and slices changed:\n%s", diff)
	}
}

// A pair that is in use keeps its entry, and with it its counters, when the graph
// would match its GPU with another NIC by now.
func TestFormerPairInUseStays(t *testing.T) {
	const former = "pair-0000-17-00-0-0000-18-00-0"
	in := Input{NodeName: node, Features: everything, Publish: withPairs, InUse: map[string]Use{former: {GPU: "gpu-0000-17-00-0", NIC: "nic-0000-18-00-0"}}, Snapshot: &topology.Snapshot{
		GPUs: []topology.GPU{gpu("0000:17:00.0")}, NICs: withVFs(nic("0000:18:00.0"), 2),
	}}
	resources := Resources(in)
	if pairs := names(resources, DevicePool(node), "pair-"); !slices.Equal(pairs, []string{former, "pair-0000-17-00-0-0000-18-01-0"}) {
		t.Fatalf("pairs are %v", pairs)
	}
	takes := find(resources, former).ConsumesCounters
	if len(takes) != 2 || takes[0].CounterSet != "gpu-0000-17-00-0" || takes[1].CounterSet != "nic-0000-18-00-0" {
		t.Errorf("it takes %v", takes)
	}
	in.InUse = nil
	if pairs := names(Resources(in), DevicePool(node), "pair-"); len(pairs) != 1 {
		t.Errorf("after it was given back, pairs are %v", pairs)
	}
}

// A PF's counter set has room for 31 VFs beside its functions.
func TestNoMorePairsAtOnePFThanCanBeCounted(t *testing.T) {
	s := &topology.Snapshot{NICs: withVFs(nic("0001:18:00.0"), 40)}
	for i := range 40 {
		s.GPUs = append(s.GPUs, gpu(fmt.Sprintf("0000:%02x:00.0", i)))
	}
	in := Input{NodeName: node, Features: everything, Publish: withPairs, Snapshot: s}
	pool := Resources(in).Pools[DevicePool(node)]
	if problem := poolProblem(DevicePool(node), pool, in.Features); problem != "" {
		t.Error(problem)
	}
	if pairs, told := names(Resources(in), DevicePool(node), "pair-"), Shortfalls(in); len(pairs) != maxPairedVFs || len(told) != 40-maxPairedVFs {
		t.Errorf("%d pairs are published, and %d sentences say what is not", len(pairs), len(told))
	}
}

// Pairs, GPUs and PFs share a slice: a pair is never free for a moment while one of
// its halves is known to be faulty, and the pool is not rewritten.
func TestTaintOfAPairedNICWritesOneSlice(t *testing.T) {
	in := Input{NodeName: node, Features: everything, Publish: withPairs, Snapshot: dgx()}
	before := Resources(in)
	in.Taints = []Taint{{Device: in.Snapshot.NICs[3].Name, Key: "hostler.dev/port", Effect: resourceapi.DeviceTaintEffectNoSchedule}}
	after := Resources(in)
	mustChange(t, before, after, 1, func(string) bool { return true })
	for _, name := range []string{in.Snapshot.NICs[3].Name, "pair-0000-43-00-0-0000-45-00-0"} {
		if d := find(after, name); len(d.Taints) != 1 {
			t.Errorf("%s has the taints %v", name, d.Taints)
		}
	}
}
