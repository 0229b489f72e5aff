// Package attach does to a pod's sandbox what the claims of the pod intend:
// egress rules first, then network devices (netdevs, or children of them, and RDMA
// devices), then CNI chains and the pod's default route; and it takes all of that back
// when the sandbox goes. Chains that take their device from the host themselves come
// in the place of its move, and what a Multus of the cluster has brought is found.
//
// The order is the promise. Rules that refuse everything but the scope are in
// force before a device is moved in; the device stays down until rules are on
// it too; so there is no moment at which a packet could leave unseen. Whatever
// fails is undone in reverse, but for the rules, which stay and refuse.
//
// One at a time works on a pod, and nobody waits longer for that than it has time
// (turn.go). What takes longer than a hook may goes on behind it (behind.go).
//
// What was done is written to one record per claim and pod before it is begun
// and after it is complete. Records are what survives a kill of the agent: the
// gate's hook reads them while it is dead, Reconcile when it is back.
package attach

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"

	"github.com/hostler-dev/hostler/netattach"
	"github.com/hostler-dev/hostler/netattach/egress"
	"github.com/hostler-dev/hostler/netattach/link"
	"github.com/hostler-dev/hostler/netattach/multus"
	"github.com/hostler-dev/hostler/netattach/rdma"
)

// IntentSource knows what prepared claims intend. It is the driver's journal.
type IntentSource interface {
	IntentsForPod(uid types.UID, namespace, name string) []netattach.Intent
	Intent(claim types.UID) (netattach.Intent, bool)
}

// Config of an Attacher. Intents and Run are required.
type Config struct {
	Intents IntentSource
	// Run is the agent's run directory; records lie in its subdirectory "attached".
	Run string
	// CNIBin and CNICache are as in AgentConfig.
	CNIBin, CNICache string
	// HostNamespace is a descriptor of the host's network namespace. Default:
	// the process's own.
	HostNamespace *int
	// Withheld, if set, says that it is not known at present whether a claim that is
	// none of the Intents is prepared: what pods have of it is left to them.
	Withheld func(claim types.UID) bool
	// Attached, if set, is called for each claim with devices once these are up in
	// the pod and on record, see InPods, and before any container may start. Its
	// error undoes the attachment.
	Attached func(ctx context.Context, claim types.UID) error
	// Changed, if set, is told of each end of an attachment. It must not block.
	Changed func(Change)
	// Checked, if set, is told what CNI plugins say of what they made for a claim's
	// devices in a pod, when that has changed: "" if it is as they made it. It must not block.
	Checked func(pod netattach.PodReference, claim types.UID, wrong string)
	// Living are the sandboxes that the runtime says live, see InUse. Nil: nobody
	// says so, and the records have the last word.
	Living *Living
	// Running tells which pods have processes on this node. It is asked where the
	// runtime does not say which sandboxes live. Nil: nobody knows.
	Running func() (Running, error)
	// Now is the clock. Default: time.Now.
	Now func() time.Time
}

// Sandbox is a pod's sandbox as the runtime presents it.
type Sandbox struct {
	ID  string
	Pod netattach.PodReference
	// NetNS is the path of its network namespace, "" if it is the host's.
	NetNS string
}

// Attacher does and undoes what claims intend. Its methods may be called
// concurrently; calls for one pod take turns.
type Attacher struct {
	cfg     Config
	host    *link.Host
	rdma    *rdma.Host
	chain   *multus.Chain
	records *records
	turns   turns
	adopted adopted
	// behind counts attachments that outlive the hook that began them.
	behind sync.WaitGroup
}

// New makes the record directory.
func New(cfg Config) (*Attacher, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	host, err := link.NewHost(link.HostConfig{Namespace: cfg.HostNamespace})
	if err != nil {
		return nil, err
	}
	rdmaHost, err := rdma.NewHost(rdma.HostConfig{Namespace: cfg.HostNamespace})
	if err != nil {
		return nil, errors.Join(err, host.Close())
	}
	records, err := openRecords(cfg.Run)
	if err != nil {
		return nil, errors.Join(err, host.Close(), rdmaHost.Close())
	}
	chain := multus.New(multus.Config{Bin: []string{cfg.CNIBin}, Cache: cfg.CNICache})
	a := &Attacher{cfg: cfg, host: host, rdma: rdmaHost, chain: chain, records: records}
	if err := a.adopt(); err != nil {
		return nil, errors.Join(err, host.Close(), rdmaHost.Close())
	}
	return a, nil
}

// Close waits, too, and releases the host's namespace; it leaves pods as they are.
func (a *Attacher) Close() error {
	a.Wait()
	return errors.Join(a.host.Close(), a.rdma.Close())
}

// Attach is idempotent. A pod without intents costs a lookup.
func (a *Attacher) Attach(ctx context.Context, sandbox Sandbox) error {
	intents, err := a.intents(sandbox.Pod)
	if err != nil || len(intents) == 0 {
		return err
	}
	if sandbox.NetNS == "" {
		return a.attachHostNetwork(ctx, sandbox, intents)
	}
	namespace, err := openNamespace(sandbox.NetNS)
	if err != nil {
		err = fmt.Errorf("cannot attach pod %s/%s: %w; the agent's pod must see the runtime's network namespaces (a hostPath volume with mountPropagation HostToContainer)", sandbox.Pod.Namespace, sandbox.Pod.Name, err)
		a.changed(sandbox.Pod.UID, intents, err)
		return err
	}
	if slices.ContainsFunc(intents, hasChains) {
		return a.attachBehind(ctx, sandbox, namespace, intents)
	}
	defer namespace.Close()
	return a.attach(ctx, sandbox, namespace, intents)
}

// AttachTo is Attach for a namespace that the caller holds open as a descriptor.
func (a *Attacher) AttachTo(ctx context.Context, sandbox Sandbox, descriptor int) error {
	intents, err := a.intents(sandbox.Pod)
	if err != nil || len(intents) == 0 {
		return err
	}
	namespace, err := namespaceOf(descriptor)
	if err != nil {
		return err
	}
	return a.attach(ctx, sandbox, namespace, intents)
}

// intents of a pod are those of the claims that were reserved for it when they
// were prepared, and of those that it joined later and that it has a record of:
// the kubelet prepares a claim once, for however many pods use it.
func (a *Attacher) intents(pod netattach.PodReference) ([]netattach.Intent, error) {
	intents := a.cfg.Intents.IntentsForPod(pod.UID, pod.Namespace, pod.Name)
	records, err := a.records.ofPod(pod.UID)
	if err != nil {
		return nil, err
	}
	for _, record := range records {
		claim := record.Intent.ClaimUID
		known := slices.ContainsFunc(intents, func(i netattach.Intent) bool { return i.ClaimUID == claim })
		if record.Pod.UID != pod.UID || known {
			continue
		}
		if intent, prepared := a.cfg.Intents.Intent(claim); prepared {
			intents = append(intents, intent)
		}
	}
	return intents, nil
}

// asOfNow are all that the pod has in its turn: while the given ones waited for it, a
// container may have brought another, and one of them may be over.
func (a *Attacher) asOfNow(pod netattach.PodReference, given []netattach.Intent) ([]netattach.Intent, error) {
	intents, err := a.intents(pod)
	if err != nil {
		return nil, err
	}
	for _, intent := range given {
		if slices.ContainsFunc(intents, func(i netattach.Intent) bool { return i.ClaimUID == intent.ClaimUID }) {
			continue
		}
		now, prepared := a.cfg.Intents.Intent(intent.ClaimUID)
		if !prepared {
			return nil, fmt.Errorf("claim %s/%s was unprepared meanwhile; delete the pod so that its claims are prepared again", intent.ClaimNamespace, intent.ClaimName)
		}
		intents = append(intents, now)
	}
	return intents, nil
}

// attachHostNetwork records claims that want nothing of the network and refuses
// the others: their devices would not move, their rules would bind the node.
func (a *Attacher) attachHostNetwork(ctx context.Context, sandbox Sandbox, intents []netattach.Intent) (err error) {
	leave, err := a.turns.take(ctx, sandbox.Pod.UID, "recording sandbox "+sandbox.ID)
	if err != nil {
		return cannotAttach(sandbox, err)
	}
	defer leave()
	defer func() { a.changed(sandbox.Pod.UID, intents, err) }()
	for _, intent := range intents {
		if len(intent.Devices) > 0 || intent.Egress != nil {
			return fmt.Errorf("pod %s/%s uses the host's network, so claim %s/%s cannot give it a network device or egress scope; remove hostNetwork or the claim", sandbox.Pod.Namespace, sandbox.Pod.Name, intent.ClaimNamespace, intent.ClaimName)
		}
		if err := a.recordIdle(sandbox, namespace{}, intent); err != nil {
			return err
		}
	}
	klog.FromContext(ctx).V(2).Info("Recorded pod on the host's network", "pod", klog.KRef(sandbox.Pod.Namespace, sandbox.Pod.Name))
	return nil
}

func (a *Attacher) attach(ctx context.Context, sandbox Sandbox, namespace namespace, intents []netattach.Intent) error {
	ctx, attempt, err := a.turns.attach(ctx, sandbox)
	if err != nil {
		return cannotAttach(sandbox, err)
	}
	defer attempt.end()
	return a.attachInTurn(ctx, sandbox, namespace, intents, func() {})
}

func cannotAttach(sandbox Sandbox, err error) error {
	return fmt.Errorf("cannot attach pod %s/%s: %w", sandbox.Pod.Namespace, sandbox.Pod.Name, err)
}

// attachInTurn calls locked as soon as the pod's egress rules are in force, if it is
// to have any.
func (a *Attacher) attachInTurn(ctx context.Context, sandbox Sandbox, namespace namespace, intents []netattach.Intent, locked func()) (err error) {
	if err := namespace.stands(sandbox.NetNS); err != nil {
		return cannotAttach(sandbox, err)
	}
	intents, err = a.asOfNow(sandbox.Pod, intents)
	if err != nil {
		return cannotAttach(sandbox, err)
	}
	wanted := intents
	defer func() { a.changed(sandbox.Pod.UID, wanted, err) }()
	started := a.cfg.Now()
	rules, scoped, err := scopeOf(intents)
	if err := errors.Join(err, bypassed(intents), a.undermined(sandbox, namespace, intents)); err != nil {
		return cannotAttach(sandbox, err)
	}
	if err := a.leaveOldSandbox(ctx, sandbox, namespace); err != nil {
		return err
	}
	hash := ""
	if scoped {
		hash = rules.Hash()
	}
	if intents, err = a.remember(ctx, sandbox.Pod.UID, namespace, intents); err != nil {
		return cannotAttach(sandbox, err)
	}
	r := run{attacher: a, sandbox: sandbox, namespace: namespace, intents: intents, hash: hash, locked: locked}
	if err := errors.Join(r.resume(), r.recallPod()); err != nil {
		return err
	}
	if err := r.record(StateAttaching); err != nil {
		return err
	}
	if err := r.carryOut(ctx, rules, scoped); err != nil {
		return cannotAttach(sandbox, errors.Join(err, r.undo(context.WithoutCancel(ctx))))
	}
	if err := r.record(StateAttached); err != nil {
		return err
	}
	klog.FromContext(ctx).V(2).Info("Attached pod", "pod", klog.KRef(sandbox.Pod.Namespace, sandbox.Pod.Name), "claims", len(intents), "scoped", scoped, "took", a.cfg.Now().Sub(started))
	return nil
}

// leaveOldSandbox brings devices home from a sandbox that this one replaces and
// whose end was missed.
func (a *Attacher) leaveOldSandbox(ctx context.Context, sandbox Sandbox, namespace namespace) error {
	records, err := a.records.ofPod(sandbox.Pod.UID)
	if err != nil {
		return err
	}
	for _, record := range records {
		if record.Pod.UID != sandbox.Pod.UID || record.in(namespace) {
			continue
		}
		if err := a.dissolve(ctx, record); err != nil {
			return fmt.Errorf("cannot leave sandbox %s, which sandbox %s replaces: %w", record.SandboxID, sandbox.ID, err)
		}
	}
	return nil
}

// Check returns nil if the claim is attached to the pod in this very namespace
// and the kernel shows it.
func (a *Attacher) Check(ctx context.Context, pod, claim types.UID, descriptor int) error {
	leave, err := a.turns.take(ctx, pod, fmt.Sprintf("checking what claim %s has attached", claim))
	if err != nil {
		return fmt.Errorf("cannot check what claim %s has attached to pod %s: %w", claim, pod, err)
	}
	defer leave()
	record, found, err := a.records.read(claim, pod)
	if err != nil {
		return err
	}
	if !found || record.State != StateAttached {
		return fmt.Errorf("claim %s is not attached to pod %s", claim, pod)
	}
	if len(record.Intent.Devices) == 0 && record.RulesetHash == "" {
		return nil
	}
	namespace, err := namespaceOf(descriptor)
	if err != nil {
		return err
	}
	if !record.in(namespace) {
		return fmt.Errorf("claim %s is attached to another network namespace of pod %s", claim, pod)
	}
	for _, device := range record.Intent.Devices {
		present, err := a.present(descriptor, device)
		if err != nil {
			return err
		}
		if !present {
			return fmt.Errorf("device %s is not in the pod as it was attached (interface %q)", device.Device, device.PodName)
		}
	}
	if err := record.kept(descriptor); err != nil {
		return err
	}
	if record.RulesetHash == "" {
		return nil
	}
	intents, err := a.intents(record.Pod)
	if err != nil {
		return err
	}
	rules, scoped, err := scopeOf(intents)
	if err != nil {
		return err
	}
	if !scoped {
		return fmt.Errorf("the egress scope of pod %s is not known any more", pod)
	}
	return egress.Verify(ctx, descriptor, rules)
}
