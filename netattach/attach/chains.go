package attach

// CNI chains of a pod's devices: in which order they are run and taken back, and
// what is on record of them. A chain that takes its device from the host itself is
// run in the place of the move, the others once the devices are up.
//
// How many of a claim's chains were begun is written down before each is: libcni
// remembers an ADD once it is over, and one that a kill has cut short leaves traces
// that only its DEL knows.

import (
	"cmp"
	"context"
	"errors"
	"slices"

	"k8s.io/apimachinery/pkg/types"

	"github.com/hostler-dev/hostler/netattach"
	"github.com/hostler-dev/hostler/netattach/link"
	"github.com/hostler-dev/hostler/netattach/multus"
)

// chain is one network of one device of an intent.
type chain struct{ device, network int }

// chainsOf are an intent's in the order in which they are run.
func chainsOf(intent netattach.Intent) []chain {
	var first, then []chain
	for i, device := range intent.Devices {
		for j, network := range device.Networks {
			if multus.Brings(network) {
				first = append(first, chain{i, j})
			} else {
				then = append(then, chain{i, j})
			}
		}
	}
	return append(first, then...)
}

func hasChains(intent netattach.Intent) bool {
	return slices.ContainsFunc(intent.Devices, func(d netattach.DeviceIntent) bool { return len(d.Networks) > 0 })
}

// attachment is the chain as CNI knows it.
func (c chain) attachment(intent netattach.Intent, pod netattach.PodReference, sandboxID, netns string) multus.Attachment {
	device := intent.Devices[c.device]
	return multus.Attachment{
		SandboxID: sandboxID, NetNS: netns, Claim: intent.ClaimUID, Pod: pod, DeviceID: device.DeviceID(),
		Interface: device.PodName, MAC: cmp.Or(device.HardwareAddress, device.HostMAC), Addresses: device.Addresses, Network: device.Networks[c.network],
	}
}

// deviceKey is a device of a claim by its place in the intent.
type deviceKey struct {
	claim types.UID
	index int
}

// bring runs the chains that take devices from the host themselves.
func (r *run) bring(ctx context.Context) error {
	return r.eachChain(ctx, true, func(intent netattach.Intent, c chain, begun bool) error {
		a := c.attachment(intent, r.sandbox.Pod, r.sandbox.ID, r.namespace.path(r.sandbox.NetNS))
		a.Begun = begun
		return r.add(ctx, intent, c, a)
	})
}

// runChains runs the others. Their devices are told to them as they are now: what a
// chain assigned, the next one finds.
func (r *run) runChains(ctx context.Context) error {
	return r.eachChain(ctx, false, func(intent netattach.Intent, c chain, begun bool) error {
		state, err := link.State(r.namespace.descriptor, intent.Devices[c.device])
		if err != nil {
			return err
		}
		a := c.attachment(intent, r.sandbox.Pod, r.sandbox.ID, r.namespace.path(r.sandbox.NetNS))
		a.Begun, a.MAC, a.Addresses = begun, state.MAC, state.Addresses
		return r.add(ctx, intent, c, a)
	})
}

// eachChain visits those that do or do not bring their device, each once it is on
// record as begun; begun says that an earlier attempt had begun it.
func (r *run) eachChain(ctx context.Context, bringing bool, visit func(intent netattach.Intent, c chain, begun bool) error) error {
	for _, intent := range r.intents {
		if r.complete[intent.ClaimUID] {
			continue // what of it is not there any more is not made anew beneath running containers
		}
		for position, c := range chainsOf(intent) {
			if multus.Brings(intent.Devices[c.device].Networks[c.network]) != bringing {
				continue
			}
			begun := position < r.chains[intent.ClaimUID]
			if !begun {
				r.chains[intent.ClaimUID] = position + 1
				if err := r.record(StateAttaching); err != nil {
					return err
				}
			}
			if err := visit(intent, c, begun); err != nil {
				return err
			}
			// What it made is up at once, and the next one may take its time.
			if err := r.enforce(ctx); err != nil {
				return err
			}
		}
	}
	return nil
}

func (r *run) add(ctx context.Context, intent netattach.Intent, c chain, a multus.Attachment) error {
	state, err := r.attacher.chain.Add(ctx, a)
	if err != nil {
		return err
	}
	key := deviceKey{intent.ClaimUID, c.device}
	r.networks[key] = append(r.networks[key], state)
	return nil
}

// resume takes from the records what an earlier attempt in this sandbox has begun.
func (r *run) resume() error {
	r.chains, r.networks, r.complete = map[types.UID]int{}, map[deviceKey][]netattach.NetworkState{}, map[types.UID]bool{}
	r.states = map[types.UID][]netattach.DeviceState{}
	for _, intent := range r.intents {
		record, found, err := r.attacher.records.read(intent.ClaimUID, r.sandbox.Pod.UID)
		if err != nil {
			return err
		}
		if found && record.in(r.namespace) && record.SandboxID == r.sandbox.ID {
			r.chains[intent.ClaimUID], r.complete[intent.ClaimUID] = record.Chains, record.State == StateAttached
			if record.State == StateAttached {
				r.recall(record)
			}
		}
	}
	return nil
}

// undoChains takes a record's chains back, the last one first.
func (a *Attacher) undoChains(ctx context.Context, record Record, in *namespace) error {
	path := ""
	if in != nil {
		path = in.path(record.NetNS)
	}
	var faults []error
	for position, c := range slices.Backward(chainsOf(record.Intent)) {
		attachment := c.attachment(record.Intent, record.Pod, record.SandboxID, path)
		attachment.Begun = position < record.Chains
		err := a.chain.Del(ctx, attachment)
		if err != nil && path != "" && multus.Brings(attachment.Network) {
			// Its device may be home already, and if it is not, that is brought about anyway.
			attachment.NetNS = ""
			err = a.chain.Del(ctx, attachment)
		}
		faults = append(faults, err)
	}
	return errors.Join(faults...)
}
