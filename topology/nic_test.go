package topology_test

import (
	"testing"

	"github.com/hostler-dev/hostler/topology"
)

func TestWhichNICsMissTheirNetdev(t *testing.T) {
	rdma := func(layer string) *topology.RDMADevice {
		return &topology.RDMADevice{Name: "r", Ports: []topology.RDMAPort{{Port: 1, LinkLayer: layer}}}
	}
	for name, test := range map[string]struct {
		nic  topology.NIC
		away bool
	}{
		"an Ethernet NIC at home":                      {topology.NIC{Link: &topology.Link{Name: "eth0"}}, false},
		"an Ethernet NIC whose netdev is elsewhere":    {topology.NIC{Driver: "igb"}, true},
		"a RoCE NIC at home":                           {topology.NIC{Link: &topology.Link{Name: "eth0"}, RDMA: rdma("Ethernet")}, false},
		"a RoCE NIC whose netdev is elsewhere":         {topology.NIC{Driver: "mlx5_core", RDMA: rdma("Ethernet")}, true},
		"an InfiniBand device without IPoIB":           {topology.NIC{Driver: "mlx5_core", RDMA: rdma("InfiniBand")}, false},
		"an EFA device, which never has one":           {topology.NIC{Driver: "efa", RDMA: rdma("Unspecified")}, false},
		"an eRDMA device, whose netdev is another's":   {topology.NIC{Driver: "erdma", RDMA: rdma("Ethernet")}, false},
		"an RDMA device whose ports could not be read": {topology.NIC{Driver: "mlx5_core", RDMA: &topology.RDMADevice{Name: "r"}}, true},
	} {
		if got := test.nic.NetdevAway(); got != test.away {
			t.Errorf("%s: %t", name, got)
		}
	}
}
