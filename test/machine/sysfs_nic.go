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
	folder := s.pci(function{pci: n.PCI, id: n.ID, subsystem: n.ID, class: "0x020000", driver: n.Driver, generation: n.PCIeGeneration, width: n.Width})
	mac := s.p.MAC(s.node, n.PCI)
	s.netdev(folder, n.Interface, mac, n.MTU, n.SpeedMbps)
	s.rdma(folder, n.Interface, n.ID, n.RDMA, mac)
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
	folder := s.pci(function{pci: f.PCI, id: n.VFID, subsystem: n.ID, class: "0x020000", driver: f.Driver, generation: 0, width: 0})
	s.link(folder+"/physfn", physical)
	s.link(fmt.Sprintf("%s/virtfn%d", physical, index), folder)
	mac := s.p.MAC(s.node, f.PCI)
	if f.Interface != "" {
		s.netdev(folder, f.Interface, mac, n.MTU, n.SpeedMbps)
	}
	s.rdma(folder, f.Interface, n.VFID, f.RDMA, mac)
}

func (s *sysfs) netdev(device, name string, mac net.HardwareAddr, mtu, speed int) {
	folder := device + "/net/" + name
	// udev made the np0 of the name from the port's name.
	portName := ""
	if strings.HasSuffix(name, "np0") {
		portName = "p0"
	}
	// 1 is the loopback device.
	s.interfaces++
	index := s.interfaces + 1
	for file, value := range map[string]any{
		"address": mac, "addr_len": 6, "broadcast": "ff:ff:ff:ff:ff:ff", "mtu": mtu, "type": 1, "speed": speed, "duplex": "full",
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

func (s *sysfs) loopback() {
	folder := "devices/virtual/net/lo"
	for file, value := range map[string]any{
		"address": "00:00:00:00:00:00", "mtu": 65536, "type": 772, "operstate": "unknown", "carrier": 1, "ifindex": 1, "iflink": 1, "flags": "0x9",
	} {
		s.file(folder+"/"+file, value)
	}
	s.statistics(folder)
	s.link("class/net/lo", folder)
}

// rdma is the RDMA device of a function and the character devices that go with it.
func (s *sysfs) rdma(device, interfaceName, id string, r *RDMA, mac net.HardwareAddr) {
	if r == nil {
		return
	}
	folder := device + "/infiniband/" + r.Name
	// mlx5 calls the card by its PCI device ID in decimal: 0x1021 is MT4129.
	_, hex, _ := strings.Cut(id, ":")
	number, _ := strconv.ParseUint(hex, 16, 16)
	for file, value := range map[string]any{
		"node_guid": guid(mac), "sys_image_guid": guid(mac), "node_type": "1: CA", "node_desc": r.Name,
		"fw_ver": r.Firmware, "hca_type": fmt.Sprintf("MT%d", number), "hw_rev": 0, "board_id": r.BoardID,
	} {
		s.file(folder+"/"+file, value)
	}
	s.link(folder+"/device", device)
	s.link(folder+"/subsystem", "class/infiniband")
	s.link("class/infiniband/"+r.Name, folder)
	s.rdmaPort(folder+"/ports/1", interfaceName, r, mac)

	s.charDevice(device, "infiniband_verbs", fmt.Sprintf("uverbs%d", r.Index), r.Name, uverbsMinor+r.Index, "abi_version", 1)
	s.charDevice(device, "infiniband_mad", fmt.Sprintf("umad%d", r.Index), r.Name, r.Index, "port", 1)
	s.charDevice(device, "infiniband_mad", fmt.Sprintf("issm%d", r.Index), r.Name, issmMinor+r.Index, "port", 1)
}

func (s *sysfs) rdmaPort(folder, interfaceName string, r *RDMA, mac net.HardwareAddr) {
	for file, value := range map[string]any{
		"state": "4: ACTIVE", "phys_state": "5: LinkUp", "link_layer": r.LinkLayer, "rate": r.Rate,
		"lid": "0x0", "sm_lid": "0x0", "cap_mask": "0x04010000", "lid_mask_count": 0, "sm_sl": 0,
		"gids/0": linkLocalGID(mac), "pkeys/0": "0xffff", "gid_attrs/types/0": "RoCE v2",
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
func (s *sysfs) charDevice(device, class, name, rdmaName string, minor int, extra string, value any) {
	folder := fmt.Sprintf("%s/%s/%s", device, class, name)
	s.file(folder+"/ibdev", rdmaName)
	s.file(folder+"/dev", fmt.Sprintf("%d:%d", infinibandMajor, minor))
	s.file(folder+"/"+extra, value)
	s.link(folder+"/device", device)
	s.link(fmt.Sprintf("class/%s/%s", class, name), folder)
}
