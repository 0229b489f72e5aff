package e2e

// Partitions of GPUs in MIG mode, on the node that has them: what is offered, what
// a pod sees of its own, and that no memory slice is given twice.

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	resourceapi "k8s.io/api/resource/v1"
)

const migClass = "mig.hostler.dev"

// GPUs of the node's machine (test/machine/profiles/hgx-a100-mig.yaml).
const (
	partlyCutGPU = "gpu-0000-47-00-0" // an administrator's 3g.20gb at slice 4 and 1g.5gb at 0
	uncutGPU     = "gpu-0000-90-00-0"
)

// offered is which partitions each GPU in MIG mode has to offer, counted by hand from
// its placements and from what the administrator left free.
var offered = map[string]int{
	partlyCutGPU:       2 + 8,                     // the two that exist, and what fits into slices 1 to 3
	"gpu-0000-4e-00-0": 7,                         // full: those that exist
	"gpu-0000-87-00-0": 1 + 3,                     // one that exists; another has three compute instances; slices 6 and 7
	uncutGPU:           7 + 7 + 4 + 3 + 2 + 1 + 1, // every profile at every placement
}

// profileOf selects partitions of a profile on a GPU.
func profileOf(profile, gpuUUID string) []string {
	return []string{fmt.Sprintf(`device.attributes["hostler.dev"].migProfile == %q`, profile),
		fmt.Sprintf(`device.attributes["hostler.dev"].parentUUID == %q`, gpuUUID)}
}

// onMIGNode lets a pod onto the node with partitions.
func onMIGNode(pod string) string {
	return pod + fmt.Sprintf("  nodeSelector: {kubernetes.io/hostname: %s}\n  tolerations: [{key: %s, operator: Exists}]\n", node2.Name, migTaint)
}

func TestPartitionsAreOffered(t *testing.T) {
	s := newScenarioOn(t, &node2)
	var list resourceapi.ResourceSliceList
	s.getJSON(&list, "resourceslices", "--field-selector=spec.nodeName="+s.node.Name)
	counted := map[string]bool{}
	for _, slice := range list.Items {
		for _, set := range slice.Spec.SharedCounters {
			counted[set.Name] = true
		}
	}
	uuids, partitions := map[string]string{}, map[string]int{}
	for _, d := range s.devices() {
		if attribute(d, "hostler.dev/type") == "gpu" {
			uuids[attribute(d, "hostler.dev/uuid")] = d.Name
			_, inMIGMode := offered[d.Name]
			if tainted := slices.ContainsFunc(d.Taints, func(t resourceapi.DeviceTaint) bool { return t.Key == "hostler.dev/mig-mode" }); tainted != inMIGMode {
				t.Errorf("the whole GPU %s has taints %v; it is in MIG mode: %t", d.Name, d.Taints, inMIGMode)
			}
			if counted[d.Name] != inMIGMode {
				t.Errorf("GPU %s has a counter set: %t; it is in MIG mode: %t", d.Name, counted[d.Name], inMIGMode)
			}
		}
	}
	for _, d := range s.devices() {
		if attribute(d, "hostler.dev/type") == "mig" {
			partitions[uuids[attribute(d, "hostler.dev/parentUUID")]]++
		}
	}
	if !maps.Equal(partitions, offered) {
		t.Errorf("partitions by GPU: %v, want %v", partitions, offered)
	}
	s.eventually("the node's events say what is not offered", func() error {
		out, err := s.try("get", "events", "-A", "--field-selector=involvedObject.kind=Node,involvedObject.name="+s.node.Name, "-o", "jsonpath={.items[*].message}")
		if err == nil && !strings.Contains(out, "it has 3 compute instances") {
			err = fmt.Errorf("node events: %s", out)
		}
		return err
	})
}

func TestPartition(t *testing.T) {
	s := newScenarioOn(t, &node2)
	parent := s.node.gpu(t, uncutGPU)
	s.apply(template("small", requests(request("mig", migClass, profileOf("1g.10gb", parent.UUID)...))),
		onMIGNode(pod("one", "small", "")), onMIGNode(pod("two", "small", "")))
	s.awaitReady("one", "two")
	one, two := s.allocated("one"), s.allocated("two")
	if one == two {
		t.Errorf("both pods got %s", one)
	}
	instances := s.cut(parent.Index)
	if len(instances) != 2 {
		t.Fatalf("the GPU is cut into %v, want one instance for each pod", instances)
	}

	capabilities := s.sh("one", "ls /dev/nvidia-caps")
	mine := slices.IndexFunc(instances, func(i migInstance) bool { return capabilities == i.capabilities(parent.Minor) })
	if mine < 0 {
		t.Fatalf("the pod's capabilities are %q, which are not the two of one of %v", capabilities, instances)
	}
	if seen := s.sh("one", listGPUs); seen != fmt.Sprintf("nvidia%d", parent.Minor) {
		t.Errorf("the pod sees GPU nodes %q, want only its partition's nvidia%d", seen, parent.Minor)
	}
	// No driver stands behind the simulated nodes: ENXIO is the device cgroup's yes, EPERM its no.
	for name := range strings.FieldsSeq(capabilities) {
		if out, _ := s.trySh("one", "cat /dev/nvidia-caps/"+name); !strings.Contains(out, "No such device or address") {
			t.Errorf("opening the pod's own capability %s: %q, want ENXIO", name, out)
		}
	}
	for name := range strings.FieldsSeq(instances[1-mine].capabilities(parent.Minor)) {
		if out, _ := s.trySh("one", fmt.Sprintf("mknod /tmp/%[1]s c 237 %[2]s && cat /tmp/%[1]s", name, strings.TrimPrefix(name, "nvidia-cap"))); !strings.Contains(out, "Operation not permitted") {
			t.Errorf("opening the neighbour's capability %s by its number: %q, want EPERM", name, out)
		}
	}

	s.apply(template("all-of-it", requests(request("mig", migClass, profileOf("7g.40gb", parent.UUID)...))), onMIGNode(pod("large", "all-of-it", "")))
	s.eventually("a pod that wants all of the GPU waits", func() error { return s.unschedulable("large", "cannot allocate all claims") })
	s.kubectl("delete", "pod", "one", "two")
	s.awaitReady("large")
	if instances := s.cut(parent.Index); len(instances) != 1 || instances[0].placement != "0:8" {
		t.Errorf("the GPU is cut into %v, want one instance over all memory slices", instances)
	}
}

func TestPartitionOfTheAdministrator(t *testing.T) {
	s := newScenarioOn(t, &node2)
	parent := s.node.gpu(t, partlyCutGPU)
	before := s.cut(parent.Index)
	s.apply(template("made-by-hand", requests(request("mig", migClass, profileOf("3g.20gb", parent.UUID)...))), onMIGNode(pod("user", "made-by-hand", "")))
	s.awaitReady("user")
	instance := slices.IndexFunc(before, func(i migInstance) bool { return i.placement == "4:4" })
	if capabilities := s.sh("user", "ls /dev/nvidia-caps"); capabilities != before[instance].capabilities(parent.Minor) {
		t.Errorf("the pod's capabilities are %q, want those of the instance that was there, %v", capabilities, before[instance])
	}
	s.apply(onMIGNode(pod("second", "made-by-hand", "")))
	s.eventually("it is given once", func() error { return s.unschedulable("second", "cannot allocate all claims") })
	s.kubectl("delete", "pod", "user", "second")
	s.eventually("the claim is done", func() error {
		entries, err := s.node.journalEntries()
		if err == nil && len(entries) > 0 {
			err = fmt.Errorf("journal: %v", entries)
		}
		return err
	})
	if after := s.cut(parent.Index); !slices.Equal(after, before) {
		t.Errorf("the GPU is cut into %v, was into %v", after, before)
	}
}

// allocated is the device of the pod's claim.
func (s *scenario) allocated(pod string) string {
	s.Helper()
	return s.claimOf(pod).Status.Allocation.Devices.Results[0].Device
}

// migInstance is a GPU instance as the simulated driver has it.
type migInstance struct {
	number    int
	placement string
	// whole says that it has exactly one compute instance.
	whole bool
}

// capabilities are the names of the device nodes of the instance and of its
// first compute instance, as NVIDIA's driver numbers them, in the order of ls.
func (i migInstance) capabilities(minor int) string {
	first := 3 + 135*minor + 9*i.number
	return fmt.Sprintf("nvidia-cap%d\nnvidia-cap%d", first, first+1)
}

// cut reads how the simulated GPU is cut (test/nvmlsim/README.md, "mig_instances").
func (s *scenario) cut(gpu int) []migInstance {
	s.Helper()
	raw, err := os.ReadFile(filepath.Join(s.node.nvml().Dir, fmt.Sprintf("gpu%d", gpu), "mig_instances"))
	if err != nil && !os.IsNotExist(err) {
		s.Fatal(err)
	}
	var instances []migInstance
	for line := range strings.Lines(string(raw)) {
		var profile int
		var instance migInstance
		if _, err := fmt.Sscan(line, &instance.number, &profile, &instance.placement); err != nil {
			s.Fatalf("mig_instances of GPU %d: %q: %v", gpu, line, err)
		}
		instance.whole = len(strings.Fields(line)) == 4
		instances = append(instances, instance)
	}
	return instances
}
