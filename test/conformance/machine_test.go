// Package conformance says of every machine profile that what is discovered, what
// is published and what the scheduler gives for a claim is what the machine's
// published topology says.
//
// The truth is test/machine/expected, written down by hand from vendors' documents
// and posted matrices. The rest is the agent's own code, from sysfs and NVML to
// ResourceSlices, and the scheduler's own allocator. A profile that is added to
// test/machine is held to all of it without a line here, unless it has GPUs in MIG
// mode: what fits on those is written down in cuts.
package conformance

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"github.com/go-logr/logr"
	"k8s.io/dynamic-resource-allocation/resourceslice"
	"k8s.io/klog/v2"

	"github.com/hostler-dev/hostler/api/v1alpha1"
	"github.com/hostler-dev/hostler/driver/publish"
	"github.com/hostler-dev/hostler/test/machine"
	"github.com/hostler-dev/hostler/test/simulated"
	"github.com/hostler-dev/hostler/topology"
)

var update = flag.Bool("update", false, "rewrite the golden files")

const nodeName = "node-a.example"

// withPairs offers a GPU with its nearest NIC as one device.
var withPairs = v1alpha1.PublishConfig{CompositeDevices: true}

// kubernetes137 is an API server that lacks nothing.
var kubernetes137 = publish.Features{Taints: true, Counters: true, SharedDevices: true, ListAttributes: true}

func TestEveryMachine(t *testing.T) {
	for _, profile := range machine.Names() {
		t.Run(profile, func(t *testing.T) {
			if !inOwnProcess(t) {
				return
			}
			n := newNode(t, profile)
			for _, check := range []struct {
				name string
				of   func(*testing.T, *node)
			}{
				{"is discovered as it is wired", discovered},
				{"is published as it is wired", published},
				{"publishes what is legal", legalEverywhere},
				{"offers old API servers what is safe", oldServer},
				{"publishes what it always did", golden},
				{"schedules GPUs of one island", islandClaims},
				{"schedules GPUs with their NICs", affinityClaims},
				{"schedules by NUMA node", numaClaims},
				{"schedules across rails", railClaims},
				{"never gives its uplinks away", uplinkClaims},
				{"gives pairs of neighbours", pairClaims},
				{"gives a PF or its VFs", functionClaims},
				{"cuts GPUs as they can be cut", partitionClaims},
				{"publishes the same twice", sameTwice},
				{"writes one slice for one fault", oneFaultOneSlice},
				// Last, since it binds the driver to another machine.
				{"has a twin that differs in identities", twin},
			} {
				t.Run(check.name, func(t *testing.T) { check.of(t, n) })
			}
		})
	}
}

// inOwnProcess runs the test in a process of its own and returns false in the
// parent: a process binds one NVML library for good.
func inOwnProcess(t *testing.T) bool {
	t.Helper()
	const variable = "HOSTLER_TEST_PROCESS"
	if os.Getenv(variable) == t.Name() {
		return true
	}
	t.Parallel()
	pattern := "^" + strings.ReplaceAll(regexp.QuoteMeta(t.Name()), "/", "$/^") + "$"
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run="+pattern, fmt.Sprintf("-update=%t", *update))
	// The race detector's runtime else sleeps for a second at each exit.
	cmd.Env = append(os.Environ(), variable+"="+t.Name(), "GORACE=atexit_sleep_ms=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("in the process of this machine (%v):\n%s", err, out)
	}
	return false
}

// node is a machine with the agent's view of it, and the truth.
type node struct {
	*simulated.Machine
	want     *machine.Expected
	snapshot *topology.Snapshot
	// published by configuration, in print.
	published map[string]resourceslice.DriverResources
}

func newNode(t *testing.T, profile string) *node {
	t.Helper()
	want, err := machine.LoadExpected(profile)
	if err != nil {
		t.Fatal(err)
	}
	n := &node{Machine: simulate(t, profile, 0), want: want, published: map[string]resourceslice.DriverResources{}}
	n.snapshot = observe(t, n.Machine)
	return n
}

func simulate(t *testing.T, profile string, nodeIndex int) *simulated.Machine {
	t.Helper()
	m, err := simulated.New(profile, machine.TempDir(t), machine.RenderOptions{NodeIndex: nodeIndex})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return m
}

// observe keeps the agent's log, which tells what is true of any machine, out of a
// failure's report.
func observe(t *testing.T, m *simulated.Machine) *topology.Snapshot {
	t.Helper()
	snapshot, err := m.Snapshot(klog.NewContext(t.Context(), logr.Discard()))
	if err != nil {
		t.Fatal(err)
	}
	return snapshot
}

// input is a snapshot as an agent on the newest Kubernetes publishes it.
func input(s *topology.Snapshot, config v1alpha1.PublishConfig) publish.Input {
	return publish.Input{NodeName: nodeName, Features: kubernetes137, Publish: config, Snapshot: s}
}

// resources are what the node publishes; they are shared, so leave them as they are.
func (n *node) resources(config v1alpha1.PublishConfig) resourceslice.DriverResources {
	key := fmt.Sprintf("%+v", config)
	resources, made := n.published[key]
	if !made {
		resources = publish.Resources(input(n.snapshot, config))
		n.published[key] = resources
	}
	return resources
}

// wholeGPUs are those that the profile does not have in MIG mode.
func (n *node) wholeGPUs() map[string]bool {
	whole := map[string]bool{}
	for _, gpu := range n.Profile.GPUs {
		if gpu.MIG == nil {
			whole[topology.GPUName(gpu.PCI)] = true
		}
	}
	return whole
}
