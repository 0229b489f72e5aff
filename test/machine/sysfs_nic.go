// The sysfs of NICs: netdevs (Documentation/ABI/testing/sysfs-class-net),
// SR-IOV (Documentation/ABI/testing/sysfs-bus-pci) and RDMA devices
// (Documentation/ABI/stable/sysfs-class-infiniband), in the files that agents,
// rdmamap and rdma-core read.

package machine

import (
	"fmt"
	"net"
	"strconv"
	"strings"
)

func (s *sysfs) nic(n *NIC) {
	folder := s.pci(function{pci: n.PCI, id: n.ID, subsystem: n.ID, class: n.RDMA.class(), driver: n.Driver, generation: n.PCIeGeneration, width: n.Width})
	s.netdev(folder, n.Interface, n, n.PCI, n.RDMA)
	s.rdma(folder, n.Interface, n.ID, n.RDMA, s.p.MAC(s.node, n.PCI), n.PCI)
	if n.DataDirect != nil {
		s.dataDirect(n, folder)
	}
	if n.TotalVFs == 0 {
		return
	}
	s.file(folder+"/sriov_totalvfs", n.TotalVFs)
	s.file(folder+"/sriov_numvfs", len(n.VFs))
	s.file(folder+"/sriov_drivers_autoprobe", 1)
	_, device, _ := strings.Cut(n.VFID, ":")
	s.file(folder+"/sriov_vf_device", device)
	for i := range n.VFs {
		s.vf(n, folder, i)
	}
}

func (s *sysfs) vf(n *NIC, physical string, index int) {
	f := n.VFs[index]
	folder := s.pci(function{pci: f.PCI, id: n.VFID, subsystem: n.ID, class: f.RDMA.class(), driver: f.Driver, generation: 0, width: 0})
	s.link(folder+"/physfn", physical)
	s.link(fmt.Sprintf("%s/virtfn%d", physical, index), folder)
	s.netdev(folder, f.Interface, n, f.PCI, f.RDMA)
	s.rdma(folder, f.Interface, n.VFID, f.RDMA, s.p.MAC(s.node, f.PCI), n.PCI)
}

// dataDirect is the card's second function. Both have the same VU keyword.
func (s *sysfs) dataDirect(n *NIC, physical string) {
	folder := s.pci(function{pci: n.DataDirect.PCI, id: dataDirectID, subsystem: dataDirectID, class: "0x080100", driver: "mlx5_ib", generation: n.PCIeGeneration, width: n.Width})
	mac := s.p.MAC(s.node, cardAddress(n.PCI))
	vpd := vitalProductData("ConnectX-8", fmt.Sprintf("MT%X", []byte(mac)), fmt.Sprintf("MT%XMLNXS0D0F0", []byte(mac)))
	s.raw(physical+"/vpd", vpd, 0o444)
	s.raw(folder+"/vpd", vpd, 0o444)
}

// netdev of a function; an InfiniBand port's is the IPoIB one.
func (s *sysfs) netdev(device, name string, n *NIC, pci string, rdma *RDMA) {
	if name == "" {
		return
	}
	folder := device + "/net/" + name
	// udev made the np0 of the name from the port's name.
	portName := strings.TrimPrefix(portSuffix.FindString(name), "n")
	index := s.index[name]
	address, kind, broadcast := s.p.MAC(s.node, pci), 1, "ff:ff:ff:ff:ff:ff"
	if rdma.infiniBand() {
		// ARPHRD_INFINIBAND; the broadcast group of the default partition (RFC 4391, section 4).
		address, kind = ipoibAddress(address), 32
		broadcast = "00:ff:ff:ff:ff:12:40:1b:ff:ff:00:00:00:00:00:00:ff:ff:ff:ff"
	}
	for file, value := range map[string]any{
		"address": address, "addr_len": len(address), "broadcast": broadcast, "mtu": n.MTU, "type": kind, "speed": n.SpeedMbps, "duplex": "full",
		"operstate": "up", "carrier": 1, "carrier_changes": 2, "flags": "0x1003", "tx_queue_len": 1000, "name_assign_type": 4,
		"ifindex": index, "iflink": index, "dev_id": "0x0", "dev_port": 0, "phys_port_name": portName,
		// Only a NIC in switchdev mode has one.
		"phys_switch_id": "", "ifalias": "", "uevent": fmt.Sprintf("INTERFACE=%s\nIFINDEX=%d", name, index),
	} {
		s.file(folder+"/"+file, value)
	}
	s.statistics(folder)
	s.link(folder+"/device", device)
	s.link(folder+"/subsystem", "class/net")
	s.link("class/net/"+name, folder)
}

func (s *sysfs) statistics(folder string) {
	for _, counter := range []string{
		"collisions", "multicast", "rx_bytes", "rx_packets", "rx_errors", "rx_dropped", "rx_crc_errors", "rx_fifo_errors",
		"rx_frame_errors", "rx_length_errors", "rx_missed_errors", "rx_over_errors", "rx_nohandler", "rx_compressed",
		"tx_bytes", "tx_packets", "tx_errors", "tx_dropped", "tx_aborted_errors", "tx_carrier_errors", "tx_fifo_errors",
		"tx_heartbeat_errors", "tx_window_errors", "tx_compressed",
	} {
		s.file(folder+"/statistics/"+counter, 0)
	}
}

// rdma is the RDMA device of a function and the character devices that go with it.
func (s *sysfs) rdma(device, interfaceName, id string, r *RDMA, mac net.HardwareAddr, physical string) {
	if r == nil {
		return
	}
	folder := device + "/infiniband/" + r.Name
	// mlx5 calls the card by its PCI device ID in decimal: 0x1021 is MT4129.
	_, hex, _ := strings.Cut(id, ":")
	number, _ := strconv.ParseUint(hex, 16, 16)
	for file, value := range map[string]any{
		"node_guid": guid(mac), "sys_image_guid": guid(s.p.MAC(s.node, cardAddress(physical))), "node_type": "1: CA", "node_desc": r.Name,
		"fw_ver": r.Firmware, "hca_type": fmt.Sprintf("MT%d", number), "hw_rev": 0, "board_id": r.BoardID,
	} {
		s.file(folder+"/"+file, value)
	}
	s.link(folder+"/device", device)
	s.link(folder+"/subsystem", "class/infiniband")
	s.link("class/infiniband/"+r.Name, folder)
	s.rdmaPort(folder+"/ports/1", interfaceName, r, mac)

	for _, c := range r.charDevices() {
		s.charDevice(device, r.Name, c)
	}
}

func (s *sysfs) rdmaPort(folder, interfaceName string, r *RDMA, mac net.HardwareAddr) {
	gidType, lid, subnetManager := "RoCE v2", "0x0", "0x0"
	if r.infiniBand() {
		gidType, lid, subnetManager = "IB/RoCE v1", fmt.Sprintf("%#x", r.Index+2), "0x1"
	}
	for file, value := range map[string]any{
		"state": "4: ACTIVE", "phys_state": "5: LinkUp", "link_layer": r.LinkLayer, "rate": r.Rate,
		"lid": lid, "sm_lid": subnetManager, "cap_mask": "0x04010000", "lid_mask_count": 0, "sm_sl": 0,
		"gids/0": linkLocalGID(mac), "pkeys/0": "0xffff", "gid_attrs/types/0": gidType,
	} {
		s.file(folder+"/"+file, value)
	}
	if interfaceName != "" {
		s.file(folder+"/gid_attrs/ndevs/0", interfaceName)
	}
	for _, counter := range []string{
		"port_rcv_data", "port_xmit_data", "port_rcv_packets", "port_xmit_packets", "port_rcv_errors", "port_xmit_discards",
		"port_xmit_wait", "symbol_error", "link_downed", "link_error_recovery", "local_link_integrity_errors",
		"excessive_buffer_overrun_errors", "port_rcv_constraint_errors", "port_xmit_constraint_errors",
		"port_rcv_remote_physical_errors", "port_rcv_switch_relay_errors", "VL15_dropped",
		"unicast_rcv_packets", "unicast_xmit_packets", "multicast_rcv_packets", "multicast_xmit_packets",
	} {
		s.file(folder+"/counters/"+counter, 0)
	}
	for _, counter := range []string{
		"out_of_buffer", "out_of_sequence", "packet_seq_err", "local_ack_timeout_err", "rnr_nak_retry_err", "implied_nak_seq_err",
		"np_cnp_sent", "np_ecn_marked_roce_packets", "rp_cnp_handled", "rx_icrc_encapsulated", "roce_adp_retrans", "lifespan",
		"duplicate_request", "req_cqe_error", "resp_cqe_error", "rx_read_requests", "rx_write_requests",
	} {
		s.file(folder+"/hw_counters/"+counter, 0)
	}
}

// charDevice is a class device such as infiniband_verbs/uverbs0.
func (s *sysfs) charDevice(device, rdmaName string, c charDevice) {
	folder := fmt.Sprintf("%s/%s/%s", device, c.class, c.name)
	s.file(folder+"/ibdev", rdmaName)
	s.file(folder+"/dev", fmt.Sprintf("%d:%d", c.major, c.minor))
	s.file(folder+"/"+c.attribute, 1)
	s.link(folder+"/device", device)
	s.link(fmt.Sprintf("class/%s/%s", c.class, c.name), folder)
}
