// Package simulated shows a machine profile to the agent's own readers: its
// sysfs and driver as test/machine renders them, its network as netlink would tell
// it. It is for whatever needs a whole machine and no cluster: the conformance
// tests, the pictures in the documentation, the benchmarks.
package simulated

import (
	"context"
	"errors"
	"fmt"
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

// Machine is a profile that was rendered into a folder.
type Machine struct {
	Profile  *machine.Profile
	Rendered *machine.Rendered
	// Control breaks and heals its GPUs.
	Control nvmlsim.Control
	// Kernel is what netlink says; change it to change the node's network.
	Kernel *Kernel
	// GPUs is nil on a machine without.
	GPUs *nvml.Source
}

// New renders a profile into an empty folder. A process binds one NVML library
// for good: of several machines with GPUs each needs a process of its own.
func New(profile, folder string, options machine.RenderOptions) (*Machine, error) {
	p, err := machine.Load(profile)
	if err != nil {
		return nil, err
	}
	options.NoDriver = options.NoDriver || len(p.GPUs) == 0
	rendered, err := machine.Render(p, folder, options)
	if err != nil {
		return nil, err
	}
	m := &Machine{Profile: p, Rendered: rendered, Control: nvmlsim.Control{Dir: rendered.Control}, Kernel: KernelOf(p, options.NodeIndex)}
	if !options.NoDriver {
		m.GPUs = nvml.NewSource(nvml.Config{DriverRoot: rendered.DriverRoot, CallTimeout: callTimeout})
	}
	return m, nil
}

// Close lets go of the driver.
func (m *Machine) Close() error {
	if m.GPUs == nil {
		return nil
	}
	return m.GPUs.Close()
}

// Hardware reads the machine's sysfs and network.
func (m *Machine) Hardware() *host.Reader {
	return host.New(host.Config{Sys: m.Rendered.Sys, Dev: m.Rendered.Dev, Kernel: m.Kernel})
}

// Observer observes the machine.
func (m *Machine) Observer() *topology.Observer {
	var gpus topology.GPUReader = noGPUs{}
	if m.GPUs != nil {
		gpus = m.GPUs
	}
	return topology.NewObserver(topology.ObserverConfig{Hardware: m.Hardware(), GPUs: gpus})
}

// Snapshot is one look at the machine. It is an error if the driver does not work.
func (m *Machine) Snapshot(ctx context.Context) (*topology.Snapshot, error) {
	snapshot := m.Observer().Observe(ctx)
	if snapshot == nil {
		return nil, errors.New("the simulated machine could not be read")
	}
	if m.GPUs != nil && snapshot.Driver.State != topology.DriverReady {
		return nil, fmt.Errorf("the simulated driver is %s: %s", snapshot.Driver.State, snapshot.Driver.Message)
	}
	return snapshot, nil
}

type noGPUs struct{}

func (noGPUs) ReadGPUs(context.Context) (topology.Driver, []topology.GPU, []topology.Problem) {
	return topology.Driver{State: topology.DriverMissing, Message: "the machine has no GPUs"}, nil, nil
}

// Kernel implements nic.Kernel from values.
type Kernel struct {
	AllLinks     []nic.LinkState
	AllRoutes    []nic.Route
	AllAddresses []nic.Address
}

// KernelOf is what netlink says on the machine of a profile that was rendered
// with that node index.
func KernelOf(p *machine.Profile, nodeIndex int) *Kernel {
	k := &Kernel{}
	for _, l := range p.Links(nodeIndex) {
		k.AllLinks = append(k.AllLinks, nic.LinkState{
			Index: l.Index, Name: l.Name, Kind: l.Kind, Type: l.Type, MAC: l.MAC.String(), MTU: l.MTU, Up: l.Up, Master: l.Master, Lower: l.Lower,
		})
	}
	for _, r := range p.DefaultRoutes() {
		k.AllRoutes = append(k.AllRoutes, nic.Route{Destination: r.Destination, Links: []int{r.Link}, Metric: r.Metric})
	}
	return k
}

// Links implements nic.Kernel.
func (k *Kernel) Links() ([]nic.LinkState, error) { return k.AllLinks, nil }

// Routes implements nic.Kernel.
func (k *Kernel) Routes() ([]nic.Route, error) { return k.AllRoutes, nil }

// Addresses implements nic.Kernel.
func (k *Kernel) Addresses() ([]nic.Address, error) { return k.AllAddresses, nil }
