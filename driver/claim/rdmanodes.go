// The device nodes of RDMA devices that are in pods. When a device changes its network
// namespace the kernel takes its nodes down and makes them anew, under the lowest numbers
// that are free (uverbs, umad and issm of ib_uverbs_add_one and ib_umad_init_port):
// what the spec named at prepare may be nobody's by then, or another device's.

package claim

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/hostler-dev/hostler/driver/cdi"
	"github.com/hostler-dev/hostler/driver/gpu"
	"github.com/hostler-dev/hostler/netattach"
)

// FollowRDMA has the claim's CDI spec name the nodes that its RDMA devices have now
// that they are in their pod. It is for the moment before the pod's containers start.
func (s *Steps) FollowRDMA(ctx context.Context, entry *Entry) error {
	states, err := s.inPods(entry)
	if err != nil || !slices.ContainsFunc(states, func(state netattach.DeviceState) bool { return otherNodes(state.RDMA) }) {
		return err
	}
	for _, step := range s.Of(entry) {
		switch step.(type) {
		case *gpu.PartitionStep: // finds the partition that the spec names
			err = step.Do(ctx)
		case *specStep:
			err = errors.Join(step.Do(ctx), step.Verify(ctx))
		}
		if err != nil {
			return fmt.Errorf("give containers the device nodes that RDMA devices have in their pod: %w", err)
		}
	}
	return nil
}

// otherNodes: the device has none in the pod, or made anew.
func otherNodes(state *netattach.RDMAState) bool {
	return state != nil && (state.Exclusive || state.Fallback != "")
}

// followRDMA names the nodes in what a spec is made of. A device that the pod does
// without has none: it may be gone, and a runtime starts no container with a node that is not there.
func (s *Steps) followRDMA(entry *Entry, claim *cdi.Claim) error {
	if entry.First || !slices.ContainsFunc(claim.Devices, func(d cdi.Device) bool { return d.RDMA != nil }) {
		return nil
	}
	states, err := s.inPods(entry)
	if err != nil {
		return err
	}
	for i := range claim.Devices {
		device := &claim.Devices[i]
		at := slices.IndexFunc(states, func(state netattach.DeviceState) bool { return entry.Devices[i].Is(state) && otherNodes(state.RDMA) })
		if device.RDMA == nil || at < 0 {
			continue
		}
		if states[at].RDMA.Fallback != "" {
			device.RDMA = nil
			continue
		}
		nodes, err := s.RDMANodes(states[at].RDMA.Device)
		if err != nil {
			return fmt.Errorf("find the device nodes of RDMA device %s: %w", states[at].RDMA.Device, err)
		}
		now := *device.RDMA
		now.CharDevices = nodes
		device.RDMA = &now
	}
	return nil
}
