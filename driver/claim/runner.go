// Runner takes claims through their steps. Operations on one claim follow each
// other; those on different claims never wait for each other, except for the
// disk, on which they wait together (see Journal). A device is reserved at the
// moment when its claim's entry joins the journal, so nothing is locked while
// a step waits.
//
// Work outlives the call that began it: when the kubelet gives up, the work
// goes on, and the kubelet's next call waits for the same work.

package claim

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"

	"github.com/hostler-dev/hostler/driver/gpu"
	"github.com/hostler-dev/hostler/driver/metadata"
	"github.com/hostler-dev/hostler/netattach"
	"github.com/hostler-dev/hostler/topology"
)

// NetworkResolver looks up a NetworkAttachmentDefinition and returns what is
// wanted of it with its CNI configuration for a device.
type NetworkResolver interface {
	Resolve(ctx context.Context, wanted netattach.NetworkIntent, deviceID string) (netattach.NetworkIntent, error)
}

// RunnerConfig is what a Runner works with.
type RunnerConfig struct {
	Journal *Journal
	// Plan is package function Plan with the machine filled in.
	Plan     func(*resourceapi.ResourceClaim) (*Entry, error)
	Steps    func(*Entry) []Step
	Networks NetworkResolver
	// Admit has the last word before an entry joins the journal, see Admission.
	// Nil admits all.
	Admit func(context.Context, *Entry) error
	// InUse reports whether a pod that uses the claim is still running here. A claim
	// that is deleted while its pod runs, with force, keeps its devices until then.
	InUse func(claim types.UID) (bool, error)
	// BootID of the running machine.
	BootID string
	// StepTimeout bounds each thing that a step does, so that one slow step takes no
	// time from the next, nor from taking it back. Default: 2 minutes.
	StepTimeout time.Duration
	// Patience is how long reconciliation waits for the work on one claim, which goes
	// on after that, before it looks at the next. Default: 40 seconds.
	Patience time.Duration
	// Observe, if set, is told how long each part of a claim's work took: a step's
	// Kind or what the runner does itself, in a phase of PhaseDo and so on. A nil error is a success.
	Observe func(step, phase string, duration time.Duration, err error)
	// Mended, if set, is told what was put right, and Drifted after each reconciliation
	// how much of each kind could not be.
	Mended  func(Mending)
	Drifted func(map[Drift]int)
	// Undone, if set, is told of each claim that was undone, whoever asked for that,
	// also if the call is over that did: its devices are as they were before it.
	Undone func(*Entry)
	// Prepared, if set, is told how each prepare ended, whoever asked for it.
	Prepared func(*resourceapi.ResourceClaim, error)
	// Metadata is where files for claims' containers are kept.
	Metadata *metadata.Directory
	// Arrivals number calls. Default: the Runner's own.
	Arrivals *Arrivals
}

// Runner prepares and unprepares claims.
type Runner struct {
	cfg RunnerConfig

	mu sync.Mutex
	// operations are those that are under way or waiting, by claim; the last
	// one of a claim is what the next has to wait for.
	operations map[types.UID]chan struct{}
	// working counts operations; none joins them once drained is set.
	working sync.WaitGroup
	drained bool
	// orphans are claims that nobody wants and a pod still has.
	orphans map[types.UID]bool
}

// NewRunner returns a Runner.
func NewRunner(cfg RunnerConfig) *Runner {
	if cfg.StepTimeout == 0 {
		cfg.StepTimeout = 2 * time.Minute
	}
	if cfg.Patience == 0 {
		cfg.Patience = 40 * time.Second
	}
	if cfg.Observe == nil {
		cfg.Observe = func(string, string, time.Duration, error) {}
	}
	if cfg.Mended == nil {
		cfg.Mended = func(Mending) {}
	}
	if cfg.Drifted == nil {
		cfg.Drifted = func(map[Drift]int) {}
	}
	if cfg.Undone == nil {
		cfg.Undone = func(*Entry) {}
	}
	if cfg.Prepared == nil {
		cfg.Prepared = func(*resourceapi.ResourceClaim, error) {}
	}
	if cfg.Arrivals == nil {
		cfg.Arrivals = &Arrivals{}
	}
	return &Runner{cfg: cfg, operations: map[types.UID]chan struct{}{}, orphans: map[types.UID]bool{}}
}

// Expect says that the claims are about to be prepared, so that the journal is written for
// all of them at once; done that none is any more.
func (r *Runner) Expect(claims ...types.UID) (done func()) { return r.cfg.Journal.Expect(claims...) }

// Prepare makes the claim ready for containers and returns its entry.
func (r *Runner) Prepare(ctx context.Context, arrival Arrival, claim *resourceapi.ResourceClaim) (*Entry, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("claim %s/%s: the call was over before it began: %w", claim.Namespace, claim.Name, err)
	}
	var entry *Entry
	err := r.operate(ctx, claim.UID, func(ctx context.Context) (err error) {
		if r.straggles(claim.UID, arrival) {
			return fmt.Errorf("claim %s/%s: %w", claim.Namespace, claim.Name, ErrStraggler)
		}
		entry, err = r.prepare(ctx, claim)
		return err
	})
	if err != nil {
		return nil, err
	}
	return entry, nil
}

// Unprepare undoes all that was done for the claim. A claim of which nothing is
// known is done.
func (r *Runner) Unprepare(ctx context.Context, claim types.UID) error {
	r.bury(claim, r.Arrive())
	return r.operate(ctx, claim, func(ctx context.Context) error {
		entry := r.cfg.Journal.Entry(claim)
		if entry == nil {
			return r.forget(ctx, claim)
		}
		return r.undo(ctx, entry)
	})
}

func (r *Runner) prepare(ctx context.Context, claim *resourceapi.ResourceClaim) (prepared *Entry, failure error) {
	defer func() { r.cfg.Prepared(claim, failure) }()
	arrived := r.cfg.Journal.Expect(claim.UID)
	defer arrived()
	if err := r.cfg.Journal.Later(claim.UID, r.cfg.BootID); err != nil {
		return nil, err
	}
	before := r.cfg.Journal.Entry(claim.UID)
	if before != nil && !before.over() && before.BootID == r.cfg.BootID && before.answers(claim) {
		arrived()
		return r.again(ctx, before, claim)
	}
	if before != nil {
		// Allocated anew without our having seen the end of the old allocation,
		// left from before a reboot, or over and not undone yet.
		err := r.undo(ctx, before)
		if left := r.cfg.Journal.Entry(claim.UID); err == nil && left != nil {
			err = fmt.Errorf("partition %s cannot be removed while the driver does not work; the kubelet tries again", left.Devices[0].Name)
		}
		if err != nil {
			return nil, fmt.Errorf("what claim %s/%s had before has to be undone first: %w", claim.Namespace, claim.Name, err)
		}
	}
	entry, err := r.plan(ctx, claim)
	if err != nil {
		return nil, err
	}
	first := *entry
	first.First = true
	steps := r.cfg.Steps(&first)
	if err := r.record(ctx, entry, steps); err != nil {
		return nil, fmt.Errorf("claim %s/%s: %w", claim.Namespace, claim.Name, err)
	}
	if begun, err := r.do(ctx, &first, steps, true); err != nil {
		return nil, errors.Join(err, r.abandon(ctx, entry.owning(begun, nil), err))
	}
	return entry, nil
}

// plan returns the entry as it is to join the journal.
func (r *Runner) plan(ctx context.Context, claim *resourceapi.ResourceClaim) (*Entry, error) {
	var entry *Entry
	if err := r.timed(kindPlan, PhaseDo, func() (err error) { entry, err = r.cfg.Plan(claim); return err }); err != nil {
		return nil, err
	}
	resolve := func(ctx context.Context) error { return r.resolve(ctx, entry) }
	if err := r.timed(kindResolve, PhaseDo, func() error { return r.bounded(ctx, resolve) }); err != nil {
		return nil, err
	}
	if r.cfg.Admit == nil {
		return entry, nil
	}
	admit := func(ctx context.Context) error { return r.cfg.Admit(ctx, entry) }
	if err := r.timed(kindAdmit, PhaseDo, func() error { return r.bounded(ctx, admit) }); err != nil {
		return nil, fmt.Errorf("claim %s/%s: %w", claim.Namespace, claim.Name, err)
	}
	return entry, nil
}

// abandon undoes a claim's first attempt. It first has the journal say which
// partitions are not the claim's, for the case that the rest takes several tries.
func (r *Runner) abandon(ctx context.Context, entry *Entry, failure error) error {
	if slices.ContainsFunc(entry.Devices, func(d Device) bool { return d.Partition != nil }) {
		entry.Ending = failure.Error()
		if err := r.cfg.Journal.Put(entry); err != nil {
			return fmt.Errorf("claim %s/%s: record what was made for it: %w", entry.ClaimNamespace, entry.ClaimName, err)
		}
	}
	return r.undo(ctx, entry)
}

// again is the repeated prepare: nothing is planned anew, but everything is
// verified, and done again where it is not there any more.
func (r *Runner) again(ctx context.Context, entry *Entry, claim *resourceapi.ResourceClaim) (*Entry, error) {
	pods, called := podsOf(claim), claim.Annotations[resourceapi.PodResourceClaimAnnotation]
	renewed := !slices.Equal(pods, entry.Pods) || called != entry.PodClaimName
	if renewed {
		updated := *entry
		updated.Pods, updated.PodClaimName = pods, called
		if err := r.cfg.Journal.Put(&updated); err != nil {
			return nil, fmt.Errorf("claim %s/%s: %w", claim.Namespace, claim.Name, err)
		}
		entry = &updated
	}
	_, err := r.do(ctx, entry, r.cfg.Steps(entry), renewed)
	return entry, err
}

// resolve fills in the CNI configurations, for which it asks the API server.
func (r *Runner) resolve(ctx context.Context, entry *Entry) error {
	for i := range entry.Devices {
		network := entry.Devices[i].Network
		if network == nil {
			continue
		}
		for j, wanted := range network.Networks {
			found, err := r.cfg.Networks.Resolve(ctx, wanted, network.DeviceID())
			if err != nil {
				return fmt.Errorf("claim %s/%s: network %s/%s for NIC %s: %w", entry.ClaimNamespace, entry.ClaimName, wanted.Namespace, wanted.Name, network.Device, err)
			}
			network.Networks[j] = found
		}
	}
	if err := checkNetworks(entry); err != nil {
		return fmt.Errorf("claim %s/%s: %w", entry.ClaimNamespace, entry.ClaimName, err)
	}
	return nil
}

// do does the entry's steps. It returns also how many were begun, less the one that failed if it made nothing.
// Of an entry that is not new, nothing should be left to do, see redo.
func (r *Runner) do(ctx context.Context, entry *Entry, steps []Step, isNew bool) (int, error) {
	for i, step := range steps {
		klog.FromContext(ctx).V(4).Info("Doing a step", "step", step.Name())
		do := step.Do
		if !isNew {
			do = func(ctx context.Context) error { return r.redo(ctx, entry, step) }
		}
		if err := r.take(ctx, step, PhaseDo, do); err != nil {
			begun := i + 1
			if errors.Is(err, topology.ErrNothingMade) {
				begun = i
			}
			return begun, fmt.Errorf("claim %s/%s: %s: %w", entry.ClaimNamespace, entry.ClaimName, step.Name(), failed(step, err))
		}
		if err := r.take(ctx, step, PhaseVerify, step.Verify); err != nil {
			return i + 1, fmt.Errorf("claim %s/%s: after: %s: %w", entry.ClaimNamespace, entry.ClaimName, step.Name(), failed(step, err))
		}
	}
	return len(steps), nil
}

// undo takes the steps back in reverse order and forgets the entry. If a step
// cannot be undone the entry stays, and the device with it, until a later try, see remain.
// What only waits for the driver to work again holds nobody up, see leave.
func (r *Runner) undo(ctx context.Context, entry *Entry) error {
	waiting := map[string]bool{}
	arrived := r.cfg.Journal.Expect(entry.ClaimUID)
	defer arrived()
	for i, step := range slices.Backward(r.cfg.Steps(entry)) {
		klog.FromContext(ctx).V(4).Info("Undoing a step", "step", step.Name())
		err := r.take(ctx, step, PhaseUndo, step.Undo)
		var unanswered *gpu.UnansweredError
		if errors.As(err, &unanswered) {
			waiting[unanswered.Partition] = true
			klog.FromContext(ctx).V(2).Info("Leaving a GPU partition to be removed later", "device", unanswered.Partition, "reason", unanswered.Reason, "answer", unanswered.Answer.Error())
			continue
		}
		if err != nil {
			return r.remain(ctx, entry.owning(i+1, waiting), fmt.Errorf("undo: %s: %w", step.Name(), err))
		}
	}
	if len(waiting) > 0 {
		if err := r.leave(ctx, entry, waiting); err != nil {
			return err
		}
	} else {
		if err := r.timed(kindJournal, PhaseUndo, func() error { return r.cfg.Journal.Delete(entry.ClaimUID) }); err != nil {
			return err
		}
	}
	r.orphaned(entry.ClaimUID, false)
	r.cfg.Undone(entry)
	return nil
}

// answers reports whether the entry is of the claim's present allocation.
func (e *Entry) answers(claim *resourceapi.ResourceClaim) bool {
	var want []result
	for _, w := range ownResults(claim) {
		want = append(want, resultOf(w.Request, w.Pool, w.Device, w.ShareID))
	}
	return slices.Equal(e.results(), want)
}

// result is what identifies an allocation result.
type result struct {
	Request, Pool, Name string
	ShareID             types.UID
}

func resultOf(request, pool, name string, share *types.UID) result {
	r := result{Request: request, Pool: pool, Name: name}
	if share != nil {
		r.ShareID = *share
	}
	return r
}

func (e *Entry) results() []result {
	var results []result
	for _, d := range e.Devices {
		results = append(results, resultOf(d.Request, d.Pool, d.Name, d.ShareID))
	}
	return results
}
