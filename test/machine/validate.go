// A profile that contradicts itself (a device under a bridge that does not
// exist, two netdevs of one name) would render into a machine that no kernel
// ever showed, and tests on it would prove nothing. So it is refused.

package machine

import (
	"errors"
	"fmt"
	"regexp"

	"k8s.io/utils/cpuset"
)

var (
	pciPattern  = regexp.MustCompile(`^[0-9a-f]{4}:[0-9a-f]{2}:[01][0-9a-f]\.[0-7]$`)
	rootPattern = regexp.MustCompile(`^pci[0-9a-f]{4}:[0-9a-f]{2}$`)
	idPattern   = regexp.MustCompile(`^[0-9a-f]{4}:[0-9a-f]{4}$`)
	cpuPattern  = regexp.MustCompile(`^[0-9]{1,4}(-[0-9]{1,4})?(,[0-9]{1,4}(-[0-9]{1,4})?)*$`)
	namePattern = regexp.MustCompile(`^[a-zA-Z0-9_]{1,15}$`)
	uuidPattern = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)
	// A VLAN's name has a dot.
	stackedPattern = regexp.MustCompile(`^[a-z0-9_][a-z0-9_.-]{0,14}$`)
)

// validation collects what is wrong, so that a profile's author sees all of it at once.
type validation struct {
	errs  []error
	seen  map[string]string
	nodes map[int]bool
}

func (v *validation) add(format string, args ...any) {
	v.errs = append(v.errs, fmt.Errorf(format, args...))
}

func (v *validation) once(kind, value, owner string) {
	if first, ok := v.seen[kind+value]; ok {
		v.add("%s: %s %s is already used by %s", owner, kind, value, first)
	}
	v.seen[kind+value] = owner
}

func (p *Profile) validate() error {
	v := &validation{seen: map[string]string{}, nodes: map[int]bool{}}
	if p.Name == "" || p.Driver.Version == "" || p.Driver.CUDA == "" {
		v.add("name, driver.version and driver.cuda are required")
	}
	if architectures[p.GPUModel.Architecture] == 0 && len(p.GPUs) > 0 {
		v.add("gpuModel: architecture %q is not one of Volta, Turing, Ampere, Ada, Hopper, Blackwell", p.GPUModel.Architecture)
	}
	p.validateNUMA(v)
	bridges := p.validateBridges(v)
	below := func(owner, pci, parent, id string) {
		v.function(owner, pci, id)
		if !bridges[parent] {
			v.add("%s: parent %q is not among the bridges", owner, parent)
		}
	}
	for i, g := range p.GPUs {
		owner := fmt.Sprintf("gpus[%d]", i)
		below(owner, g.PCI, g.Parent, p.GPUModel.ID)
		if g.Minor < 0 || g.Minor >= nvidiaModeset {
			v.add("%s: minor %d is not within 0 to %d", owner, g.Minor, nvidiaModeset-1)
		}
		v.once("minor ", fmt.Sprint(g.Minor), owner)
		if g.MemoryNode != nil && !v.nodes[*g.MemoryNode] {
			v.add("%s: memory node %d does not exist", owner, *g.MemoryNode)
		}
	}
	for i, s := range p.NVSwitches {
		below(fmt.Sprintf("nvSwitches[%d]", i), s.PCI, s.Parent, s.ID)
	}
	p.validateNICs(v, below)
	v.nvlink(p)
	v.mig(p)
	v.stacked(p)
	return errors.Join(v.errs...)
}

func (v *validation) function(owner, pci, id string) {
	if !pciPattern.MatchString(pci) {
		v.add("%s: %q is not a PCI address like 0000:17:00.0", owner, pci)
	}
	if !idPattern.MatchString(id) {
		v.add("%s: %q is not vendor:device like 10de:2330", owner, id)
	}
	v.once("address ", pci, owner)
}

func (p *Profile) validateNUMA(v *validation) {
	if len(p.NUMANodes) == 0 {
		v.add("numaNodes: at least one is required")
	}
	for i, n := range p.NUMANodes {
		owner := fmt.Sprintf("numaNodes[%d]", i)
		if n.CPUs != "" && !cpuPattern.MatchString(n.CPUs) {
			v.add("%s: cpus %q is not a list like 0-55,112-167 of numbers below 10000", owner, n.CPUs)
		} else if _, err := cpuset.Parse(n.CPUs); err != nil {
			v.add("%s: cpus: %w", owner, err)
		}
		if len(n.Distances) != len(p.NUMANodes) {
			v.add("%s: %d distances for %d nodes", owner, len(n.Distances), len(p.NUMANodes))
		}
		v.once("id ", fmt.Sprint(n.ID), owner)
		v.nodes[n.ID] = true
	}
}

// validateBridges wants a bridge listed after its parent, which also rules out cycles.
func (p *Profile) validateBridges(v *validation) map[string]bool {
	known := map[string]bool{}
	for i, b := range p.Bridges {
		owner := fmt.Sprintf("bridges[%d]", i)
		v.function(owner, b.PCI, b.ID)
		switch {
		case (b.Root == "") == (b.Parent == ""):
			v.add("%s: exactly one of root and parent is required", owner)
		case b.Root != "" && !rootPattern.MatchString(b.Root):
			v.add("%s: %q is not a root complex like pci0000:16", owner, b.Root)
		case b.Root != "" && b.NUMANode >= 0 && !v.nodes[b.NUMANode]:
			v.add("%s: NUMA node %d does not exist", owner, b.NUMANode)
		case b.Parent != "" && !known[b.Parent]:
			v.add("%s: parent %q is not listed before it", owner, b.Parent)
		}
		known[b.PCI] = true
	}
	return known
}

func (p *Profile) validateNICs(v *validation, below func(owner, pci, parent, id string)) {
	for i, n := range p.NICs {
		owner := fmt.Sprintf("nics[%d]", i)
		below(owner, n.PCI, n.Parent, n.ID)
		v.netdev(owner, n.Interface)
		v.rdma(owner, n.RDMA)
		if n.Interface == "" && (n.RDMA == nil || n.Uplink) {
			v.add("%s: needs an interface, or as no uplink an RDMA device", owner)
		}
		if n.DataDirect != nil {
			below(owner+".dataDirect", n.DataDirect.PCI, n.DataDirect.Parent, dataDirectID)
		}
		if len(n.VFs) > n.TotalVFs {
			v.add("%s: %d VFs, but totalVFs is %d", owner, len(n.VFs), n.TotalVFs)
		}
		for j, f := range n.VFs {
			vf := fmt.Sprintf("%s.vfs[%d]", owner, j)
			v.function(vf, f.PCI, n.VFID)
			v.netdev(vf, f.Interface)
			v.rdma(vf, f.RDMA)
		}
	}
}

// nvlink wants every link to have two ends.
func (v *validation) nvlink(p *Profile) {
	gpus := map[string]GPU{}
	for _, g := range p.GPUs {
		gpus[g.PCI] = g
	}
	for i, g := range p.GPUs {
		owner := fmt.Sprintf("gpus[%d]", i)
		if p.NVLink == nil && (len(g.NVSwitchLinks) > 0 || g.HiddenSwitchLinks > 0 || len(g.NVLinks) > 0) {
			v.add("%s: has NVLinks, but the profile has no nvLink", owner)
		}
		if len(g.NVSwitchLinks) > len(p.NVSwitches) {
			v.add("%s: links to %d NVSwitches, the machine has %d", owner, len(g.NVSwitchLinks), len(p.NVSwitches))
		}
		total := max(0, g.HiddenSwitchLinks)
		for _, count := range g.NVSwitchLinks {
			total += max(0, count)
		}
		for peer, count := range g.NVLinks {
			total += max(0, count)
			if peer == g.PCI || gpus[peer].NVLinks[g.PCI] != count {
				v.add("%s: has %d NVLinks to %s, which has %d back", owner, count, peer, gpus[peer].NVLinks[g.PCI])
			}
		}
		if total > maxNVLinks {
			v.add("%s: %d NVLinks; a GPU has up to %d", owner, total, maxNVLinks)
		}
	}
	if p.NVLink == nil {
		return
	}
	if _, ok := fabricStates[p.NVLink.Fabric]; !ok {
		v.add("nvLink: fabric %q is not one of notSupported, notStarted, inProgress, completed", p.NVLink.Fabric)
	}
	if p.NVLink.ClusterUUID != "" && !uuidPattern.MatchString(p.NVLink.ClusterUUID) {
		v.add("nvLink: clusterUUID %q is not a UUID in lower case", p.NVLink.ClusterUUID)
	}
}

// maxNVLinks is NVML_NVLINK_MAX_LINKS.
const maxNVLinks = 18

func (v *validation) netdev(owner, name string) {
	if name == "" {
		return
	}
	if !namePattern.MatchString(name) {
		v.add("%s: %q is not a netdev name (1 to 15 of a-z, A-Z, 0-9, _)", owner, name)
	}
	v.once("interface ", name, owner)
}

func (v *validation) rdma(owner string, r *RDMA) {
	if r == nil {
		return
	}
	if !namePattern.MatchString(r.Name) || (r.LinkLayer != "Ethernet" && r.LinkLayer != "InfiniBand") {
		v.add("%s: rdma needs a name and linkLayer Ethernet or InfiniBand", owner)
	}
	if r.Index < 0 || r.Index >= maxRDMADevices {
		v.add("%s: rdma index %d is not within 0 to %d", owner, r.Index, maxRDMADevices-1)
	}
	v.once("RDMA device ", r.Name, owner)
	v.once("RDMA index ", fmt.Sprint(r.Index), owner)
}

// maxRDMADevices is RDMA_MAX_PORTS in the kernel's drivers/infiniband/core/core_priv.h.
const maxRDMADevices = 8192
