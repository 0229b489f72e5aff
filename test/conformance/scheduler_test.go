package conformance

// The scheduler's allocator over what a machine publishes, and the claims that are
// made of GPUs and NICs by where they sit. What each must get follows from the
// published topology alone; where a machine has nothing of the kind, the claim stays
// pending.

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	resourceapi "k8s.io/api/resource/v1"

	"github.com/hostler-dev/hostler/api/v1alpha1"
	"github.com/hostler-dev/hostler/driver/publish"
	"github.com/hostler-dev/hostler/test/allocator"
)

// scheduler has all devices of a node to give.
type scheduler struct {
	*allocator.Scheduler
	devices map[string]*resourceapi.Device
}

func (n *node) scheduler(config v1alpha1.PublishConfig) *scheduler {
	resources := n.resources(config)
	return &scheduler{devices: devicesByName(resources), Scheduler: allocator.New(allocator.Config{
		Driver: publish.DriverName, NodeName: nodeName, Resources: resources, Features: allocator.DefaultFeatures,
		Classes: allocator.TypeClasses(publish.DriverName, "gpu", "mig", "nic", "pair", "egress"),
	})}
}

// ask returns the devices that a claim of these parts gets, none if it stays pending.
func (s *scheduler) ask(t *testing.T, parts ...allocator.Part) []string {
	t.Helper()
	got, err := s.Allocate(t.Context(), allocator.Claim("claim", parts...))
	if err != nil {
		t.Fatalf("the scheduler's allocator failed: %v", err)
	}
	return got
}

// all makes the same claim until it stays pending.
func (s *scheduler) all(t *testing.T, parts ...allocator.Part) [][]string {
	t.Helper()
	var all [][]string
	for {
		got := s.ask(t, parts...)
		if got == nil {
			return all
		}
		all = append(all, got)
	}
}

// refused wants a claim to stay pending.
func (s *scheduler) refused(t *testing.T, why string, parts ...allocator.Part) {
	t.Helper()
	if got := s.ask(t, parts...); got != nil {
		t.Errorf("%s, and still a claim got %v", why, got)
	}
}

// Selectors in CEL, as users write them.
func at(pci string) string {
	return fmt.Sprintf(`device.attributes["resource.kubernetes.io"].pciBusID == %q`, pci)
}

func attribute(name string, value any) string {
	text := fmt.Sprint(value)
	if s, ok := value.(string); ok {
		text = fmt.Sprintf("%q", s)
	}
	return fmt.Sprintf(`device.attributes["hostler.dev"].?%s.orValue(%s) == %s`, name, other(value), text)
}

// other is a value that the attribute does not have, for devices that lack it.
func other(value any) string {
	if _, ok := value.(string); ok {
		return `""`
	}
	return "-1"
}

func islandClaims(t *testing.T, n *node) {
	whole := n.wholeGPUs()
	four := []allocator.Part{allocator.Request("gpu", 4), allocator.Match(own + "nvlinkIsland")}
	s, fits := n.scheduler(v1alpha1.PublishConfig{}), 0
	for _, island := range n.want.Islands {
		fits += count(island, whole) / 4
	}
	got := s.all(t, four...)
	if len(got) != fits {
		t.Errorf("%d claims for four GPUs of one NVLink island were served, and the islands %v have room for %d (GPUs in MIG mode not counted)", len(got), n.want.Islands, fits)
	}
	for _, gpus := range got {
		if !slices.ContainsFunc(n.want.Islands, func(island []string) bool { return within(gpus, island) }) {
			t.Errorf("a claim for four GPUs of one NVLink island got %v, which no island of %v holds", gpus, n.want.Islands)
		}
	}
}

func affinityClaims(t *testing.T, n *node) {
	whole := n.wholeGPUs()
	s, fits := n.scheduler(v1alpha1.PublishConfig{}), 0
	for _, group := range n.want.AffinityGroups {
		nics := slices.DeleteFunc(slices.Clone(group.NICs), func(nic string) bool { return slices.Contains(n.want.Uplinks, nic) })
		fits += min(count(group.GPUs, whole), len(nics))
	}
	got := s.all(t, allocator.Request("gpu", 1), allocator.Request("nic", 1), allocator.Match(own+"affinityGroup"))
	if len(got) != fits {
		t.Errorf("%d claims for a GPU and a NIC of its affinity group were served (%v), and %d GPUs have such a NIC", len(got), got, fits)
	}
	for _, devices := range got {
		if !slices.ContainsFunc(n.groups(), func(group []string) bool { return within(devices, group) }) {
			t.Errorf("a claim for a GPU and a NIC of its affinity group got %v, which share no switch or root complex", devices)
		}
	}
	for _, nic := range n.Profile.NICs {
		if nic.DataDirect != nil {
			n.dataDirectClaim(t, nic.PCI)
		}
	}
}

// dataDirectClaim asks for a GPU beside a card that shows itself below another root
// complex: by that root it would find none.
func (n *node) dataDirectClaim(t *testing.T, pci string) {
	t.Helper()
	nic := allocator.Request("nic", 1, at(pci))
	n.scheduler(v1alpha1.PublishConfig{}).refused(t, "no GPU is below the root complex that the Data Direct card "+pci+" shows",
		allocator.Request("gpu", 1), nic, allocator.Match(pcieRoot))
	got := n.scheduler(v1alpha1.PublishConfig{}).ask(t, allocator.Request("gpu", 1), nic, allocator.Match(own+"affinityGroup"))
	if len(got) != 2 || n.want.Rails[got[1]] != got[0] {
		t.Errorf("beside the Data Direct card %s a claim for a GPU got %s", pci, given(got))
	}
}

func numaClaims(t *testing.T, n *node) {
	onNode := map[int]int{}
	for gpu := range n.wholeGPUs() {
		onNode[n.want.NUMA[gpu]]++
	}
	two := func(constraint allocator.Part) []string {
		return n.scheduler(v1alpha1.PublishConfig{}).ask(t, allocator.Request("gpu", 2), constraint)
	}
	apart, closest := two(allocator.Distinct(numaNode)), two(allocator.Match(numaNode))
	if (len(onNode) > 1) != (apart != nil) || apart != nil && n.want.NUMA[apart[0]] == n.want.NUMA[apart[1]] {
		t.Errorf("a claim for GPUs on two NUMA nodes got %s; GPUs are on %v", given(apart), n.want.NUMA)
	}
	room := slices.ContainsFunc(slices.Collect(maps.Values(onNode)), func(gpus int) bool { return gpus > 1 })
	if room != (closest != nil) || closest != nil && n.want.NUMA[closest[0]] != n.want.NUMA[closest[1]] {
		t.Errorf("a claim for two GPUs on one NUMA node got %s; GPUs are on %v", given(closest), n.want.NUMA)
	}
}

// railClaims ask for a NIC on each rail at once, as one end of a collective does.
func railClaims(t *testing.T, n *node) {
	gpus := slices.Compact(slices.Sorted(maps.Values(n.want.Rails)))
	if len(gpus) == 0 {
		n.scheduler(v1alpha1.PublishConfig{}).refused(t, "the machine has no rails", allocator.Request("nic", 1, attribute("rail", 0)))
		return
	}
	var parts []allocator.Part
	for _, gpu := range gpus {
		parts = append(parts, allocator.Request("nic", 1, attribute("rail", slices.Index(n.want.Columns, gpu)), attribute("kind", "pf")))
	}
	got := n.scheduler(v1alpha1.PublishConfig{}).ask(t, parts...)
	if len(got) != len(gpus) {
		t.Fatalf("a claim for a NIC on each of the rails of %v got %s", gpus, given(got))
	}
	for i, nic := range got {
		if n.want.Rails[nic] != gpus[i] {
			t.Errorf("on the rail of %s a claim got %s, and that rail's NICs are %v", gpus[i], nic, keysOf(n.want.Rails, gpus[i]))
		}
	}
}

// uplinkClaims take every PF that there is to take, and the VFs of each uplink.
func uplinkClaims(t *testing.T, n *node) {
	s, free := n.scheduler(v1alpha1.PublishConfig{}), 0
	for _, nic := range n.snapshot.NICs {
		if nic.Parent == "" && !slices.Contains(n.want.Uplinks, nic.Name) {
			free++
		}
	}
	got := s.all(t, allocator.Request("nic", 1, attribute("kind", "pf")))
	if len(got) != free {
		t.Errorf("%d PFs were given away, and %d are not uplinks", len(got), free)
	}
	for _, nics := range got {
		if slices.Contains(n.want.Uplinks, nics[0]) {
			t.Errorf("%s was given away, and the node lives on it", nics[0])
		}
	}
	for _, uplink := range n.want.Uplinks {
		s.refused(t, uplink+" is an uplink", allocator.Request("nic", 1, at(value(s.devices[uplink], pciBusID))))
	}
}

// given are devices in words.
func given(devices []string) string {
	if len(devices) == 0 {
		return "nothing"
	}
	return strings.Join(devices, " and ")
}

func count(names []string, of map[string]bool) int {
	return len(slices.DeleteFunc(slices.Clone(names), func(name string) bool { return !of[name] }))
}

func within(names, group []string) bool {
	return !slices.ContainsFunc(names, func(name string) bool { return !slices.Contains(group, name) })
}

func keysOf(m map[string]string, value string) []string {
	var keys []string
	for key, v := range m {
		if v == value {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return keys
}
