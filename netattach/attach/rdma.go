package attach

// RDMA devices beside netdevs, and devices that have no netdev at all. An RDMA
// device follows its netdev into the pod and leaves before it: drivers tell the two of
// each other by namespace, and setting a netdev up at home makes others look at both.

import (
	"context"
	"encoding/json"
	"errors"
	"slices"

	"github.com/hostler-dev/hostler/netattach"
	"github.com/hostler-dev/hostler/netattach/link"
	"github.com/hostler-dev/hostler/netattach/rdma"
)

// rememberDevice fills in what the device is on the host and what becomes of its RDMA device.
func (a *Attacher) rememberDevice(ctx context.Context, device netattach.DeviceIntent) (netattach.DeviceIntent, error) {
	var err error
	if device.HasNetdev() {
		if device, err = a.host.Remember(device); err != nil {
			return device, err
		}
	}
	return a.rdma.Remember(ctx, device)
}

// moveRDMA moves RDMA devices after their netdevs, but for those that a chain moves.
func (r *run) moveRDMA(ctx context.Context) error {
	return r.eachRDMA(ctx, func(device netattach.DeviceIntent) bool {
		return device.RDMA.Moves && !chainMovesRDMA(device)
	})
}

// moveRDMALeft moves what a chain should have moved and did not, and looks after devices
// that do not move: a driver takes one down some time after its netdev left.
func (r *run) moveRDMALeft(ctx context.Context) error {
	return r.eachRDMA(ctx, func(device netattach.DeviceIntent) bool {
		return !device.RDMA.Moves || chainMovesRDMA(device)
	})
}

// chainMovesRDMA reports whether a chain of the device has the CNI plugin rdma, which
// fails if the RDMA device is not on the host any more.
func chainMovesRDMA(device netattach.DeviceIntent) bool {
	return slices.ContainsFunc(device.Networks, func(network netattach.NetworkIntent) bool {
		var list struct{ Plugins []struct{ Type string } }
		if json.Unmarshal(network.Config, &list) != nil {
			return false // which the chain will say
		}
		return slices.ContainsFunc(list.Plugins, func(p struct{ Type string }) bool { return p.Type == "rdma" })
	})
}

// eachRDMA records what became of each device, of which one that the kernel does
// not move is the pod's to do without.
func (r *run) eachRDMA(ctx context.Context, chosen func(netattach.DeviceIntent) bool) error {
	for _, intent := range r.intents {
		for i := range intent.Devices {
			device := &intent.Devices[i]
			if device.RDMA == nil || !chosen(*device) {
				continue
			}
			after, err := r.attacher.rdma.Into(ctx, r.namespace.descriptor, *device)
			if err != nil {
				return err
			}
			changed := *after != *device.RDMA
			device.RDMA = after
			if !changed {
				continue
			}
			if err := r.record(StateAttaching); err != nil {
				return err
			}
		}
	}
	return nil
}

// present says whether the device is in the pod with all that it has.
func (a *Attacher) present(pod int, device netattach.DeviceIntent) (bool, error) {
	if device.HasNetdev() {
		if present, err := link.Present(pod, device); err != nil || !present {
			return false, err
		}
	}
	return a.rdma.Present(pod, device)
}

// stateOf is how the device is known in the pod.
func stateOf(pod int, device netattach.DeviceIntent) (netattach.DeviceState, error) {
	state := netattach.DeviceState{Device: device.Device}
	var err error
	if device.HasNetdev() {
		if state, err = link.State(pod, device); err != nil {
			return state, err
		}
	}
	state.Pool, state.Request, state.ShareID = device.Pool, device.Request, device.ShareID
	state.RDMA = rdma.State(device)
	return state, nil
}

// bringHome brings the RDMA device home and then the netdev. It reports whether all
// that the device has was found.
func (a *Attacher) bringHome(ctx context.Context, in *namespace, device netattach.DeviceIntent, last bool) (bool, error) {
	rdmaFound, rdmaErr := a.bringRDMAHome(ctx, in, device)
	found, err := a.bringNetdevHome(ctx, in, device, last)
	return found && rdmaFound, errors.Join(rdmaErr, err)
}

func (a *Attacher) bringRDMAHome(ctx context.Context, in *namespace, device netattach.DeviceIntent) (bool, error) {
	if in == nil {
		return a.rdma.Restore(ctx, device)
	}
	return a.rdma.Home(ctx, in.descriptor, device)
}

func (a *Attacher) bringNetdevHome(ctx context.Context, in *namespace, device netattach.DeviceIntent, last bool) (bool, error) {
	switch {
	case !device.HasNetdev():
		return true, nil
	case device.External:
		return a.bringExternalHome(ctx, in, device, last)
	case in == nil:
		return a.host.Restore(ctx, device)
	}
	return a.host.Home(ctx, in.descriptor, device)
}
