package host_test

// A simulated machine to discover: a profile of test/machine rendered into a
// directory, with the NVML simulator as its driver. What netlink would say of such a
// machine is written down from the profile.

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/hostler-dev/hostler/test/machine"
	"github.com/hostler-dev/hostler/test/nvmlsim"
	"github.com/hostler-dev/hostler/topology"
	"github.com/hostler-dev/hostler/topology/host"
	"github.com/hostler-dev/hostler/topology/nic"
	"github.com/hostler-dev/hostler/topology/nvml"
)

// callTimeout is generous for the simulator's file reads on a busy machine.
const callTimeout = 2 * time.Second

type simulated struct {
	profile  *machine.Profile
	rendered *machine.Rendered
	control  nvmlsim.Control
	kernel   *kernel
	gpus     *nvml.Source
	observer *topology.Observer
}

// inOwnProcess runs the test in a process of its own and returns false in the
// parent: a process can bind only one NVML library, and every rendered machine has its own.
func inOwnProcess(t *testing.T) bool {
	t.Helper()
	const variable = "HOSTLER_TEST_PROCESS"
	if os.Getenv(variable) == t.Name() {
		return true
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+strings.ReplaceAll(t.Name(), "/", "$/^")+"$", "-test.v", fmt.Sprintf("-update=%t", *update))
	// The race detector's runtime else sleeps for a second at each exit.
	cmd.Env = append(os.Environ(), variable+"="+t.Name(), "GORACE=atexit_sleep_ms=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return false
}

func simulate(t *testing.T, profile string, options machine.RenderOptions) *simulated {
	t.Helper()
	p, err := machine.Load(profile)
	if err != nil {
		t.Fatal(err)
	}
	dir := machine.TempDir(t)
	rendered, err := machine.Render(p, dir, options)
	if err != nil {
		t.Fatal(err)
	}
	s := &simulated{profile: p, rendered: rendered, control: nvmlsim.Control{Dir: rendered.Control}, kernel: kernelOf(p)}
	s.gpus = nvml.NewSource(nvml.Config{DriverRoot: rendered.DriverRoot, CallTimeout: callTimeout})
	t.Cleanup(func() { _ = s.gpus.Close() }) // a test may have killed the driver
	s.observer = topology.NewObserver(topology.ObserverConfig{
		Hardware: host.New(host.Config{Sys: rendered.Sys, Dev: rendered.Dev, Kernel: s.kernel}),
		GPUs:     s.gpus,
	})
	return s
}

func (s *simulated) observe(t *testing.T) *topology.Snapshot {
	t.Helper()
	snapshot := s.observer.Observe(t.Context())
	if snapshot == nil {
		t.Fatal("no snapshot")
	}
	return snapshot
}

// kernel is what netlink says.
type kernel struct {
	links     []nic.LinkState
	routes    []nic.Route
	routesErr error
}

func (k *kernel) Links() ([]nic.LinkState, error)   { return k.links, nil }
func (k *kernel) Routes() ([]nic.Route, error)      { return k.routes, k.routesErr }
func (k *kernel) Addresses() ([]nic.Address, error) { return nil, nil }

func kernelOf(p *machine.Profile) *kernel {
	k := &kernel{links: []nic.LinkState{{Index: 1, Name: "lo", Up: true}}}
	add := func(name, pci string, mtu int) {
		k.links = append(k.links, nic.LinkState{
			Index: len(k.links) + 1, Name: name, Kind: "veth", Type: "ethernet", MAC: p.MAC(0, pci).String(), MTU: mtu, Up: true,
		})
	}
	for _, n := range p.NICs {
		add(n.Interface, n.PCI, n.MTU)
		if n.Uplink {
			k.routes = append(k.routes, nic.Route{Destination: netip.MustParsePrefix("0.0.0.0/0"), Links: []int{len(k.links)}})
		}
		for _, vf := range n.VFs {
			if vf.Interface != "" {
				add(vf.Interface, vf.PCI, n.MTU)
			}
		}
	}
	return k
}
