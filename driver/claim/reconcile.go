// Reconcile compares the journal with the three other places where truth is
// kept - the API server's claims, the CDI directory and, by way of the steps'
// Verify, the machine - and mends what differs. It runs at start and every few
// minutes, beside the kubelet's calls.

package claim

import (
	"context"
	"errors"
	"fmt"

	resourceapi "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"

	"github.com/hostler-dev/hostler/driver/cdi"
)

// ClaimReader reads claims; client-go's ResourceV1().ResourceClaims does.
type ClaimReader func(ctx context.Context, namespace, name string) (*resourceapi.ResourceClaim, error)

// ReadClaims makes a ClaimReader of a typed client.
func ReadClaims[C interface {
	Get(ctx context.Context, name string, opts metav1.GetOptions) (*resourceapi.ResourceClaim, error)
}](claims func(namespace string) C) ClaimReader {
	return func(ctx context.Context, namespace, name string) (*resourceapi.ResourceClaim, error) {
		return claims(namespace).Get(ctx, name, metav1.GetOptions{})
	}
}

// Reconcile mends every claim that it can and returns what it could not.
func (r *Runner) Reconcile(ctx context.Context, read ClaimReader, specs cdi.Directory) error {
	// Specs are listed before entries are: an entry joins the journal before
	// its spec is written, so that a spec without an entry is nobody's.
	files, err := specs.List()
	described, fault := r.cfg.Metadata.List()
	// Leftovers first: claims wait for what they hold.
	faults := []error{err, fault, r.cfg.Journal.Settle(), r.removeLeftovers(ctx)}
	known := map[types.UID]bool{}
	for _, entry := range r.cfg.Journal.Entries() {
		known[entry.ClaimUID] = true
		if entry.Released {
			continue
		}
		ctx, cancel := context.WithTimeoutCause(ctx, r.cfg.Patience, errPatience)
		if err := r.reconcileEntry(ctx, read, entry); err != nil {
			faults = append(faults, err)
		}
		cancel()
	}
	for _, claim := range files {
		// Of a journal that was lost it is not known yet which spec is nobody's.
		if !known[claim] && !r.cfg.Journal.Incomplete() {
			faults = append(faults, r.removeStray(ctx, claim, DriftStraySpec, specs.Remove))
		}
	}
	for _, claim := range described {
		if !known[claim] && !r.cfg.Journal.Incomplete() {
			faults = append(faults, r.removeStray(ctx, claim, DriftMetadata, r.cfg.Metadata.Remove))
		}
	}
	r.cfg.Drifted(r.drift(faults))
	return errors.Join(faults...)
}

var errPatience = errors.New("reconciliation looks at other claims first")

func (r *Runner) reconcileEntry(ctx context.Context, read ClaimReader, entry *Entry) error {
	judged := r.Arrive()
	if entry.Ending != "" {
		return r.end(ctx, entry, judged, DriftUndoFailed)
	}
	claim, err := read(ctx, entry.ClaimNamespace, entry.ClaimName)
	gone := apierrors.IsNotFound(err) || err == nil && (claim.UID != entry.ClaimUID || !entry.answers(claim))
	if err != nil && !gone {
		return fmt.Errorf("look whether claim %s/%s still exists: %w", entry.ClaimNamespace, entry.ClaimName, err)
	}
	logger := klog.FromContext(ctx).WithValues("claim", klog.KRef(entry.ClaimNamespace, entry.ClaimName), "claimUID", entry.ClaimUID)
	if gone || len(claim.Status.ReservedFor) == 0 {
		r.orphaned(entry.ClaimUID, true) // before it is asked, since it may end right after
		running, err := r.cfg.InUse(entry.ClaimUID)
		if err != nil {
			return &driftError{DriftClaimGone, err}
		}
		if running {
			return nil // until the pod has ended, see Orphans
		}
		logger.Info("Releasing a claim that was deleted, allocated anew or left by its pods while nobody told this node")
		return r.end(ctx, entry, judged, DriftClaimGone)
	}
	r.orphaned(entry.ClaimUID, false)
	return r.operate(ctx, entry.ClaimUID, func(ctx context.Context) error {
		current := r.cfg.Journal.Entry(entry.ClaimUID)
		if current == nil || current.over() || !current.answers(claim) {
			return nil // the kubelet was faster
		}
		if current.BootID != r.cfg.BootID {
			logger.Info("Preparing a claim again that was prepared before the machine rebooted")
		}
		_, err := r.prepare(ctx, claim)
		switch rebooted := current.BootID != r.cfg.BootID; {
		case rebooted && err != nil:
			return &driftError{DriftReboot, err}
		case rebooted:
			r.mended(ctx, current, DriftReboot)
		}
		return err
	})
}

func (r *Runner) removeStray(ctx context.Context, claim types.UID, what Drift, remove func(types.UID) error) error {
	return r.operate(ctx, claim, func(ctx context.Context) error {
		if r.cfg.Journal.Entry(claim) != nil {
			return nil
		}
		var later *LaterError
		if errors.As(r.cfg.Journal.Later(claim, r.cfg.BootID), &later) {
			return nil // they are the later version's
		}
		klog.FromContext(ctx).Info("Removing files that belong to no claim", "claimUID", claim, "what", what)
		if err := remove(claim); err != nil {
			return &driftError{what, err}
		}
		r.cfg.Mended(Mending{What: what, ClaimUID: claim})
		return nil
	})
}
