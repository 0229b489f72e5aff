package nvml

import (
	"testing"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
	"github.com/google/go-cmp/cmp"

	"github.com/hostler-dev/hostler/test/nvmlsim"
	"github.com/hostler-dev/hostler/topology"
)

func TestLinksOfAPartialMesh(t *testing.T) {
	control, source := simulate(t, nvmlsim.Build, 0)
	must(t, control.Set(0, "nvlinks", `1 1 2 gpu 0000:11:00.0
2 0 2 gpu 0000:11:00.0
3 1 2 cpu 0004:00:00.0
4 1 2 other -
5 1 2 other 0000:11:00.0
7 1 2 switch 0000:00:00.0`))
	want := []topology.NVLink{
		{Link: 1, Active: true, Version: 2, Peer: topology.NVLinkPeerGPU, PeerPCI: second},
		{Link: 2, Peer: topology.NVLinkPeerUnknown}, // down: nobody knows what is there
		{Link: 3, Active: true, Version: 2, Peer: topology.NVLinkPeerCPU, PeerPCI: "0004:00:00.0"},
		{Link: 4, Active: true, Version: 2, Peer: topology.NVLinkPeerUnknown},
		{Link: 5, Active: true, Version: 2, Peer: topology.NVLinkPeerGPU, PeerPCI: second}, // by its address
		{Link: 7, Active: true, Version: 2, Peer: topology.NVLinkPeerSwitch},               // one that the node cannot see
	}
	gpus := read(t, source)
	if diff := cmp.Diff(want, gpus[0].NVLinks); diff != "" || len(gpus[0].Problems) > 0 {
		t.Errorf("%v %s", gpus[0].Problems, diff)
	}
	if len(gpus[1].NVLinks) > 0 || len(gpus[1].Problems) > 0 {
		t.Errorf("the GPU without NVLink has %v, problems %v", gpus[1].NVLinks, gpus[1].Problems)
	}

	must(t, control.Fail("nvmlDeviceGetNvLinkState", 0, nvml.ERROR_UNKNOWN))
	gpu := read(t, source)[0]
	if diff := cmp.Diff(want, gpu.NVLinks); diff != "" || len(gpu.Problems) != 1 {
		t.Errorf("a getter that fails is %d problems and costs %s", len(gpu.Problems), diff)
	}
}

// The state says that joining is over, the status beside it how it ended.
func TestAFabricThatAGPUCouldNotJoin(t *testing.T) {
	control, source := simulate(t, nvmlsim.Build, 0)
	const cluster = "000102030405060708090a0b0c0d0e0f"
	for _, c := range []struct {
		name, fabric string
		state        string
		problems     int
	}{
		{"joined", "3 7 0 " + cluster, "Completed", 0},
		{"joining failed", "3 7 0 " + cluster + " 999", topology.FabricFailed, 1},
		{"a status before the end means nothing", "2 7 0 " + cluster + " 999", "InProgress", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			must(t, control.Set(0, "fabric", c.fabric))
			gpu := read(t, source)[0]
			if gpu.Fabric == nil || gpu.Fabric.State != c.state || len(gpu.Problems) != c.problems {
				t.Errorf("the fabric is %+v with problems %v, want state %s", gpu.Fabric, gpu.Problems, c.state)
			}
		})
	}
}
