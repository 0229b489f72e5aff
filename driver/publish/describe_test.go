package publish

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/utils/ptr"
	"pgregory.net/rapid"

	"github.com/hostler-dev/hostler/topology"
)

// subjectOf finds the hardware of a published device in the machine.
func subjectOf(s *topology.Snapshot, device *resourceapi.Device) Subject {
	subject := Subject{GPU: s.GPU(device.Name), NIC: s.NIC(device.Name)}
	if gpu, partition := s.Partition(device.Name); gpu != nil {
		subject = Subject{GPU: gpu, Partition: partition}
	}
	if name := device.Attributes[own("gpuName")].StringValue; name != nil {
		subject = Subject{GPU: s.GPU(*name), NIC: s.NIC(*device.Attributes[own("nicName")].StringValue)}
	}
	return subject
}

// Whatever the machine: a device in a pod is described as it is in its slice, but
// for the UUID of a partition.
func TestDescribedAsPublished(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := drawInput(t)
		describer := NewDescriber(in)
		for _, pool := range Resources(in).Pools {
			for _, slice := range pool.Slices {
				for _, device := range slice.Devices {
					subject := subjectOf(&describer.snapshot, &device)
					got, known := describer.Describe(subject)
					if !known {
						t.Fatalf("%s is published and unknown", device.Name)
					}
					if _, has := device.Attributes[own("uuid")]; !has && subject.Partition != nil {
						delete(got, own("uuid"))
					}
					if diff := cmp.Diff(device.Attributes, map[resourceapi.QualifiedName]resourceapi.DeviceAttribute(got)); diff != "" {
						t.Fatalf("%s is described otherwise (-published +described):\n%s", device.Name, diff)
					}
				}
			}
		}
	})
}

func TestDescribedPartitionHasItsUUID(t *testing.T) {
	made := topology.GPUName("0000:13:00.0") + "-mig-1g-10gb-0"
	gpu := migGPU("0000:13:00.0", instance(19, 0, 1))
	snapshot := &topology.Snapshot{GPUs: []topology.GPU{gpu}}
	_, partition := snapshot.Partition(made)
	got, _ := NewDescriber(Input{Snapshot: snapshot, Features: everything, Made: map[string]bool{made: true}}).Describe(Subject{GPU: &snapshot.GPUs[0], Partition: partition})
	if diff := cmp.Diff(ptr.To("MIG-19-0"), got[own("uuid")].StringValue); diff != "" {
		t.Errorf("its UUID (-want +got):\n%s", diff)
	}
}

func TestDescribedHardwareThatIsGone(t *testing.T) {
	machine := dgx()
	gpu, nic := machine.GPUs[0], machine.NICs[0]
	machine.GPUs, machine.NICs = machine.GPUs[1:], machine.NICs[1:]
	for _, test := range []struct {
		name    string
		subject Subject
		held    bool
		known   bool
	}{
		{"GPU", Subject{GPU: &gpu}, false, false},
		{"NIC", Subject{NIC: &nic}, false, false},
		{"NIC in a pod, out of discovery's sight", Subject{NIC: &nic}, true, true},
		{"pair that has lost its GPU", Subject{GPU: &gpu, NIC: &machine.NICs[0]}, false, false},
		{"pair that has lost its NIC", Subject{GPU: &machine.GPUs[0], NIC: &nic}, false, false},
		{"egress", Subject{}, false, true},
	} {
		in := Input{Snapshot: machine, Features: everything}
		if test.held {
			in.Held = map[string]topology.NIC{nic.Name: nic}
		}
		if got, known := NewDescriber(in).Describe(test.subject); known != test.known || len(got) == 0 {
			t.Errorf("%s: known %v, want %v; %d attributes", test.name, known, test.known, len(got))
		}
	}
}

func TestDescribedForUserSpace(t *testing.T) {
	base := Attributes{own("type"): {StringValue: ptr.To("nic")}}
	got := base.WithVFIO("37", []string{"0000:13:00.2", "0000:13:00.3"})
	want := Attributes{
		own("type"): {StringValue: ptr.To("nic")}, own("mode"): {StringValue: ptr.To("vfio")}, own("vfioGroup"): {IntValue: ptr.To[int64](37)},
		own("vfioFunctions"): {StringValues: []string{"0000:13:00.2", "0000:13:00.3"}},
	}
	if diff := cmp.Diff(want, got); diff != "" || len(base) != 1 {
		t.Errorf("(-want +got):\n%s; the attributes of before: %v", diff, base)
	}
}
