// The sysfs of processors and PCI functions, file by file as the kernel's
// drivers/pci/pci-sysfs.c, drivers/base/node.c and drivers/base/cpu.c make it.

package machine

import (
	"fmt"
	"strconv"
	"strings"

	"k8s.io/utils/cpuset"
)

// sysfs is the tree under construction.
type sysfs struct {
	*tree
	p    *Profile
	node int
	// paths of PCI functions below devices/, and the NUMA node of each.
	paths map[string]string
	numa  map[string]int
	ports map[string]portType
	// index of each netdev.
	index map[string]int
	// iommu gives every function a group; groups counts them.
	iommu  bool
	groups int
}

func newSysfs(p *Profile, root string, nodeIndex int) *sysfs {
	s := &sysfs{tree: newTree(root), p: p, node: nodeIndex, paths: map[string]string{}, numa: map[string]int{}, ports: p.portTypes(), index: map[string]int{}, iommu: p.IOMMUGroups}
	for _, link := range p.Links(nodeIndex) {
		s.index[link.Name] = link.Index
	}
	s.locate()
	return s
}

// function is a PCI function on its way into the tree.
type function struct {
	pci           string
	id, subsystem string
	class         string
	driver        string
	generation    int
	width         int
}

// locate computes where in the tree each function lies, and its NUMA node.
func (s *sysfs) locate() {
	place := func(pci, parent string) {
		s.paths[pci] = s.paths[parent] + "/" + pci
		s.numa[pci] = s.numa[parent]
	}
	for _, b := range s.p.Bridges {
		if b.Root != "" {
			s.paths[b.PCI] = "devices/" + b.Root + "/" + b.PCI
			s.numa[b.PCI] = b.NUMANode
			continue
		}
		place(b.PCI, b.Parent)
	}
	for _, g := range s.p.GPUs {
		place(g.PCI, g.Parent)
	}
	for _, w := range s.p.NVSwitches {
		place(w.PCI, w.Parent)
	}
	for _, n := range s.p.NICs {
		place(n.PCI, n.Parent)
		for _, f := range n.VFs {
			place(f.PCI, n.Parent)
		}
		if n.DataDirect != nil {
			place(n.DataDirect.PCI, n.DataDirect.Parent)
		}
	}
}

func (s *sysfs) processors() {
	online, nodes, withCPUs := cpuset.New(), cpuset.New(), cpuset.New()
	for _, n := range s.p.NUMANodes {
		folder := fmt.Sprintf("devices/system/node/node%d", n.ID)
		s.file(folder+"/cpulist", n.CPUs)
		s.file(folder+"/distance", join(n.Distances, " "))
		s.file(folder+"/meminfo", fmt.Sprintf("Node %d MemTotal:       %d kB", n.ID, n.MemoryGiB<<20))
		cpus, _ := cpuset.Parse(n.CPUs)
		for _, cpu := range cpus.List() {
			s.cpu(cpu, n)
		}
		online = online.Union(cpus)
		nodes = nodes.Union(cpuset.New(n.ID))
		if !cpus.IsEmpty() {
			withCPUs = withCPUs.Union(cpuset.New(n.ID))
		}
	}
	for _, name := range []string{"online", "possible", "present"} {
		s.file("devices/system/cpu/"+name, online)
		s.file("devices/system/node/"+name, nodes)
	}
	s.file("devices/system/node/has_cpu", withCPUs)
	s.file("devices/system/node/has_memory", nodes)
}

// cpu says on which socket and NUMA node a CPU is, no more: a DGX has 224 of them.
func (s *sysfs) cpu(cpu int, n NUMANode) {
	folder := fmt.Sprintf("devices/system/cpu/cpu%d", cpu)
	s.file(folder+"/topology/physical_package_id", n.Socket)
	s.link(fmt.Sprintf("%s/node%d", folder, n.ID), fmt.Sprintf("devices/system/node/node%d", n.ID))
}

func (s *sysfs) bridges() {
	for _, b := range s.p.Bridges {
		if b.Root != "" {
			s.rootComplex(b)
		}
		s.pci(function{pci: b.PCI, id: b.ID, subsystem: b.ID, class: "0x060400", driver: "pcieport", generation: 5, width: 16})
	}
	s.secondaryBuses()
}

// rootComplex makes pciDDDD:BB, the folder that resource.kubernetes.io/pcieRoot is named after.
func (s *sysfs) rootComplex(b Bridge) {
	folder := "devices/" + b.Root
	bus := strings.TrimPrefix(b.Root, "pci")
	if s.made[folder+"/pci_bus/"+bus] {
		return
	}
	s.file(folder+"/uevent", "")
	s.bus(folder, bus, b.NUMANode)
}

// secondaryBuses makes the pci_bus folder of each bridge, which is named after
// the bus of the functions below it.
func (s *sysfs) secondaryBuses() {
	below := func(pci, parent string) {
		bus := pci[:7]
		folder := s.paths[parent]
		if folder != "" && !s.made[folder+"/pci_bus/"+bus] {
			s.bus(folder, bus, s.numa[parent])
			number, _ := busAndFunction(pci)
			s.file(folder+"/secondary_bus_number", number)
			s.file(folder+"/subordinate_bus_number", number)
		}
	}
	for _, b := range s.p.Bridges {
		below(b.PCI, b.Parent)
	}
	for _, g := range s.p.GPUs {
		below(g.PCI, g.Parent)
	}
	for _, n := range s.p.NICs {
		below(n.PCI, n.Parent)
		if n.DataDirect != nil {
			below(n.DataDirect.PCI, n.DataDirect.Parent)
		}
	}
	for _, w := range s.p.NVSwitches {
		below(w.PCI, w.Parent)
	}
}

func (s *sysfs) bus(parent, bus string, numa int) {
	folder := parent + "/pci_bus/" + bus
	s.file(folder+"/cpulistaffinity", s.cpuList(numa))
	s.link("class/pci_bus/"+bus, folder)
}

// pci writes what every PCI function has and returns its folder.
func (s *sysfs) pci(f function) string {
	folder, numa := s.paths[f.pci], s.numa[f.pci]
	vendor, device, _ := strings.Cut(f.id, ":")
	subVendor, subDevice, _ := strings.Cut(f.subsystem, ":")
	for name, value := range map[string]any{
		"vendor": "0x" + vendor, "device": "0x" + device, "class": f.class, "revision": "0x00",
		"subsystem_vendor": "0x" + subVendor, "subsystem_device": "0x" + subDevice,
		"numa_node": numa, "local_cpulist": s.cpuList(numa), "enable": 1, "irq": 0, "power_state": "D0",
		"current_link_speed": linkSpeed(f.generation), "max_link_speed": linkSpeed(f.generation),
		"current_link_width": f.width, "max_link_width": f.width,
		"aer_dev_correctable": "TOTAL_ERR_COR 0", "aer_dev_nonfatal": "TOTAL_ERR_NONFATAL 0", "aer_dev_fatal": "TOTAL_ERR_FATAL 0",
		"uevent": fmt.Sprintf("DRIVER=%s\nPCI_CLASS=%s\nPCI_ID=%s\nPCI_SUBSYS_ID=%s\nPCI_SLOT_NAME=%s", f.driver,
			strings.TrimLeft(f.class[2:], "0"), strings.ToUpper(f.id), strings.ToUpper(f.subsystem), f.pci),
	} {
		s.file(folder+"/"+name, value)
	}
	s.raw(folder+"/resource", []byte(strings.Repeat("0x0000000000000000 0x0000000000000000 0x0000000000000000\n", 13)), 0o444)
	s.raw(folder+"/config", configSpace(vendor, device, f.class, s.ports[f.pci]), 0o444)
	s.link("bus/pci/devices/"+f.pci, folder)
	s.link(folder+"/subsystem", "bus/pci")
	if f.driver != "" {
		s.link(folder+"/driver", "bus/pci/drivers/"+f.driver)
		s.link("bus/pci/drivers/"+f.driver+"/"+f.pci, folder)
	}
	if s.iommu {
		group := fmt.Sprintf("kernel/iommu_groups/%d", s.groups)
		s.groups++
		s.link(folder+"/iommu_group", group)
		s.link(group+"/devices/"+f.pci, folder)
	}
	return folder
}

func (s *sysfs) gpus() {
	m := s.p.GPUModel
	for _, g := range s.p.GPUs {
		s.pci(function{pci: g.PCI, id: m.ID, subsystem: m.SubsystemID, class: m.Class, driver: "nvidia", generation: m.PCIeGeneration, width: 16})
	}
	for _, w := range s.p.NVSwitches {
		s.pci(function{pci: w.PCI, id: w.ID, subsystem: w.ID, class: "0x068000", driver: "nvidia-nvswitch", generation: 4, width: 2})
	}
}

func (s *sysfs) cpuList(numa int) string {
	for _, n := range s.p.NUMANodes {
		if n.ID == numa {
			return n.CPUs
		}
	}
	return ""
}

// linkSpeed as drivers/pci/probe.c words PCIe generations.
func linkSpeed(generation int) string {
	speeds := []string{"Unknown", "2.5 GT/s PCIe", "5.0 GT/s PCIe", "8.0 GT/s PCIe", "16.0 GT/s PCIe", "32.0 GT/s PCIe", "64.0 GT/s PCIe"}
	if generation < 0 || generation >= len(speeds) {
		generation = 0
	}
	return speeds[generation]
}

func join(numbers []int, separator string) string {
	words := make([]string, len(numbers))
	for i, n := range numbers {
		words[i] = strconv.Itoa(n)
	}
	return strings.Join(words, separator)
}
