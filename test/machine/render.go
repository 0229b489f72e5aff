// Rendering is writing: three folders in a fixed order, no choice left to the
// machine that it runs on, so that the same profile always gives the same files.

package machine

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
)

// RenderOptions of a machine; the zero value is node 0 with a current driver.
type RenderOptions struct {
	// NodeIndex tells nodes of one cluster apart: it goes into UUIDs, MACs and GUIDs. 0 to 255.
	NodeIndex int
	// Library is a simulator that was built before; "" builds or finds it in the user's cache.
	Library string
	// OldDriver installs a driver whose library lacks the newer NVML calls.
	OldDriver bool
	// NoDriver leaves the driver root empty: a node whose driver is not installed yet.
	NoDriver bool
	// IOMMU boots the machine with its IOMMU on, also where the profile has no groups.
	IOMMU bool
}

// Rendered says where the machine is.
type Rendered struct {
	// Sys, Dev and DriverRoot take the place of /sys, /dev and the driver root.
	Sys, Dev, DriverRoot string
	// ProcDriver takes the place of /proc/driver on a machine with a GPU in MIG
	// mode, "" on others: NVIDIA's CDI library looks there for instances' device nodes.
	ProcDriver string
	// Library is the NVML library inside the driver root, Control the folder
	// that steers it (see test/nvmlsim); both "" without a driver.
	Library, Control string
	// Notes say what could not be rendered here, such as device nodes without root.
	Notes []string
}

// Render writes the machine into dir, which must not hold one already.
func Render(p *Profile, dir string, options RenderOptions) (*Rendered, error) {
	if options.NodeIndex < 0 || options.NodeIndex > 255 {
		return nil, fmt.Errorf("render machine %s: node index %d is not within 0 to 255", p.Name, options.NodeIndex)
	}
	r := &Rendered{
		Sys:        filepath.Join(dir, "sys"),
		Dev:        filepath.Join(dir, "dev"),
		DriverRoot: filepath.Join(dir, "driver"),
	}
	for _, folder := range []string{r.Sys, r.Dev, r.DriverRoot} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, fmt.Errorf("render machine %s: %w", p.Name, err)
		}
		if err := os.Mkdir(folder, 0o755); err != nil {
			return nil, fmt.Errorf("render machine %s: %s must not exist yet: %w", p.Name, folder, err)
		}
	}
	if err := renderSys(p, r.Sys, options); err != nil {
		return nil, err
	}
	notes, err := renderDev(p, r.Dev)
	if err != nil {
		return nil, err
	}
	r.Notes = notes
	if options.NoDriver {
		return r, nil
	}
	if err := renderDriver(p, r, options); err != nil {
		return nil, err
	}
	if !slices.ContainsFunc(p.GPUs, func(g GPU) bool { return g.MIG != nil }) {
		return r, nil
	}
	r.ProcDriver = filepath.Join(r.DriverRoot, "proc/driver")
	proc := newTree(r.ProcDriver)
	proc.raw("nvidia-caps/mig-minors", []byte(migMinors(p)), 0o444)
	return r, proc.err
}

// renderSys writes the sysfs tree.
func renderSys(p *Profile, root string, options RenderOptions) error {
	s := newSysfs(p, root, options.NodeIndex)
	s.iommu = s.iommu || options.IOMMU
	s.processors()
	s.bridges()
	s.gpus()
	for i := range p.NICs {
		s.nic(&p.NICs[i])
	}
	s.loopback()
	s.stack()
	s.file("devices/virtual/dmi/id/product_name", p.Product)
	s.link("class/dmi/id", "devices/virtual/dmi/id")
	s.file("module/nvidia/version", p.Driver.Version)
	s.file("module/nvidia/initstate", "live")
	// Mount points that a container runtime expects below /sys.
	s.folder("fs/cgroup")
	s.folder("kernel/debug")
	return s.err
}
