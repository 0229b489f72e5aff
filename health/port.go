// NIC ports are judged mildly: a port that was seen up and then stays down is
// Degraded, which makes the slice say so and keeps nobody away. A port that has
// never been up is unused, not broken, and a NIC in a pod is the pod's affair.

package health

import (
	"fmt"
	"time"

	"github.com/hostler-dev/hostler/topology"
)

// portOf condenses a NIC to one Port; judged is false where the host cannot
// tell (the netdev is in a pod, or the NIC has neither netdev nor RDMA port).
func portOf(nic *topology.NIC) (port Port, judged bool) {
	port = Port{Device: nic.Name, Up: true}
	if nic.Link != nil && nic.Link.Index != 0 {
		judged = true
		if !nic.Link.Up {
			port.Up, port.Detail = false, "link "+nic.Link.Name
		}
	}
	if nic.RDMA == nil {
		return port, judged
	}
	for _, p := range nic.RDMA.Ports {
		if !judged && p.LinkLayer != "InfiniBand" {
			continue // a RoCE port follows its netdev, which is in a pod
		}
		judged = true
		if p.State != "" && p.State != "ACTIVE" && port.Up {
			port.Up, port.Detail = false, fmt.Sprintf("RDMA port %s/%d (%s)", nic.RDMA.Name, p.Port, p.State)
		}
	}
	return port, judged
}

// LinkRecord is what is remembered of a port between inventories.
type LinkRecord struct {
	Device string `json:"device"`
	// DownSince is the zero time while the port is up.
	DownSince time.Time `json:"downSince,omitzero"`
}

// seePort folds one port into the state.
func (r Rules) seePort(s *State, port Port, now time.Time) {
	record := s.link(port.Device)
	if port.Up {
		if record == nil {
			s.Links = append(s.Links, LinkRecord{Device: port.Device})
			return
		}
		record.DownSince = time.Time{}
		s.clean(port.Device, FamilyLink, now)
		return
	}
	if record == nil {
		return
	}
	if record.DownSince.IsZero() {
		record.DownSince = now
	}
	if now.Sub(record.DownSince) >= r.LinkDownDelay {
		s.hold(Verdict{
			Device: port.Device, Family: FamilyLink, Severity: Degraded, Reason: "down",
			Message: fmt.Sprintf("%s is down since %s; check the cable and the switch port", port.Detail, record.DownSince.UTC().Format(time.RFC3339)),
		}, now)
	}
}

func (s *State) link(device string) *LinkRecord {
	for i := range s.Links {
		if s.Links[i].Device == device {
			return &s.Links[i]
		}
	}
	return nil
}
