// The driver root: what a driver installation leaves in a node's file system,
// as far as the agent and NVIDIA's CDI library look at it, and the files that
// tell the NVML simulator about the profile's GPUs.

package machine

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/hostler-dev/hostler/test/nvmlsim"
)

func renderDriver(p *Profile, r *Rendered, options RenderOptions) error {
	library, err := options.Library, error(nil)
	switch {
	case library != "":
	case options.OldDriver:
		library, err = nvmlsim.BuildOldDriver("")
	default:
		library, err = nvmlsim.Build("")
	}
	if err != nil {
		return err
	}
	cuda, err := nvmlsim.BuildCUDA("")
	if err != nil {
		return err
	}
	t := newTree(r.DriverRoot)
	for name, source := range map[string]string{"libnvidia-ml": library, "libcuda": cuda} {
		versioned := "usr/lib64/" + name + ".so." + p.Driver.Version
		content, err := os.ReadFile(source)
		if err != nil {
			return fmt.Errorf("install %s into %s: %w", source, r.DriverRoot, err)
		}
		t.raw(versioned, content, 0o755)
		t.link("usr/lib64/"+name+".so.1", versioned)
	}
	t.link("usr/lib64/libcuda.so", "usr/lib64/libcuda.so.1")
	t.raw("usr/bin/nvidia-smi", []byte(nvidiaSMI(p, options.NodeIndex)), 0o755)
	r.Library = filepath.Join(r.DriverRoot, "usr/lib64/libnvidia-ml.so.1")
	r.Control = filepath.Join(r.DriverRoot, "nvmlsim")
	if t.err != nil {
		return t.err
	}
	return seed(p, nvmlsim.Control{Dir: r.Control}, options.NodeIndex)
}

// seed fills the control folder with idle, healthy GPUs.
func seed(p *Profile, control nvmlsim.Control, nodeIndex int) error {
	if err := control.NewMachine(p.Driver.Version, p.Driver.CUDA); err != nil {
		return err
	}
	s := newSysfs(p, "", nodeIndex)
	for i, g := range p.GPUs {
		attributes := p.staticAttributes(nodeIndex, g)
		for name, value := range p.idleAttributes() {
			attributes[name] = value
		}
		attributes["pcie_path"] = strings.TrimPrefix(s.paths[g.PCI], "devices/")
		attributes["numa_node"] = strconv.Itoa(s.numa[g.PCI])
		if err := control.AddGPU(i, attributes); err != nil {
			return err
		}
	}
	return nil
}

func (p *Profile) staticAttributes(nodeIndex int, g GPU) map[string]string {
	m := p.GPUModel
	bus, _ := busAndFunction(g.PCI)
	a := map[string]string{
		"uuid": p.GPUUUID(nodeIndex, g.PCI), "name": m.Name, "minor": strconv.Itoa(g.Minor), "module_id": strconv.Itoa(g.Minor + 1),
		"pci_bus_id": g.PCI, "pci_device_id": nvmlID(m.ID), "pci_subsystem_id": nvmlID(m.SubsystemID), "pci_class": m.Class,
		"brand": strconv.Itoa(m.Brand), "architecture": strconv.Itoa(architectures[m.Architecture]), "compute_capability": m.ComputeCapability,
		"serial": p.gpuSerial(nodeIndex, g), "vbios": m.VBIOS, "board_id": strconv.Itoa(int(bus) << 8), "board_part": m.BoardPart,
		"cores": strconv.Itoa(m.Cores), "memory_bus_bits": strconv.Itoa(m.MemoryBusBits),
		"memory_total": strconv.FormatUint(m.MemoryMiB<<20, 10), "memory_reserved": strconv.FormatUint(m.ReservedMiB<<20, 10), "bar1_total": strconv.FormatUint(128<<30, 10),
		"pcie_generation": strconv.Itoa(m.PCIeGeneration), "pcie_max_generation": strconv.Itoa(m.PCIeGeneration), "pcie_width": "16", "pcie_max_width": "16",
		"power_limit_milliwatts": strconv.Itoa(m.LimitWatts * 1000), "clock_sm_max": strconv.Itoa(m.MaxSMClockMHz), "clock_memory_max": strconv.Itoa(m.MemoryClockMHz),
		"temperature_slowdown": "87", "temperature_shutdown": "92", "persistence_mode": "1", "compute_mode": "0", "multi_gpu_board": "0", "addressing_mode": "1",
	}
	if m.MIGCapable {
		a["mig_mode"] = "0 0"
		if profiles := m.migProfileLines(); profiles != "" {
			a["mig_profiles"] = profiles
		}
	}
	if g.MIG != nil {
		a["mig_mode"] = "1 1"
		a["mig_instances"] = p.migInstanceLines(nodeIndex, g)
	}
	if g.MemoryNode != nil {
		a["gpu_numa_node"] = strconv.Itoa(*g.MemoryNode)
	}
	if links := p.nvlinks(g); links != "" {
		a["nvlinks"] = links
		a["nvlink_count"] = strconv.Itoa(strings.Count(links, "\n"))
	}
	if fabric := p.fabricInfo(); fabric != "" {
		a["fabric"] = fabric
	}
	return a
}

func (p *Profile) idleAttributes() map[string]string {
	m := p.GPUModel
	a := map[string]string{
		"utilization": "0", "memory_utilization": "0", "memory_used": "0", "temperature": "31", "power_milliwatts": strconv.Itoa(m.IdleWatts * 1000),
		"energy_millijoules": "1000000", "clock_sm": strconv.Itoa(m.SMClockMHz), "clock_memory": strconv.Itoa(m.MemoryClockMHz), "clock_reasons": "1",
		"pcie_replay": "0", "recovery_action": "none", "processes": "",
	}
	if m.ECC {
		for _, counter := range []string{"ecc_volatile_corrected", "ecc_volatile_uncorrected", "ecc_aggregate_corrected", "ecc_aggregate_uncorrected",
			"remapped_correctable", "remapped_uncorrectable", "remapping_pending", "remapping_failed"} {
			a[counter] = "0"
		}
		a["ecc_mode"], a["temperature_memory"] = "1", "38"
	}
	if p.NVLink != nil {
		a["nvlink_replay"], a["nvlink_recovery"], a["nvlink_crc"] = "0", "0", "0"
	}
	return a
}

// nvmlID turns "10de:2330" into NVML's combined 0x233010de.
func nvmlID(id string) string {
	vendor, device, _ := strings.Cut(id, ":")
	return "0x" + device + vendor
}

// nvidiaSMI is a stand-in that lists the GPUs whose device nodes are there, in
// a container those that it was given.
func nvidiaSMI(p *Profile, nodeIndex int) string {
	var b strings.Builder
	b.WriteString("#!/bin/sh\n# A stand-in for nvidia-smi on a simulated machine: it knows -L.\nindex=0\n")
	b.WriteString("gpu() {\n\t[ -c \"/dev/nvidia$1\" ] || return 0\n\techo \"GPU $index: $3 (UUID: $2)\"\n\tindex=$((index + 1))\n}\n")
	for _, g := range p.GPUs {
		fmt.Fprintf(&b, "gpu %d %s '%s'\n", g.Minor, p.GPUUUID(nodeIndex, g.PCI), p.GPUModel.Name)
	}
	return b.String()
}
