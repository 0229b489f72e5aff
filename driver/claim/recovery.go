// After the journal was lost, the API server is the last who knows of claims whose
// CDI specs were lost with it. Those that are allocated here and that pods have
// reserved are prepared as if the kubelet had asked. For a running pod that writes
// the spec, without which none of its containers could restart; where the pod is just
// being started the kubelet's own call finds the work done, and where it has just
// ended, reconciliation undoes it once the claim is no longer reserved.
//
// Nothing on the hardware is taken over by that. A partition which is there and
// which no entry tells of is the administrator's (see Admission), and a NIC whose
// netdev is in a pod is refused until it is back; its record, which the attacher
// keeps, brings it home without the journal.

package claim

import (
	"context"
	"errors"
	"fmt"

	resourceapi "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/pager"
	"k8s.io/klog/v2"
)

// ClaimLister calls visit with each claim of the cluster, until that fails.
type ClaimLister func(ctx context.Context, visit func(*resourceapi.ResourceClaim) error) error

// ListClaims makes a ClaimLister of a typed client, which lists in pages.
func ListClaims(list func(context.Context, metav1.ListOptions) (*resourceapi.ResourceClaimList, error)) ClaimLister {
	return func(ctx context.Context, visit func(*resourceapi.ResourceClaim) error) error {
		pages := pager.New(func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
			return list(ctx, options)
		})
		return pages.EachListItem(ctx, metav1.ListOptions{}, func(object runtime.Object) error {
			claim, ok := object.(*resourceapi.ResourceClaim)
			if !ok {
				return fmt.Errorf("the API server listed a %T among claims", object)
			}
			return visit(claim)
		})
	}
}

// Incomplete reports whether the journal was lost and Recover has not succeeded since.
func (j *Journal) Incomplete() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.incomplete
}

// complete notes that it has.
func (j *Journal) complete() error {
	j.mu.Lock()
	j.incomplete = false
	err := j.commit()
	if err != nil {
		j.mu.Lock()
		j.incomplete = true
		j.mu.Unlock()
	}
	return err
}

// Recover completes a journal that was lost; for any other it does nothing. Here
// reports whether a pool is this node's. It returns what it could not prepare, and is
// called again until it could, or until those claims are gone.
func (r *Runner) Recover(ctx context.Context, list ClaimLister, here func(pool string) bool) error {
	if !r.cfg.Journal.Incomplete() {
		return nil
	}
	// What is unprepared from now on is no longer as it is listed.
	arrival := r.Arrive()
	var lost []*resourceapi.ResourceClaim
	err := list(ctx, func(claim *resourceapi.ResourceClaim) error {
		if len(claim.Status.ReservedFor) > 0 && allocatedHere(claim, here) && r.cfg.Journal.Entry(claim.UID) == nil {
			lost = append(lost, claim.DeepCopy())
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("list the claims that the lost journal may have had: %w", err)
	}
	var faults []error
	for _, claim := range lost {
		ctx, cancel := context.WithTimeoutCause(ctx, r.cfg.Patience, errPatience)
		_, err := r.Prepare(ctx, arrival, claim)
		cancel()
		if errors.Is(err, ErrStraggler) {
			continue
		}
		if err != nil {
			faults = append(faults, fmt.Errorf("prepare again what the lost journal had: %w", err))
			continue
		}
		klog.FromContext(ctx).Info("Prepared a claim again that the lost journal had", "claim", klog.KObj(claim), "claimUID", claim.UID)
	}
	if len(faults) > 0 {
		return errors.Join(faults...)
	}
	return r.cfg.Journal.complete()
}

func allocatedHere(claim *resourceapi.ResourceClaim, here func(pool string) bool) bool {
	for _, result := range ownResults(claim) {
		if here(result.Pool) {
			return true
		}
	}
	return false
}
