package nvml

import (
	"errors"
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

// Reading a link in full takes four calls, and there are 18 links on a GPU.
func TestALinkIsReadInFullOnce(t *testing.T) {
	control, source := simulate(t, nvmlsim.Build, 0)
	up := topology.NVLink{Link: 0, Active: true, Version: 4, Peer: topology.NVLinkPeerSwitch, PeerPCI: "0000:07:00.0"}
	down := topology.NVLink{Link: 0, Peer: topology.NVLinkPeerUnknown}
	peerUnknown := up
	peerUnknown.Peer = topology.NVLinkPeerUnknown
	for _, step := range []struct {
		name     string
		do       func() error
		want     []topology.NVLink
		problems int
	}{
		{"a GPU that denies all links may have some later", func() error { return control.Set(0, "nvlinks", "40 1 4 switch 0000:07:00.0") }, nil, 0},
		{"what could not be read is missing", func() error {
			return errors.Join(control.Set(0, "nvlinks", "0 1 4 switch 0000:07:00.0"), control.Fail("nvmlDeviceGetNvLinkRemoteDeviceType", 0, nvml.ERROR_UNKNOWN))
		}, []topology.NVLink{peerUnknown}, 1},
		{"and is asked for again", control.ClearAll, []topology.NVLink{up}, 0},
		{"what was read is not", func() error {
			return errors.Join(control.Fail("nvmlDeviceGetNvLinkRemote*", 0, nvml.ERROR_UNKNOWN), control.Fail("nvmlDeviceGetNvLinkVersion", 0, nvml.ERROR_UNKNOWN))
		}, []topology.NVLink{up}, 0},
		{"a link that goes down is seen", func() error { return control.Set(0, "nvlinks", "0 0 4 switch 0000:07:00.0") }, []topology.NVLink{down}, 0},
		{"and leads where it did when it is up again", func() error { return control.Set(0, "nvlinks", "0 1 4 switch 0000:07:00.0") }, []topology.NVLink{up}, 0},
	} {
		must(t, step.do())
		gpu := read(t, source)[0]
		if diff := cmp.Diff(step.want, gpu.NVLinks); diff != "" || len(gpu.Problems) != step.problems {
			t.Errorf("%s: %d problems, links (-want +got) %s", step.name, len(gpu.Problems), diff)
		}
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
