package attach

// The gate's question: may a container of this pod, which uses this claim,
// start in this namespace? It is asked for every container with a claim,
// because the runtime's hooks alone fail open: an NRI plugin that is away or
// too slow is skipped (containerd/nri pkg/adaptation, "fatal" errors).

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"

	"github.com/hostler-dev/hostler/netattach"
)

// Container is one that is about to start.
type Container struct {
	Sandbox Sandbox
	// Claim is one that it uses.
	Claim types.UID
	// Capabilities that its processes can have, as in the OCI configuration.
	Capabilities []string
}

// Admit returns nil if the claim is attached to the pod in the namespace that
// the descriptor refers to; if it is not yet, it is attached now.
func (a *Attacher) Admit(ctx context.Context, container Container, descriptor int) error {
	ctx, attempt := a.turns.attempt(ctx, container.Sandbox)
	defer attempt.end()
	if err := a.admit(ctx, container, descriptor); err != nil {
		return err
	}
	return a.remarkPowers(ctx, container)
}

func (a *Attacher) admit(ctx context.Context, container Container, descriptor int) error {
	sandbox, claim := container.Sandbox, container.Claim
	if a.cfg.Living != nil && sandbox.ID != "" {
		a.cfg.Living.Began(sandbox) // should the runtime's word of it have been lost
	}
	intents, err := a.intents(sandbox.Pod)
	if err != nil {
		return err
	}
	if joined, ok := a.joined(intents, claim); ok {
		intents = append(intents, joined)
	}
	if err := overpowered(container, intents); err != nil {
		return err
	}
	if a.Check(ctx, sandbox.Pod.UID, claim, descriptor) == nil {
		return nil
	}
	namespace, err := namespaceOf(descriptor)
	if err != nil {
		return err
	}
	onHost, err := a.isHost(namespace)
	if err != nil {
		return err
	}
	if onHost {
		sandbox.NetNS = ""
	}
	for _, intent := range intents {
		if intent.ClaimUID != claim {
			continue
		}
		klog.FromContext(ctx).Info("Attaching pod at its container's start, because that was not done with its sandbox", "pod", klog.KRef(sandbox.Pod.Namespace, sandbox.Pod.Name))
		if onHost {
			return a.attachHostNetwork(ctx, sandbox, intents)
		}
		if err := a.attach(ctx, sandbox, namespace, intents); err != nil {
			return err
		}
		return a.Check(ctx, sandbox.Pod.UID, claim, descriptor)
	}
	return a.admitIdle(ctx, sandbox, namespace, claim)
}

// AttachMissed is Attach for a sandbox that has been running, perhaps without
// its claims: a container that names none does not pass the gate. What is
// recorded as complete is left to Reconcile, so that a fault of one device takes
// nothing from a living pod.
func (a *Attacher) AttachMissed(ctx context.Context, sandbox Sandbox) error {
	namespace, err := openNamespace(sandbox.NetNS)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, errNoNamespace) {
		return nil // it has ended meanwhile
	}
	if err != nil {
		return fmt.Errorf("cannot look at pod %s/%s: %w", sandbox.Pod.Namespace, sandbox.Pod.Name, err)
	}
	defer namespace.Close()
	intents, err := a.intents(sandbox.Pod)
	if err != nil {
		return err
	}
	for _, intent := range intents {
		record, found, err := a.records.read(intent.ClaimUID, sandbox.Pod.UID)
		if err != nil {
			return err
		}
		if !found || record.State != StateAttached || !record.in(namespace) {
			klog.FromContext(ctx).Info("Attaching pod that has been running without its claims", "pod", klog.KRef(sandbox.Pod.Namespace, sandbox.Pod.Name), "claim", klog.KRef(intent.ClaimNamespace, intent.ClaimName))
			if err := a.attach(ctx, sandbox, namespace, intents); !errors.Is(err, errEnded) {
				return err
			}
			return nil
		}
	}
	return nil
}

// joined is the intent of a claim that the pod uses but that was prepared for
// other pods: any number can share an egress scope, and NICs of which each gets a
// child without an address that all would have.
func (a *Attacher) joined(intents []netattach.Intent, claim types.UID) (netattach.Intent, bool) {
	if slices.ContainsFunc(intents, func(i netattach.Intent) bool { return i.ClaimUID == claim }) {
		return netattach.Intent{}, false
	}
	intent, prepared := a.cfg.Intents.Intent(claim)
	own := slices.ContainsFunc(intent.Devices, func(d netattach.DeviceIntent) bool { return !d.ServesEachPod() })
	return intent, prepared && !own && !idle(intent)
}

// admitIdle admits a claim that wants nothing of the network, and records it,
// so that the container may restart while the agent is away. Of a claim that is
// not prepared nobody knows what it wants, so it is refused.
func (a *Attacher) admitIdle(ctx context.Context, sandbox Sandbox, namespace namespace, claim types.UID) error {
	intent, prepared := a.cfg.Intents.Intent(claim)
	if !prepared {
		return fmt.Errorf("claim %s of pod %s/%s is not prepared on this node; delete the pod so that its claims are prepared again", claim, sandbox.Pod.Namespace, sandbox.Pod.Name)
	}
	if !idle(intent) {
		return fmt.Errorf("claim %s/%s was prepared for other pods than %s/%s; delete the pod so that the claim is prepared for it", intent.ClaimNamespace, intent.ClaimName, sandbox.Pod.Namespace, sandbox.Pod.Name)
	}
	leave, err := a.turns.take(ctx, sandbox.Pod.UID, "recording sandbox "+sandbox.ID)
	if err != nil {
		return cannotAttach(sandbox, err)
	}
	defer leave()
	return a.recordIdle(sandbox, namespace, intent)
}

// recordIdle records a claim that wants nothing of the network as attached.
func (a *Attacher) recordIdle(sandbox Sandbox, namespace namespace, intent netattach.Intent) error {
	record := newRecord(sandbox, namespace, intent, "", StateAttached)
	record.PowersKnown = true
	earlier, found, err := a.records.read(intent.ClaimUID, sandbox.Pod.UID)
	if err != nil {
		return err
	}
	if found && earlier.SandboxID == sandbox.ID {
		record.Powers, record.PowersKnown = earlier.Powers, earlier.PowersKnown || earlier.State != StateAttached
	}
	return a.records.write(record)
}

func idle(intent netattach.Intent) bool {
	return len(intent.Devices) == 0 && intent.Egress == nil
}

func (a *Attacher) isHost(namespace namespace) (bool, error) {
	inode, err := a.host.Inode()
	return inode == namespace.inode, err
}
