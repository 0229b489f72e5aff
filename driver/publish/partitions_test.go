package publish

import (
	"slices"
	"strings"
	"testing"

	resourceapi "k8s.io/api/resource/v1"

	"github.com/hostler-dev/hostler/api/v1alpha1"
	"github.com/hostler-dev/hostler/topology"
)

func TestWhichPartitionsAreOffered(t *testing.T) {
	media, unknown := instance(20, 0, 1), instance(99, 6, 2)
	empty := instance(9, 4, 4)
	empty.ComputeInstances = nil
	blind := migGPU("0000:17:00.0")
	blind.MIG.Capacity = topology.MIGResources{}
	for _, test := range []struct {
		name    string
		gpu     topology.GPU
		publish v1alpha1.PublishConfig
		made    string
		// want are profile and start of what is offered; of a long list its length and what is not in it.
		want   string
		length int
		not    []string
	}{
		{name: "every profile at every placement", gpu: migGPU("0000:17:00.0"), length: 25},
		{name: "only what exists, if so configured", gpu: migGPU("0000:17:00.0", instance(9, 4, 4)), publish: v1alpha1.PublishConfig{Partitions: v1alpha1.PartitionsExisting}, want: "3g-40gb-4"},
		{
			name: "beside an administrator's 3g in the upper half: it, and what fits in the lower", gpu: migGPU("0000:17:00.0", instance(9, 4, 4)),
			want: "4g-40gb-0 3g-40gb-0 3g-40gb-4 2g-20gb-0 2g-20gb-2 1g-20gb-0 1g-20gb-2 1g-10gb-0 1g-10gb-1 1g-10gb-2 1g-10gb-3 1g-10gb-me-0 1g-10gb-me-1 1g-10gb-me-2 1g-10gb-me-3",
		},
		{name: "the same instance made by this agent keeps nothing away", gpu: migGPU("0000:17:00.0", instance(9, 4, 4)), made: "3g-40gb-4", length: 25},
		{name: "no second media engine beside a foreign one", gpu: migGPU("0000:17:00.0", media), length: 1 + 1 + 2 + 3 + 6, not: []string{"1g-10gb-me-1", "1g-10gb-me-6", "7g-80gb-0", "1g-10gb-0", "4g-40gb-0"}},
		{name: "a foreign instance of an unknown profile keeps its place free", gpu: migGPU("0000:17:00.0", unknown), length: 1 + 1 + 3 + 3 + 6 + 6, not: []string{"3g-40gb-4", "1g-20gb-6", "1g-10gb-6"}},
		{name: "an instance without a compute instance is nobody's", gpu: migGPU("0000:17:00.0", empty), length: 14, not: []string{"3g-40gb-4"}},
		{name: "a GPU that does not say how much it has is limited by its memory slices", gpu: blind, length: 25},
		{name: "a GPU whose profiles cannot be read has none", gpu: topology.GPU{Name: "gpu-0000-17-00-0", MIGEnabled: true}, want: ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			prefix := "gpu-0000-17-00-0-mig-"
			in := Input{NodeName: node, Features: everything, Publish: test.publish, Snapshot: &topology.Snapshot{GPUs: []topology.GPU{test.gpu}}, Made: map[string]bool{prefix + test.made: true}}
			got := names(Resources(in), GPUPool(node), prefix)
			for i := range got {
				got[i] = strings.TrimPrefix(got[i], prefix)
			}
			if test.length == 0 && strings.Join(got, " ") != test.want || test.length > 0 && len(got) != test.length {
				t.Errorf("offered are %d: %v", len(got), got)
			}
			for _, absent := range test.not {
				if slices.Contains(got, absent) {
					t.Errorf("%s is offered", absent)
				}
			}
			if problem := poolProblem(GPUPool(node), Resources(in).Pools[GPUPool(node)], in.Features); problem != "" {
				t.Error(problem)
			}
		})
	}
}

func TestPartitionSaysWhatItIs(t *testing.T) {
	in := Input{NodeName: node, Features: everything, Snapshot: &topology.Snapshot{
		Driver: topology.Driver{Version: "570.124.06"}, GPUs: []topology.GPU{migGPU("0000:17:00.0", instance(9, 4, 4), instance(14, 0, 2))},
	}, Made: map[string]bool{"gpu-0000-17-00-0-mig-2g-20gb-0": true}}
	for _, test := range []struct{ device, attribute, want string }{
		{"3g-40gb-4", "type", "mig"},
		{"3g-40gb-4", "migProfile", "3g.40gb"},
		{"3g-40gb-4", "parentUUID", "GPU-0000:17:00.0"},
		{"3g-40gb-4", "uuid", "MIG-9-4"},
		{"2g-20gb-0", "uuid", "absent"}, // made for a claim: it would come and go
		{"1g-10gb-me-3", "migProfile", "1g.10gb+me"},
		{"1g-10gb-me-3", "uuid", "absent"},
		{"1g-10gb-me-3", "productName", "NVIDIA H100 80GB HBM3"},
		{"1g-10gb-me-3", "driverVersion", "version 570.124.6"},
		{"1g-10gb-me-3", "socket", "0"},
		{"1g-10gb-me-3", "affinityGroup", "switch-0000-15-00-0"},
		{"1g-10gb-me-3", "nvlinkFabric", "absent"},
	} {
		d := find(Resources(in), "gpu-0000-17-00-0-mig-"+test.device)
		if d == nil {
			t.Errorf("%s is not published", test.device)
		} else if got := text(*d, "hostler.dev/"+test.attribute); got != test.want {
			t.Errorf("%s of %s is %q, want %q", test.attribute, test.device, got, test.want)
		}
	}
	d := device(t, Resources(in), GPUPool(node), "gpu-0000-17-00-0-mig-1g-10gb-me-3")
	want := map[resourceapi.QualifiedName]string{"memory": "9984Mi", "computeSlices": "1", "multiprocessors": "16", "copyEngines": "1", "decoders": "1", "jpegEngines": "1", "ofaEngines": "1"}
	for name, capacity := range d.Capacity {
		short := resourceapi.QualifiedName(strings.TrimPrefix(string(name), "hostler.dev/"))
		if got := capacity.Value.String(); got != want[short] {
			t.Errorf("capacity %s is %s, want %q", short, got, want[short])
		}
	}
	if len(d.Capacity) != len(want) {
		t.Errorf("capacities are %v", d.Capacity)
	}
}

func TestPartitionIsTaintedWithItsGPU(t *testing.T) {
	of := func(device, key string) Taint {
		return Taint{Device: device, Key: "hostler.dev/" + key, Effect: resourceapi.DeviceTaintEffectNoSchedule}
	}
	const parent, child = "gpu-0000-17-00-0", "gpu-0000-17-00-0-mig-1g-10gb-0"
	resources := Resources(Input{
		NodeName: node, Features: everything, Snapshot: &topology.Snapshot{GPUs: []topology.GPU{migGPU("0000:17:00.0")}},
		Taints: []Taint{of(child, "own"), of(parent, "xid"), of(child, "xid")},
	})
	for name, want := range map[string][]string{
		parent: {"mig-mode", "xid"}, child: {"own", "xid"}, "gpu-0000-17-00-0-mig-7g-80gb-0": {"xid"},
	} {
		var got []string
		for _, taint := range device(t, resources, GPUPool(node), name).Taints {
			got = append(got, strings.TrimPrefix(taint.Key, "hostler.dev/"))
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s has the taints %v, want %v", name, got, want)
		}
	}
}
