package topology

import (
	"net/netip"
	"slices"
)

// NICKind tells physical from virtual functions.
type NICKind string

const (
	PF NICKind = "pf"
	VF NICKind = "vf"
)

// NIC is one PCI function that carries a netdev, an RDMA device or both.
type NIC struct {
	// Name is the device's name in slices, logs and metrics, "nic-0000-18-00-0".
	Name string  `json:"name"`
	Kind NICKind `json:"kind"`
	// Parent is the PF's name if this is a VF.
	Parent string `json:"parent,omitempty"`
	// VFID is the VF's number at its PF, -1 on a PF.
	VFID int `json:"vfID"`
	// NumVFs and TotalVFs are a PF's configured and possible VFs.
	NumVFs   int `json:"numVFs,omitempty"`
	TotalVFs int `json:"totalVFs,omitempty"`
	// Driver is the bound kernel driver, "" if none.
	Driver   string `json:"driver,omitempty"`
	VendorID string `json:"vendorID,omitempty"` // "15b3"
	DeviceID string `json:"deviceID,omitempty"` // "1021"
	// Firmware is the card's firmware version as its driver words it.
	Firmware string `json:"firmware,omitempty"`
	// Link is the function's netdev; nil on IB-only devices and while the
	// netdev is in a pod's network namespace.
	Link *Link `json:"link,omitempty"`
	// RDMA is the function's RDMA device, nil if it has none.
	RDMA *RDMADevice `json:"rdma,omitempty"`
	// Uplink, if not empty, is the reason why the node itself lives on this
	// device ("carries the default route 0.0.0.0/0 via eth0"). Such a device is
	// never given to a pod.
	Uplink    string    `json:"uplink,omitempty"`
	Placement Placement `json:"placement"`
	// DataDirect is where the card's second PCIe interface sits, through which it
	// reaches GPU memory (ConnectX-8 Data Direct); nil on cards that have one interface.
	DataDirect *Placement `json:"dataDirect,omitempty"`
	Problems   []Problem  `json:"problems,omitempty"`
}

// NetdevAway reports whether the NIC has a netdev that is not in the host's
// network namespace: some pod or program took it. InfiniBand devices and those
// of clouds (EFA, eRDMA) have none to begin with; RDMA over Ethernet always has one,
// and is no NIC for a pod without it. It is the ports that say which it is.
func (n *NIC) NetdevAway() bool {
	if n.Link != nil {
		return false
	}
	if n.RDMA == nil {
		return true
	}
	return n.Driver != "efa" && n.Driver != "erdma" && !n.RDMA.infiniBand()
}

// Link is a netdev of the host's network namespace.
type Link struct {
	Name string `json:"name"`
	// Index is the netdev's ifindex, 0 if the namespace does not have it.
	Index int    `json:"index,omitempty"`
	MAC   string `json:"mac,omitempty"`
	// MTU in bytes.
	MTU int `json:"mtu,omitempty"`
	// Type is "ethernet" or "infiniband".
	Type string `json:"type,omitempty"`
	// SpeedMbps in megabits per second, 0 if unknown.
	SpeedMbps int `json:"speedMbps,omitempty"`
	// Up is the operational state: administratively up with carrier.
	Up bool `json:"up"`
	// Addresses of the netdev, link-local ones left out.
	Addresses []netip.Prefix `json:"addresses,omitempty"`
}

// RDMADevice is an InfiniBand, RoCE or iWARP device of a NIC.
type RDMADevice struct {
	// Name such as "mlx5_0".
	Name     string `json:"name"`
	NodeGUID string `json:"nodeGUID,omitempty"`
	// SystemImageGUID is equal on all functions of one card.
	SystemImageGUID string     `json:"systemImageGUID,omitempty"`
	Ports           []RDMAPort `json:"ports,omitempty"`
	// CharDevices are the device nodes that verbs needs for this device alone
	// (uverbsN, umadN, issmN) and the shared rdma_cm, as paths under /dev.
	CharDevices []string `json:"charDevices,omitempty"`
}

// infiniBand reports whether all ports say that they are InfiniBand's.
func (r *RDMADevice) infiniBand() bool {
	return len(r.Ports) > 0 && !slices.ContainsFunc(r.Ports, func(p RDMAPort) bool { return p.LinkLayer != "InfiniBand" })
}

// RDMAPort is one port of an RDMA device.
type RDMAPort struct {
	Port int `json:"port"`
	// GUID is the port's EUI-64, the second half of its first GID.
	GUID string `json:"guid,omitempty"`
	// State as sysfs words it, "ACTIVE", "DOWN", "INIT", "ARMED".
	State     string `json:"state,omitempty"`
	PhysState string `json:"physState,omitempty"`
	// LinkLayer is "InfiniBand" or "Ethernet".
	LinkLayer string `json:"linkLayer,omitempty"`
	// Rate as sysfs words it, "400 Gb/sec (4X NDR)".
	Rate string `json:"rate,omitempty"`
}

// StackedLink is a netdev of the node without hardware of its own: a bond, VLAN,
// bridge, tunnel or the like over the netdevs of NICs or over other stacked links.
type StackedLink struct {
	Name string `json:"name"`
	// Kind is the rtnl link kind, "bond", "vlan", "bridge", "vxlan", …
	Kind string `json:"kind"`
	// Lower are the names of the links that it lies over, sorted.
	Lower []string `json:"lower"`
	MTU   int      `json:"mtu,omitempty"`
	Up    bool     `json:"up"`
	// Addresses of the netdev, link-local ones left out.
	Addresses []netip.Prefix `json:"addresses,omitempty"`
	// Uplink is why the node lives on it, as in NIC.
	Uplink string `json:"uplink,omitempty"`
}
