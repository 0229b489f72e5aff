package conformance

// What changes in the slices when something changes in the machine, and what does not.

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	resourceapi "k8s.io/api/resource/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/dynamic-resource-allocation/resourceslice"

	"github.com/hostler-dev/hostler/api/v1alpha1"
	"github.com/hostler-dev/hostler/driver/publish"
	"github.com/hostler-dev/hostler/topology"
)

func sameTwice(t *testing.T, n *node) {
	again := publish.Resources(input(observe(t, n.Machine), v1alpha1.PublishConfig{}))
	if !apiequality.Semantic.DeepEqual(n.resources(v1alpha1.PublishConfig{}), again) {
		t.Errorf("an unchanged machine is published otherwise the second time:\n%s", difference(slicesText(n.resources(v1alpha1.PublishConfig{})), slicesText(again)))
	}
}

// oneFaultOneSlice breaks the last GPU and slows the last VF. A VF that is half of a
// pair would be in two slices: pairs are tainted with GPUs, VFs come and go by PF.
func oneFaultOneSlice(t *testing.T, n *node) {
	if len(n.snapshot.GPUs) > 0 {
		n.loseGPU(t, &n.snapshot.GPUs[len(n.snapshot.GPUs)-1])
	}
	for _, nic := range slices.Backward(n.snapshot.NICs) {
		if nic.Kind == topology.VF && nic.Link != nil {
			n.slowVF(t, &nic)
			break
		}
	}
}

// loseGPU makes it fall off the bus. What was known of it stays published, with the
// taint that health gives it.
func (n *node) loseGPU(t *testing.T, gpu *topology.GPU) {
	t.Helper()
	if err := n.Control.SetLost(gpu.Index, true); err != nil {
		t.Fatal(err)
	}
	lost := observe(t, n.Machine)
	if err := n.Control.SetLost(gpu.Index, false); err != nil {
		t.Fatal(err)
	}
	if seen := lost.GPU(gpu.Name); seen == nil || !seen.Lost {
		t.Fatalf("%s fell off the bus, and discovery says %+v", gpu.Name, seen)
	}
	for _, config := range []v1alpha1.PublishConfig{{}, withPairs} {
		in := input(lost, config)
		if diff := difference(slicesText(n.resources(config)), slicesText(publish.Resources(in))); diff != "" {
			t.Errorf("%s fell off the bus, and before health says anything what is published of it changed:\n%s", gpu.Name, diff)
		}
		in.Taints = []publish.Taint{{Device: gpu.Name, Key: publish.DriverName + "/lost", Effect: resourceapi.DeviceTaintEffectNoExecute}}
		oneSlice(t, gpu.Name+" fell off the bus", gpu.Name, n.resources(config), publish.Resources(in))
	}
}

// slowVF gives a VF another link speed, as an administrator does.
func (n *node) slowVF(t *testing.T, vf *topology.NIC) {
	t.Helper()
	path := filepath.Join(n.Rendered.Sys, "class", "net", vf.Link.Name, "speed")
	was, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	write := func(content []byte) {
		if err := os.WriteFile(path, content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write([]byte("10000\n"))
	slow := observe(t, n.Machine)
	write(was)
	for _, config := range []v1alpha1.PublishConfig{{}, withPairs} {
		oneSlice(t, "the speed of "+vf.Name+" changed", vf.Name, n.resources(config), publish.Resources(input(slow, config)))
	}
}

// oneSlice wants exactly the slice of that device to differ.
func oneSlice(t *testing.T, what, device string, before, after resourceslice.DriverResources) {
	t.Helper()
	var changed []resourceslice.Slice
	for name, pool := range after.Pools {
		if len(pool.Slices) != len(before.Pools[name].Slices) {
			t.Errorf("%s, and pool %s has %d slices instead of %d", what, name, len(pool.Slices), len(before.Pools[name].Slices))
			return
		}
		for i, slice := range pool.Slices {
			if !apiequality.Semantic.DeepEqual(before.Pools[name].Slices[i], slice) {
				changed = append(changed, slice)
			}
		}
	}
	if len(changed) != 1 || !slices.ContainsFunc(changed[0].Devices, func(d resourceapi.Device) bool { return d.Name == device }) {
		t.Errorf("%s, and %d slices changed instead of its own:\n%s", what, len(changed), difference(slicesText(before), slicesText(after)))
	}
}

// identities are what tells devices of equal machines apart.
var identities = []resourceapi.QualifiedName{own + "uuid", own + "parentUUID", own + "mac"}

func twin(t *testing.T, n *node) {
	if len(n.snapshot.NICs) > 1000 {
		t.Skip("the large machine's VFs take seconds to render, and twins of smaller ones say the same")
	}
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	other := observe(t, simulate(t, n.Profile.Name, 1))
	ours, theirs := publish.Resources(input(n.snapshot, v1alpha1.PublishConfig{})), publish.Resources(input(other, v1alpha1.PublishConfig{}))
	devices := devicesByName(theirs)
	for name, d := range devicesByName(ours) {
		for _, identity := range identities {
			if mine := value(d, string(identity)); mine != "" && devices[name] != nil && value(devices[name], string(identity)) == mine {
				t.Errorf("%s has the %s %s on both machines", name, identity, mine)
			}
		}
	}
	withoutIdentities(ours)
	withoutIdentities(theirs)
	if diff := difference(slicesText(ours), slicesText(theirs)); diff != "" {
		t.Errorf("two machines of one model differ in more than identities:\n%s", diff)
	}
}

func withoutIdentities(resources resourceslice.DriverResources) {
	for _, d := range devicesByName(resources) {
		for _, identity := range identities {
			delete(d.Attributes, identity)
		}
	}
}
