// The functions of a machine profile: its GPUs, which NVML counts while their
// driver has them, and its NICs with their VFs, whose netdevs come and go.

package pcibus

import (
	"slices"

	"github.com/hostler-dev/hostler/test/machine"
	"github.com/hostler-dev/hostler/test/nvmlsim"
)

// FunctionsOf lists the GPUs and NICs of a machine that was rendered and plugged.
func FunctionsOf(p *machine.Profile, control nvmlsim.Control, plug machine.PlugOptions) []Function {
	var functions []Function
	for i, g := range p.GPUs {
		functions = append(functions, Function{PCI: g.PCI, Native: "nvidia",
			Come: func() error { return control.SetUnbound(i, false) }, Go: func() error { return control.SetUnbound(i, true) }})
	}
	ports := p.Ports(plug.NodeIndex)
	nic := func(pci, driver string) {
		f := Function{PCI: pci, Native: driver}
		if at := slices.IndexFunc(ports, func(port machine.Port) bool { return port.PCI == pci }); at >= 0 {
			f.Come = func() error { return ports[at].Unpark(plug) }
			f.Go = func() error { return ports[at].Park(plug) }
		}
		functions = append(functions, f)
	}
	for _, n := range p.NICs {
		nic(n.PCI, n.Driver)
		for _, vf := range n.VFs {
			nic(vf.PCI, vf.Driver)
		}
	}
	return functions
}
