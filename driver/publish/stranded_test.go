package publish

import (
	"slices"
	"strings"
	"testing"

	"github.com/hostler-dev/hostler/topology"
)

func TestWhatAClaimHasUnseenIsNotOffered(t *testing.T) {
	const pair = "pair-0000-17-00-0-0000-19-00-0"
	gpuPool, nicPool, devicePool := GPUPool(node), NICPool(node), DevicePool(node)
	withoutGPU, outOfMIGMode := crowded(), crowded()
	withoutGPU.GPUs = withoutGPU.GPUs[1:]
	outOfMIGMode.GPUs[1] = gpu("0000:27:00.0")
	for _, test := range []struct {
		name        string
		snapshot    *topology.Snapshot
		composite   bool
		device      string
		use         Use
		there, gone []string
	}{
		{"nothing is unseen", crowded(), true, pair, Use{Pool: devicePool, GPU: plainGPU, NIC: plainNIC}, []string{pair, plainGPU, plainNIC, existing}, nil},
		{"a pair, and pairs are not offered any more", crowded(), false, pair, Use{Pool: devicePool, GPU: plainGPU, NIC: plainNIC}, []string{existing, sriovPF, firstVF}, []string{pair, plainGPU, plainNIC}},
		{"a pair whose GPU was unplugged", withoutGPU, true, pair, Use{Pool: devicePool, GPU: plainGPU, NIC: plainNIC}, []string{existing, sriovPF, firstVF}, []string{pair, plainNIC}},
		{"a GPU from before pairs were offered", crowded(), true, plainGPU, Use{Pool: gpuPool, GPU: plainGPU}, []string{plainNIC, firstVF, existing}, []string{plainGPU, plainPair}},
		{"a VF from before pairs were offered", crowded(), true, firstVF, Use{Pool: nicPool, NIC: firstVF}, []string{plainGPU, "nic-0000-18-01-1"}, []string{firstVF, sriovPF, plainPair}},
		{"a PF from before pairs were offered", crowded(), true, sriovPF, Use{Pool: nicPool, NIC: sriovPF}, []string{plainGPU, plainNIC}, []string{firstVF, sriovPF, plainPair}},
		{"a partition from before pairs were offered", crowded(), true, unmade, Use{Pool: gpuPool, GPU: migmodeGPU},
			[]string{plainGPU, existing, "gpu-0000-27-00-0-mig-1g-10gb-1"}, []string{unmade, migmodeGPU, "gpu-0000-27-00-0-mig-2g-20gb-0"}},
		{"a partition of a GPU that was taken out of MIG mode", outOfMIGMode, false, unmade, Use{Pool: gpuPool, GPU: migmodeGPU}, []string{plainGPU}, []string{migmodeGPU}},
	} {
		t.Run(test.name, func(t *testing.T) {
			in := Input{NodeName: node, Features: everything, Snapshot: test.snapshot, InUse: map[string]Use{test.device: test.use}}
			in.Publish.CompositeDevices = test.composite
			if nic := test.snapshot.NIC(test.use.NIC); nic != nil {
				in.Held = map[string]topology.NIC{nic.Name: *nic}
			}
			resources := Resources(in)
			for _, name := range test.there {
				if find(resources, name) == nil {
					t.Errorf("%s is not published", name)
				}
			}
			for _, name := range test.gone {
				if find(resources, name) != nil {
					t.Errorf("%s is published", name)
				}
			}
			told := slices.ContainsFunc(Shortfalls(in), func(s string) bool { return strings.Contains(s, test.device) })
			if told != (len(test.gone) > 0) {
				t.Errorf("shortfalls are %v", Shortfalls(in))
			}
		})
	}
}
