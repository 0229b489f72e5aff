// NICs: physical functions with their VFs, RDMA devices and second PCIe
// interfaces. Hundreds of VFs are written as a number; their addresses follow as the
// SR-IOV capability computes them (PCI Express specification, 9.2.1.2).

package machine

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// NIC is one physical function with a netdev, an RDMA device or both.
type NIC struct {
	PCI    string `json:"pci"`
	Parent string `json:"parent"`
	ID     string `json:"id"`
	// Driver is the kernel driver, "mlx5_core".
	Driver string `json:"driver"`
	// Interface is the netdev's name: of an InfiniBand port the IPoIB netdev, "" without one.
	Interface string `json:"interface,omitempty"`
	SpeedMbps int    `json:"speedMbps"`
	MTU       int    `json:"mtu"`
	// PCIeGeneration and Width of its link.
	PCIeGeneration int `json:"pcieGeneration"`
	Width          int `json:"width"`
	// Uplink marks a NIC that the node itself lives on; of the first one the
	// cluster makes the netdev.
	Uplink bool  `json:"uplink,omitempty"`
	RDMA   *RDMA `json:"rdma,omitempty"`
	// DataDirect is the card's second PCIe interface, through which it reaches GPU memory.
	DataDirect *DataDirect `json:"dataDirect,omitempty"`
	// TotalVFs is what the function could have; VFs are the ones that exist.
	TotalVFs int    `json:"totalVFs,omitempty"`
	VFID     string `json:"vfID,omitempty"`
	VFs      []VF   `json:"vfs,omitempty"`
	// VFCount stands for as many VFs: at VFOffset, VFOffset+VFStride, … functions
	// after the PF (both 1 if not given), bound to the PF's driver, their netdevs
	// named <pf>v0, <pf>v1, … and their RDMA devices mlx5_<VFRDMAIndex>, … (none if 0).
	// Parse replaces these four by the VFs.
	VFCount     int `json:"vfCount,omitempty"`
	VFOffset    int `json:"vfOffset,omitempty"`
	VFStride    int `json:"vfStride,omitempty"`
	VFRDMAIndex int `json:"vfRDMAIndex,omitempty"`
}

// DataDirect is a function of its own, mostly below another root than its NIC's;
// equal VU keywords in their vital product data tie the two
// (drivers/infiniband/hw/mlx5/data_direct.c).
type DataDirect struct {
	PCI    string `json:"pci"`
	Parent string `json:"parent"`
}

// dataDirectID is the only device that the kernel's driver knows.
const dataDirectID = "15b3:2100"

// VF is a virtual function of a NIC.
type VF struct {
	PCI string `json:"pci"`
	// Interface "" means a VF without a netdev driver.
	Interface string `json:"interface,omitempty"`
	Driver    string `json:"driver,omitempty"`
	RDMA      *RDMA  `json:"rdma,omitempty"`
}

// RDMA is the RDMA device of a NIC.
type RDMA struct {
	Name string `json:"name"`
	// Index is the N of uverbsN and umadN.
	Index int `json:"index"`
	// Rate as sysfs words it, "400 Gb/sec (4X NDR)".
	Rate      string `json:"rate"`
	Firmware  string `json:"firmware"`
	BoardID   string `json:"boardID"`
	LinkLayer string `json:"linkLayer"`
}

// infiniBand tells a port in InfiniBand mode, which shows in the PCI class too.
func (r *RDMA) infiniBand() bool { return r != nil && r.LinkLayer == "InfiniBand" }

// class is the PCI class of a function with that RDMA device.
func (r *RDMA) class() string {
	if r.infiniBand() {
		return "0x020700"
	}
	return "0x020000"
}

// portSuffix is what udev appends for the port's name.
var portSuffix = regexp.MustCompile(`np[0-9]+$`)

func (n *NIC) expandVFs() error {
	count, offset, stride, rdma := n.VFCount, max(n.VFOffset, 1), max(n.VFStride, 1), n.VFRDMAIndex
	if min(count, n.VFOffset, n.VFStride, rdma) < 0 {
		return errors.New("vfCount, vfOffset, vfStride and vfRDMAIndex must not be negative")
	}
	n.VFCount, n.VFOffset, n.VFStride, n.VFRDMAIndex = 0, 0, 0, 0
	if count == 0 {
		return nil
	}
	if len(n.VFs) > 0 {
		return errors.New("vfs and vfCount exclude each other")
	}
	if !pciPattern.MatchString(n.PCI) {
		return fmt.Errorf("%q is not a PCI address like 0000:17:00.0", n.PCI)
	}
	bus, devfn := busAndFunction(n.PCI)
	first := int(bus)<<8 | int(devfn)
	if last := first + offset + (count-1)*stride; max(count, offset, stride) > 1<<15 || last > 0xffff {
		return fmt.Errorf("%d VFs from offset %d with stride %d do not fit behind %s", count, offset, stride, n.PCI)
	}
	base := portSuffix.ReplaceAllString(n.Interface, "")
	for i := range count {
		id := first + offset + i*stride
		vf := VF{PCI: fmt.Sprintf("%s:%02x:%02x.%d", n.PCI[:4], id>>8, id>>3&0x1f, id&7), Driver: n.Driver}
		if base != "" {
			vf.Interface = base + "v" + strconv.Itoa(i)
		}
		if rdma > 0 && n.RDMA != nil {
			device := *n.RDMA
			device.Index = rdma + i
			device.Name = "mlx5_" + strconv.Itoa(device.Index)
			vf.RDMA = &device
		}
		n.VFs = append(n.VFs, vf)
	}
	return nil
}

// cardAddress is the card's first function, from which it has its identity.
func cardAddress(pci string) string { return pci[:strings.LastIndexByte(pci, '.')] + ".0" }
