// One PCI function: its class, IDs, driver and SR-IOV relations. An attribute that
// the kernel cannot give (EIO of a device in trouble) or that makes no sense costs
// itself, as a problem; only a function without place or class is left out.

package pci

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/hostler-dev/hostler/topology"
	"github.com/hostler-dev/hostler/topology/sysfs"
)

// Function is one PCI function.
type Function struct {
	Placement topology.Placement
	// Class is the 24-bit class code: 0x020000 an Ethernet controller, 0x030200 a 3D controller.
	Class              uint32
	VendorID, DeviceID string // "10de", "2330"
	// Driver is the bound kernel driver, "" if none.
	Driver string
	// DriverOverride of a GPU is the only driver that may be bound to it, "" if any may.
	DriverOverride string
	// PF is the address of the physical function if this is a virtual one.
	PF string
	// NumVFs and TotalVFs of a physical function with SR-IOV.
	NumVFs, TotalVFs int
	// VFs are the addresses of its virtual functions, by VF number; only those in the tree.
	VFs map[int]string
}

// Classes, from the PCI code and ID assignment specification. An NVSwitch shows
// itself as "other bridge device", as NVIDIA's driver matches it (PCI_CLASS_BRIDGE_OTHER).
const (
	baseClassNetwork = 0x02
	classVGA         = 0x0300
	class3D          = 0x0302
	classPCIBridge   = 0x0604
	classOtherBridge = 0x0680
	vendorNVIDIA     = "10de"
)

// maxVFs is the width of NumVFs and TotalVFs in the SR-IOV capability.
const maxVFs = 1<<16 - 1

// IsNetwork tells network and InfiniBand controllers.
func (f *Function) IsNetwork() bool { return f.Class>>16 == baseClassNetwork }

// IsNVIDIAGPU tells NVIDIA's physical GPUs. Virtual functions of GPUs serve vGPU
// guests and are not what the driver's library lists.
func (f *Function) IsNVIDIAGPU() bool {
	return (f.Class>>8 == classVGA || f.Class>>8 == class3D) && f.VendorID == vendorNVIDIA && f.PF == ""
}

// IsNVSwitch tells NVIDIA's NVLink switches.
func (f *Function) IsNVSwitch() bool {
	return f.Class>>8 == classOtherBridge && f.VendorID == vendorNVIDIA && f.PF == ""
}

// IsBridge tells PCI bridges, the ports of switches and root complexes among them.
func (f *Function) IsBridge() bool { return f.Class>>8 == classPCIBridge }

// folder is a function's sysfs folder while it is read.
type folder struct {
	tree    *Tree
	sys     sysfs.Root
	address string
}

func (t *Tree) readFunction(sys sysfs.Root, address string) error {
	pci, err := topology.CanonicalPCI(address)
	if err != nil {
		return err
	}
	at := folder{tree: t, sys: sys, address: address}
	target, err := os.Readlink(sys.Path(at.path("")...))
	if sysfs.Absent(err) {
		return nil // removed since the listing
	}
	if err != nil {
		return fmt.Errorf("find its place in the tree: %w", err)
	}
	if filepath.Base(target) != address {
		return fmt.Errorf("its link leads to %q, which is another function", target)
	}
	class, err := sys.Text(at.path("class")...)
	if sysfs.Absent(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read its class: %w", err)
	}
	number, err := strconv.ParseUint(strings.TrimPrefix(class, "0x"), 16, 24)
	if err != nil {
		return fmt.Errorf("its class is %q, which is not a class code", class)
	}
	f := &Function{Class: uint32(number), VendorID: at.id("vendor"), DeviceID: at.id("device"), Driver: sys.LinkBase(at.path("driver")...)}
	f.Placement = topology.Placement{PCI: pci, NUMANode: -1, Socket: -1, IOMMUGroup: sys.LinkBase(at.path("iommu_group")...)}
	f.Placement.PCIeRoot, f.Placement.Path = placeInPath(target)
	t.placeInNUMA(f, at.number("numa_node", -1))
	if pf, err := topology.CanonicalPCI(sys.LinkBase(at.path("physfn")...)); err == nil {
		f.PF = pf
	}
	switch {
	case f.IsBridge():
		if kind, told := readPort(sys.Path(at.path("config")...)); told {
			t.told[pci] = kind
		}
	case f.IsNetwork() && f.PF == "":
		at.readVFs(f)
	case f.IsNVIDIAGPU():
		f.DriverOverride = at.text("driver_override")
		if f.DriverOverride == "(null)" { // how the kernel words that there is none
			f.DriverOverride = ""
		}
	}
	t.Functions[pci] = f
	return nil
}

func (d folder) path(name string) []string {
	return []string{"bus", "pci", "devices", d.address, name}
}

func (d folder) problem(name string, err error) {
	d.tree.problem(name+" of PCI function "+d.address, err)
}

// text is an attribute, "" if the function does not have it.
func (d folder) text(name string) string {
	text, err := d.sys.Text(d.path(name)...)
	if err != nil && !sysfs.Absent(err) {
		d.problem(name, err)
	}
	return text
}

// number is a decimal attribute.
func (d folder) number(name string, otherwise int) int {
	text := d.text(name)
	if text == "" {
		return otherwise
	}
	number, err := strconv.ParseInt(text, 10, 32)
	if err != nil {
		d.problem(name, fmt.Errorf("%q is not a number", text))
		return otherwise
	}
	return int(number)
}

// id is a vendor or device ID, four hexadecimal digits.
func (d folder) id(name string) string {
	text := d.text(name)
	if text == "" {
		return ""
	}
	number, err := strconv.ParseUint(strings.TrimPrefix(text, "0x"), 16, 16)
	if err != nil {
		d.problem(name, fmt.Errorf("%q is not a PCI ID", text))
		return ""
	}
	return fmt.Sprintf("%04x", number)
}

// readVFs lists the folder once: VFs that come or go meanwhile are there or not,
// and no number up to TotalVFs is tried in vain.
func (d folder) readVFs(f *Function) {
	f.TotalVFs, f.NumVFs = d.number("sriov_totalvfs", 0), d.number("sriov_numvfs", 0)
	if f.NumVFs < 0 || f.NumVFs > f.TotalVFs || f.TotalVFs > maxVFs {
		d.problem("sriov_numvfs", fmt.Errorf("%d of %d VFs is not possible; treated as a function without SR-IOV", f.NumVFs, f.TotalVFs))
		f.NumVFs, f.TotalVFs = 0, 0
	}
	if f.NumVFs == 0 {
		return
	}
	names, err := d.sys.Names(d.path("")...)
	if err != nil {
		d.problem("virtfn links", err)
	}
	f.VFs = make(map[int]string, f.NumVFs)
	for _, name := range names {
		digits, isVF := strings.CutPrefix(name, "virtfn")
		number, err := strconv.ParseUint(digits, 10, 16)
		if !isVF || err != nil {
			continue
		}
		if pci, err := topology.CanonicalPCI(d.sys.LinkBase(d.path(name)...)); err == nil {
			f.VFs[int(number)] = pci
		}
	}
}
