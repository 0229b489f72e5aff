package metrics

// Who is charged for what: the series of hostler_claim_info for every kind of
// device that a claim can have.

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/hostler-dev/hostler/topology"
)

const pair = "pair-0000-17-00-0-0000-18-00-2"

// seriesOf are those of one family, as "label=value …" of the labels asked for that are not empty.
func seriesOf(f string, v *View, labels ...string) []string {
	var all []string
	for _, family := range specification() {
		if family.name != f {
			continue
		}
		family.collect(v, func(_ float64, values ...string) {
			var words []string
			for i, label := range family.labels {
				for _, want := range labels {
					if label == want && values[i] != "" {
						words = append(words, fmt.Sprintf("%s=%s", label, values[i]))
					}
				}
			}
			all = append(all, strings.Join(words, " "))
		})
	}
	return all
}

func TestHoldersAreAttributedToTheHardware(t *testing.T) {
	const gpu, cut, vf = "gpu-0000-17-00-0", "gpu-0000-2a-00-0", "nic-0000-18-00-2"
	for _, test := range []struct {
		name   string
		holder Holder
		want   []string
	}{
		{"a GPU", Holder{Device: gpu, GPU: gpu}, []string{"device=gpu-0000-17-00-0 uuid=GPU-aaaa allocated_device=gpu-0000-17-00-0 gpu=gpu-0000-17-00-0"}},
		{"a NIC", Holder{Device: vf, NIC: vf}, []string{"device=nic-0000-18-00-2 allocated_device=nic-0000-18-00-2"}},
		{"a partition", Holder{Device: partition, GPU: cut},
			[]string{"device=gpu-0000-2a-00-0-mig-1g-10gb-1 uuid=MIG-1111 allocated_device=gpu-0000-2a-00-0-mig-1g-10gb-1 gpu=gpu-0000-2a-00-0"}},
		{"a partition that the snapshot does not have yet", Holder{Device: cut + "-mig-1g-10gb-0", GPU: cut},
			[]string{"device=gpu-0000-2a-00-0-mig-1g-10gb-0 allocated_device=gpu-0000-2a-00-0-mig-1g-10gb-0 gpu=gpu-0000-2a-00-0"}},
		{"a pair, both halves", Holder{Device: pair, GPU: gpu, NIC: vf}, []string{
			"device=gpu-0000-17-00-0 uuid=GPU-aaaa allocated_device=pair-0000-17-00-0-0000-18-00-2 gpu=gpu-0000-17-00-0",
			"device=nic-0000-18-00-2 allocated_device=pair-0000-17-00-0-0000-18-00-2"}},
		{"a share of egress", Holder{Device: "egress"}, []string{"device=egress allocated_device=egress"}},
		{"an administrator who looks on", Holder{Device: pair, GPU: gpu, NIC: vf, AdminAccess: true}, nil},
	} {
		v := &View{Holders: []Holder{test.holder}, Partitions: partitionsOf(machine())}
		for _, g := range machine().GPUs {
			v.GPUs = append(v.GPUs, GPUView{Device: g})
		}
		if diff := cmp.Diff(test.want, seriesOf("hostler_claim_info", v, "device", "uuid", "allocated_device", "gpu")); diff != "" {
			t.Errorf("%s (-want +got):\n%s", test.name, diff)
		}
	}
}

// The kubelet names what was allocated: the pair.
func TestContainersOfAPair(t *testing.T) {
	v := &View{
		Holders: []Holder{{Device: pair, GPU: "gpu-0000-17-00-0", NIC: "nic-0000-18-00-2", Pool: "node1/device", ClaimNamespace: "team-a", ClaimName: "both",
			Pods: []Pod{{Namespace: "team-a", Name: "train-0"}}}},
		Containers: Containers{{"team-a", "train-0", "team-a", "both", "node1/device", pair}: {"main", "sidecar"}},
	}
	want := []string{
		"device=gpu-0000-17-00-0 container=main", "device=nic-0000-18-00-2 container=main",
		"device=gpu-0000-17-00-0 container=sidecar", "device=nic-0000-18-00-2 container=sidecar",
	}
	if diff := cmp.Diff(want, seriesOf("hostler_claim_info", v, "device", "container")); diff != "" {
		t.Errorf("series (-want +got):\n%s", diff)
	}
}

func TestPartitionsComeAndGoWithTheSnapshot(t *testing.T) {
	b := newBench(t)
	b.SetSnapshot(machine())
	want := []string{
		"device=gpu-0000-2a-00-0-mig-3g-40gb-4 type=mig gpu=gpu-0000-2a-00-0 profile=3g.40gb",
		"device=gpu-0000-2a-00-0-mig-1g-10gb-1 type=mig uuid=MIG-1111 gpu=gpu-0000-2a-00-0 profile=1g.10gb",
	}
	listed := func() (mig []string) {
		for _, s := range seriesOf("hostler_device_info", b.view(), "device", "type", "uuid", "gpu", "profile") {
			if strings.Contains(s, " type=mig ") {
				mig = append(mig, s)
			}
		}
		return mig
	}
	if diff := cmp.Diff(want, listed()); diff != "" {
		t.Errorf("partitions (-want +got):\n%s", diff)
	}
	whole := machine()
	whole.GPUs[1].MIG = &topology.MIG{Profiles: whole.GPUs[1].MIG.Profiles}
	b.SetSnapshot(whole)
	if got := listed(); len(got) != 0 {
		t.Errorf("still listed: %q", got)
	}
}
