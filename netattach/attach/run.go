package attach

// One attachment of one pod: the steps, and their undoing.

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"k8s.io/apimachinery/pkg/types"

	"github.com/hostler-dev/hostler/api/v1alpha1"
	"github.com/hostler-dev/hostler/netattach"
	"github.com/hostler-dev/hostler/netattach/egress"
	"github.com/hostler-dev/hostler/netattach/link"
)

type run struct {
	attacher  *Attacher
	sandbox   Sandbox
	namespace namespace
	intents   []netattach.Intent
	// hash is that of the pod's rules, "" for a pod without a scope.
	hash string
	// states of the devices in the pod by claim, once they are known.
	states map[types.UID][]netattach.DeviceState
	// chains of each claim that were begun, and what those said that are complete.
	chains   map[types.UID]int
	networks map[deviceKey][]netattach.NetworkState
	// powers of containers that were let start with each claim, and the default routes
	// that it has replaced.
	powers map[types.UID][]string
	former map[types.UID][][]byte
	// unknownPowers are the claims that an earlier version attached in this sandbox.
	unknownPowers map[types.UID]bool
	// complete are the claims that an earlier run has attached in this sandbox. What
	// fails now takes nothing of theirs from the containers that run.
	complete map[types.UID]bool
	// enforcer is nil for a pod without a scope.
	enforcer *egress.Enforcer
	// locked is called once the rules are in force.
	locked func()
}

// carryOut takes the steps with one Enforcer, which knows what it has done.
func (r *run) carryOut(ctx context.Context, rules egress.Ruleset, scoped bool) (err error) {
	release, err := r.attacher.host.Hold(r.namespace.descriptor)
	if err != nil {
		return err
	}
	defer release()
	if scoped {
		if r.enforcer, err = egress.NewEnforcer(r.namespace.descriptor, rules); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, r.enforcer.Close()) }()
	}
	return r.steps(ctx)
}

// steps are idempotent each, so a run that was cut short is repeated whole.
func (r *run) steps(ctx context.Context) error {
	for _, step := range []func(context.Context) error{
		r.enforce, // nothing leaves but what the scope allows
		func(context.Context) error { r.locked(); return nil },
		r.bring,
		r.moveIn,
		r.moveRDMA,
		r.enforce, // the moved devices too, before they are up
		r.setUp,
		r.runChains,
		r.moveRDMALeft,
		r.setDefaultRoutes,
		r.enforce, // and what a chain may have added
		r.tell,
	} {
		if ctx.Err() != nil {
			return fmt.Errorf("it was not completed: %w", context.Cause(ctx))
		}
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (r *run) enforce(ctx context.Context) error {
	if r.enforcer == nil {
		return nil
	}
	return r.enforcer.Enforce(ctx)
}

// moveIn records by which index each device is known in the pod.
func (r *run) moveIn(ctx context.Context) error {
	for _, intent := range r.intents {
		for i := range intent.Devices {
			if !intent.Devices[i].HasNetdev() {
				continue
			}
			if intent.Devices[i].External {
				if err := r.findExternal(&intent.Devices[i]); err != nil {
					return err
				}
				continue
			}
			if intent.Devices[i].Child == nil && !link.Remembered(intent.Devices[i]) {
				return r.attacher.elsewhere(r.sandbox.Pod.UID, intent.ClaimUID, intent.Devices[i])
			}
			index, err := r.attacher.host.Into(ctx, r.namespace.descriptor, intent.Devices[i])
			if err != nil {
				return err
			}
			intent.Devices[i].PodIndex = index
			if err := r.record(StateAttaching); err != nil {
				return err
			}
		}
	}
	return nil
}

func (r *run) setUp(ctx context.Context) error {
	for _, device := range r.devices() {
		if device.External {
			continue
		}
		if err := r.attacher.host.Up(ctx, r.namespace.descriptor, device); err != nil {
			return err
		}
	}
	return nil
}

func (r *run) record(state State) error {
	for _, intent := range r.intents {
		if state == StateAttaching && r.complete[intent.ClaimUID] {
			continue
		}
		if err := r.write(intent, state); err != nil {
			return err
		}
	}
	return nil
}

func (r *run) write(intent netattach.Intent, state State) error {
	record := newRecord(r.sandbox, r.namespace, intent, r.hash, state)
	record.Devices, record.Chains, record.Powers = r.states[intent.ClaimUID], r.chains[intent.ClaimUID], r.powers[intent.ClaimUID]
	record.FormerRoutes, record.PowersKnown = r.former[intent.ClaimUID], !r.unknownPowers[intent.ClaimUID]
	return r.attacher.records.write(record)
}

// recallPod keeps what is on record of this sandbox and does not come out anew.
func (r *run) recallPod() error {
	r.powers, r.former, r.unknownPowers = map[types.UID][]string{}, map[types.UID][][]byte{}, map[types.UID]bool{}
	for _, intent := range r.intents {
		record, found, err := r.attacher.records.read(intent.ClaimUID, r.sandbox.Pod.UID)
		if err != nil {
			return err
		}
		if found && record.in(r.namespace) && record.SandboxID == r.sandbox.ID {
			r.powers[intent.ClaimUID], r.former[intent.ClaimUID] = record.Powers, record.FormerRoutes
			r.unknownPowers[intent.ClaimUID] = record.State == StateAttached && !record.PowersKnown
		}
	}
	return nil
}

// undo brings everything home and forgets the records. The rules stay: what is
// half attached talks to nobody.
func (r *run) undo(ctx context.Context) error {
	var faults []error
	for _, intent := range slices.Backward(r.intents) {
		if r.complete[intent.ClaimUID] {
			continue
		}
		record, found, err := r.attacher.records.read(intent.ClaimUID, r.sandbox.Pod.UID)
		if err != nil || !found {
			faults = append(faults, err)
			continue
		}
		faults = append(faults, r.attacher.dissolveIn(ctx, record, &r.namespace))
	}
	return errors.Join(faults...)
}

// devices are those with a netdev.
func (r *run) devices() []netattach.DeviceIntent {
	var devices []netattach.DeviceIntent
	for _, intent := range r.intents {
		devices = append(devices, intent.Devices...)
	}
	return slices.DeleteFunc(devices, func(d netattach.DeviceIntent) bool { return !d.HasNetdev() })
}

// scopeOf is the scope of a whole pod: what every one of its scopes allows.
func scopeOf(intents []netattach.Intent) (rules egress.Ruleset, scoped bool, err error) {
	var config v1alpha1.EgressConfig
	var resolvers, nodes []netip.Addr
	for _, intent := range intents {
		switch {
		case intent.Egress == nil:
			continue
		case !scoped:
			config, resolvers = intent.Egress.Config, intent.Egress.Resolvers
		default:
			config = v1alpha1.Intersect(config, intent.Egress.Config)
			resolvers = slices.DeleteFunc(slices.Clone(resolvers), func(a netip.Addr) bool { return !slices.Contains(intent.Egress.Resolvers, a) })
		}
		nodes = append(nodes, intent.Egress.NodeAddresses...)
		scoped = true
	}
	if !scoped {
		return egress.Ruleset{}, false, nil
	}
	rules, err = egress.Compile(config, resolvers, nodes)
	return rules, true, err
}

// bypassed refuses a pod whose scope RDMA verbs would go around. The driver
// refuses it at prepare, but a pod that joins a shared scope later it never sees.
func bypassed(intents []netattach.Intent) error {
	var verbs, scope *netattach.Intent
	for i, intent := range intents {
		if intent.RDMA {
			verbs = &intents[i]
		}
		if intent.Egress != nil && intent.Egress.Config.KernelBypass != v1alpha1.KernelBypassAllow {
			scope = &intents[i]
		}
	}
	if verbs == nil || scope == nil {
		return nil
	}
	return fmt.Errorf("claim %s/%s brings RDMA devices, whose verbs bypass the egress scope of claim %s/%s; set \"rdma: None\" in the NICConfig of the one, or \"kernelBypass: Allow\" in the EgressConfig of the other to accept that", verbs.ClaimNamespace, verbs.ClaimName, scope.ClaimNamespace, scope.ClaimName)
}
