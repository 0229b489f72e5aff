package attach

// The way back: a sandbox that goes, a claim that is unprepared, and what is
// found after the agent was away.

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"

	"github.com/hostler-dev/hostler/netattach"
	"github.com/hostler-dev/hostler/netattach/egress"
	"github.com/hostler-dev/hostler/netattach/link"
)

// missingFor is how long a record outlives a device that was found nowhere. The
// kernel takes namespaces apart in the background, and only then returns
// physical devices.
const missingFor = 10 * time.Minute

// DetachSandbox brings home everything that a sandbox of the pod has, and must come before
// the end of its network namespace. Word of an old sandbox's end may come after the pod's new
// one was attached, which keeps what it has. What there is no time for is left to
// Reconcile, which finds the namespace gone.
func (a *Attacher) DetachSandbox(ctx context.Context, pod types.UID, sandboxID string) error {
	a.turns.stop(pod, sandboxID)
	leave, err := a.turns.take(ctx, pod, "taking back sandbox "+sandboxID)
	if err != nil {
		return fmt.Errorf("cannot take back yet what pod %s has: %w", pod, err)
	}
	defer leave()
	// In the pod's turn none is missed that somebody else is about to write.
	records, err := a.records.ofPod(pod)
	if err != nil {
		return err
	}
	var faults []error
	for _, record := range records {
		if record.Pod.UID == pod && record.SandboxID == sandboxID {
			faults = append(faults, a.dissolve(ctx, record))
		}
	}
	return errors.Join(faults...)
}

// Release brings home whatever is left of a claim and forgets it.
func (a *Attacher) Release(ctx context.Context, claim types.UID) error {
	records, err := a.records.list()
	if err != nil {
		return err
	}
	var faults []error
	for _, record := range records {
		if record.Intent.ClaimUID == claim {
			faults = append(faults, a.release(ctx, record))
		}
	}
	return errors.Join(faults...)
}

// Reconcile compares records with the machine: records of an earlier boot and
// of namespaces that are gone are dissolved, so are those of claims that are no
// longer prepared; rules and limits of living pods are mended where they drifted.
func (a *Attacher) Reconcile(ctx context.Context) error {
	records, err := a.records.list()
	if err != nil {
		return err
	}
	faults := []error{a.records.sweep()}
	for _, record := range records {
		faults = append(faults, a.reconcile(ctx, record))
	}
	return errors.Join(append(faults, a.collectChains(ctx))...)
}

func (a *Attacher) reconcile(ctx context.Context, record Record) error {
	leave, err := a.turns.take(ctx, record.Pod.UID, "comparing "+claimOf(record)+" with the machine")
	if err != nil {
		return fmt.Errorf("cannot compare %s with the machine: %w", claimOf(record), err)
	}
	defer leave()
	record, found, err := a.records.read(record.Intent.ClaimUID, record.Pod.UID)
	if err != nil || !found {
		return err // dissolved meanwhile
	}
	if record.BootID != a.records.bootID {
		// The kernel set every device up anew at boot; there is nothing to bring home.
		return a.records.remove(record)
	}
	// The driver need not know claims that want nothing of the network; their
	// records go with the sandbox or with Release.
	if _, prepared := a.cfg.Intents.Intent(record.Intent.ClaimUID); !prepared && !idle(record.Intent) {
		// Of one that is over nothing is in a pod any more that would have to be left there.
		if record.State != StateDetached && a.cfg.Withheld != nil && a.cfg.Withheld(record.Intent.ClaimUID) {
			return nil
		}
		klog.FromContext(ctx).Info("Taking back what an unprepared claim left attached", "claim", klog.KRef(record.Intent.ClaimNamespace, record.Intent.ClaimName), "pod", klog.KRef(record.Pod.Namespace, record.Pod.Name))
		record.last, record.over = true, true
		return a.dissolve(ctx, record)
	}
	if a.ended(record) {
		return a.records.remove(record)
	}
	if record.State == StateDetaching {
		return a.dissolve(ctx, record)
	}
	if record.NetNS == "" {
		return nil
	}
	namespace, alive, err := record.open()
	if err != nil {
		return err
	}
	if !alive {
		return a.dissolve(ctx, record)
	}
	defer namespace.Close()
	if record.State != StateAttached {
		return nil
	}
	for _, device := range record.Intent.Devices {
		if err := link.Limit(namespace.descriptor, device); err != nil {
			return fmt.Errorf("claim %s/%s: %w", record.Intent.ClaimNamespace, record.Intent.ClaimName, err)
		}
	}
	if record.RulesetHash == "" {
		return nil
	}
	intents, err := a.intents(record.Pod)
	if err != nil {
		return err
	}
	rules, scoped, err := scopeOf(intents)
	if err != nil || !scoped {
		return err
	}
	if err := egress.Enforce(ctx, namespace.descriptor, rules); err != nil {
		return fmt.Errorf("egress scope of pod %s/%s: %w", record.Pod.Namespace, record.Pod.Name, err)
	}
	return nil
}

// release dissolves the record as nobody else would any more: what others brought into
// the pod is brought home, too.
func (a *Attacher) release(ctx context.Context, record Record) error {
	leave, err := a.turns.take(ctx, record.Pod.UID, "releasing "+claimOf(record))
	if err != nil {
		return fmt.Errorf("cannot release %s: %w", claimOf(record), err)
	}
	defer leave()
	current, found, err := a.records.read(record.Intent.ClaimUID, record.Pod.UID)
	if err != nil || !found || current.SandboxID != record.SandboxID {
		return err // dissolved or replaced meanwhile
	}
	current.last = true
	return a.dissolve(ctx, current)
}

func claimOf(record Record) string {
	return fmt.Sprintf("claim %s/%s", record.Intent.ClaimNamespace, record.Intent.ClaimName)
}

// dissolve undoes a record in its namespace, or on the host if that is gone.
func (a *Attacher) dissolve(ctx context.Context, record Record) error {
	namespace, alive, err := record.open()
	if err != nil {
		return err
	}
	if !alive {
		return a.dissolveIn(ctx, record, nil)
	}
	defer namespace.Close()
	return a.dissolveIn(ctx, record, &namespace)
}

// dissolveIn keeps the record while anything is not as it should be.
func (a *Attacher) dissolveIn(ctx context.Context, record Record, in *namespace) error {
	defer a.takenBack(record)
	if in != nil {
		release, err := a.host.Hold(in.descriptor)
		if err != nil {
			return err
		}
		defer release()
	}
	var faults []error
	if in != nil {
		faults = append(faults, restoreDefaultRoutes(ctx, record, *in))
	}
	faults = append(faults, a.undoChains(ctx, record, in))
	var missing []netattach.DeviceIntent
	for _, device := range slices.Backward(record.Intent.Devices) {
		at := device
		if record.over {
			at = unclaimed(device)
		}
		found, err := a.bringHome(ctx, in, at, record.last)
		faults = append(faults, err)
		if err == nil && !found {
			missing = append([]netattach.DeviceIntent{device}, missing...)
			detail := 0
			if device.External && in != nil {
				detail = 4 // Multus has yet to bring it home
			}
			klog.FromContext(ctx).V(detail).Info("A claimed network device is neither in its pod nor on the host; it is put in order once it is back", "device", device.Device, "mac", device.HostMAC)
		}
	}
	if err := errors.Join(faults...); err != nil {
		err = fmt.Errorf("claim %s/%s: %w", record.Intent.ClaimNamespace, record.Intent.ClaimName, err)
		if record.State != StateDetached {
			// Nothing is told of its devices any more, which are where they should not be.
			record.State, record.Devices = StateDetaching, nil
			return errors.Join(err, a.records.write(record))
		}
		if a.keepWaiting(&record) {
			return err
		}
		klog.FromContext(ctx).Error(err, "A network device that came home late is left as it is")
		return a.records.remove(record)
	}
	if len(missing) > 0 && a.keepWaiting(&record) {
		return a.records.write(record.waitingFor(missing))
	}
	return a.records.remove(record)
}

// waitingFor is the record of an attachment that is over but for these devices. What
// the others have on the host from now on is no matter of it.
func (r Record) waitingFor(missing []netattach.DeviceIntent) Record {
	r.Intent.Devices, r.Devices, r.Chains, r.FormerRoutes = missing, nil, 0, nil
	for i := range missing {
		missing[i].Networks = nil
	}
	return r
}

// keepWaiting marks when a device was first missed.
func (a *Attacher) keepWaiting(record *Record) bool {
	now := a.cfg.Now()
	if record.MissingSince.IsZero() {
		record.MissingSince = now
	}
	record.State = StateDetached
	return now.Sub(record.MissingSince) < missingFor
}
