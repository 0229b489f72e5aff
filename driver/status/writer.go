package status

// The Writer learns that something has become of a claim and works out later what
// there is to say of it: a queue holds each claim once, however often it changes,
// and what follows within a moment is said with it. So a pod's start costs one
// write, after its network is up, and an API server that is slow or away costs no
// memory: what is not written yet is not kept, it is worked out when it can be.

import (
	"context"
	"fmt"
	"sync"
	"time"

	resourceapi "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	resourceclient "k8s.io/client-go/kubernetes/typed/resource/v1"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/klog/v2"

	"github.com/hostler-dev/hostler/driver/claim"
	"github.com/hostler-dev/hostler/netattach/attach"
)

const (
	// workers write at the same time; the API server has other things to do when a node's pods all start.
	workers = 4
	// patience is how long one request may take.
	patience = 15 * time.Second
	// settleTime is how long a prepared claim waits for what else becomes of it,
	// attachTime for its pod's sandbox to be made, which says the rest.
	settleTime = time.Second
	attachTime = 5 * time.Second
	// failTime is how long a failed prepare waits: most that wait for a device on its
	// way home from another pod succeed by then.
	failTime = 3 * time.Second
	// leaveTime is how long a claim that was detached or unprepared waits for its
	// end, which for most comes with their pod's and leaves nothing to write.
	leaveTime = 10 * time.Second
	// wordsTime is between two writes that change nothing but words: an error that
	// counts something must not be written with each count.
	wordsTime = time.Minute
)

// Config of a Writer. All fields but Entries, Observe, Tell and Now must be set.
type Config struct {
	NodeName string
	Client   resourceclient.ResourceClaimsGetter
	// Entry returns the journal's entry of a claim, nil if there is none.
	Entry func(claim types.UID) *claim.Entry
	// Entries are those that an earlier agent left in the journal.
	Entries []*claim.Entry
	// Records returns those of a claim's attachments in this boot.
	Records func(claim types.UID) ([]attach.Record, error)
	// Observe is told how long each write took. A nil error is a success.
	Observe func(duration time.Duration, err error)
	// Tell has an administrator know that status cannot be written on this node, and why.
	Tell func(reason, message string)
	// Now is the clock. Default: time.Now.
	Now func() time.Time
}

// Writer writes claims' status. Its methods but Run return at once.
type Writer struct {
	cfg     Config
	manager string
	queue   workqueue.TypedRateLimitingInterface[types.UID]

	mu     sync.Mutex
	claims map[types.UID]*known
	// refused says that an administrator was told why nothing can be written.
	refused bool
}

// New returns a Writer that writes nothing yet.
func New(cfg Config) *Writer {
	if cfg.Observe == nil {
		cfg.Observe = func(time.Duration, error) {}
	}
	if cfg.Tell == nil {
		cfg.Tell = func(string, string) {}
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	limiter := workqueue.NewTypedItemExponentialFailureRateLimiter[types.UID](500*time.Millisecond, time.Minute)
	return &Writer{cfg: cfg, manager: fieldManager(cfg.NodeName), queue: workqueue.NewTypedRateLimitingQueue(limiter), claims: left(cfg.Entries)}
}

// Run writes until ctx ends. What is not written then is written by the next
// agent, after its first look at all claims.
func (w *Writer) Run(ctx context.Context) {
	var all sync.WaitGroup
	defer all.Wait()
	defer w.queue.ShutDown()
	for range workers {
		all.Go(func() {
			for {
				uid, over := w.queue.Get()
				if over {
					return
				}
				w.process(ctx, uid)
				w.queue.Done(uid)
			}
		})
	}
	<-ctx.Done()
}

// process writes what there is to say now, and has the queue come back to it as need be.
func (w *Writer) process(ctx context.Context, uid types.UID) {
	if ctx.Err() != nil {
		return
	}
	again, err := w.write(ctx, uid)
	switch {
	case err != nil && ctx.Err() == nil:
		klog.FromContext(ctx).V(2).Info("The status of a claim could not be written; trying again", "claimUID", uid, "reason", err.Error())
		w.queue.AddRateLimited(uid)
	case err == nil:
		w.queue.Forget(uid)
		if again > 0 {
			w.queue.AddAfter(uid, again)
		}
	}
}

// write returns after what time to look again, 0 if that need not be.
func (w *Writer) write(ctx context.Context, uid types.UID) (again time.Duration, err error) {
	k := w.look(uid)
	if k == nil {
		return 0, nil
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	asked := k.doubtful
	if asked {
		if k, err = w.ask(ctx, k); k == nil || err != nil {
			return 0, err
		}
	}
	entry := w.cfg.Entry(uid)
	if !isOver(entry) && !k.prepared && k.failure == "" && entry.Ending == "" {
		return 0, nil // it is being prepared, and its end will be told
	}
	var records []attach.Record
	if entry != nil {
		if records, err = w.cfg.Records(uid); err != nil {
			return 0, err
		}
	}
	now := w.cfg.Now()
	if wait := k.settled.Sub(now); k.prepared && wait > 0 {
		return wait, nil
	}
	wanted := dated(Wanted(Claim{Entry: entry, Allocated: k.allocated, Failure: k.failure, Records: records, AttachFailures: k.attachFailures}), k.present, now)
	switch compare(wanted, k.present) {
	case same:
		if len(wanted) == 0 {
			w.forget(k)
		}
		return 0, nil
	case words:
		if wait := k.written.Add(wordsTime).Sub(now); wait > 0 {
			return wait, nil
		}
	}
	if k.dropped && compare(wanted, k.tried) == same {
		return 0, nil
	}
	return 0, w.apply(ctx, k, wanted, asked)
}

// apply writes the status of a claim, which may have been read right before.
func (w *Writer) apply(ctx context.Context, k *known, wanted []resourceapi.AllocatedDeviceStatus, asked bool) error {
	begin := time.Now()
	answer, err := w.cfg.Client.ResourceClaims(k.namespace).ApplyStatus(ctx, applyConfiguration(k, wanted), metav1.ApplyOptions{FieldManager: w.manager, Force: true})
	w.cfg.Observe(time.Since(begin), err)
	logger := klog.FromContext(ctx).WithValues("claim", klog.KRef(k.namespace, k.name), "claimUID", k.uid)
	switch {
	case err == nil:
		w.wrote(k, wanted, answer)
		logger.V(2).Info("Wrote a claim's status", "devices", len(wanted))
		return nil
	case apierrors.IsNotFound(err):
		w.forget(k)
		return nil
	case mayNot(err) && (asked || w.wasRefused()):
		w.refuse(ctx, err)
		return nil // until the next look at all claims
	case apierrors.IsInvalid(err) && asked || apierrors.IsConflict(err) && asked || apierrors.IsBadRequest(err):
		if w.complain(k, err) {
			logger.Error(err, "The API server does not take a claim's status; it is tried again with the next look at all claims")
		}
		return nil
	case mayNot(err) || apierrors.IsInvalid(err) || apierrors.IsConflict(err):
		w.doubt(k) // it may be allocated anew, here or elsewhere, or another of its name
	}
	return fmt.Errorf("write the status of claim %s/%s: %w", k.namespace, k.name, err)
}

// mayNot reports whether the API server says that this agent may not write status.
// Since 1.36 rights on devices' status are part of validation (resourceclaims/driver,
// pkg/registry/resource/utils.go).
func mayNot(err error) bool {
	return apierrors.IsForbidden(err) || apierrors.HasStatusCause(err, metav1.CauseTypeForbidden)
}

func (w *Writer) wasRefused() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.refused
}

// refuse tells it once, until something could be written again.
func (w *Writer) refuse(ctx context.Context, err error) {
	w.mu.Lock()
	told := w.refused
	w.refused = true
	w.mu.Unlock()
	if told {
		return
	}
	message := fmt.Sprintf("The agent may not write what becomes of claims' devices into their status: %v; grant its service account what the chart's ClusterRole does (resourceclaims/status: patch; resourceclaims/driver: associated-node:patch). Claims are served all the same", err)
	klog.FromContext(ctx).Error(err, "Claims' status cannot be written; they are served all the same", "remedy", "grant the rights of the chart's ClusterRole: resourceclaims/status patch, resourceclaims/driver associated-node:patch")
	w.cfg.Tell("ClaimStatusRefused", message)
}

// wrote notes what the API server has now.
func (w *Writer) wrote(k *known, wanted []resourceapi.AllocatedDeviceStatus, answer *resourceapi.ResourceClaim) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.refused = false
	now := w.claims[k.uid]
	if now == nil {
		return
	}
	now.complaint = ""
	now.present, now.version, now.written = ours(answer), answer.ResourceVersion, w.cfg.Now()
	if len(wanted) == 0 && !now.prepared && now.failure == "" {
		delete(w.claims, k.uid)
	}
	// Servers up to 1.36 can have the field switched off, and drop it.
	now.tried, now.dropped = wanted, len(wanted) > 0 && len(now.present) == 0
}

// ask reads the claim anew. It returns nil if that is no longer what is known of it.
func (w *Writer) ask(ctx context.Context, k *known) (*known, error) {
	claim, err := w.cfg.Client.ResourceClaims(k.namespace).Get(ctx, k.name, metav1.GetOptions{})
	switch {
	case err != nil && !apierrors.IsNotFound(err):
		return nil, fmt.Errorf("look at claim %s/%s: %w", k.namespace, k.name, err)
	case err != nil || claim.UID != k.uid || !k.isAllocated(claim):
		w.forget(k)
	default:
		w.seen(claim)
	}
	return w.look(k.uid), nil
}
