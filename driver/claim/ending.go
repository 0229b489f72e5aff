// What becomes of a claim that cannot be undone at once: a partition that a
// process still uses, a netdev that is still in a pod. The journal says so, with
// the reason, and from then on there is one way left for the claim: all of it is
// undone, by the kubelet's next call or by reconciliation, before its devices are
// anybody's again, its own next pod's included. So what an attempt left half
// undone is never taken for what was prepared whole.

package claim

import (
	"context"
	"errors"
	"fmt"
	"reflect"

	"k8s.io/klog/v2"
)

// over reports whether the claim is to be undone and no more.
func (e *Entry) over() bool { return e.Released || e.Ending != "" }

// remain keeps what is left of the entry, with the reason why it is still there, and returns that.
func (r *Runner) remain(ctx context.Context, entry *Entry, reason error) error {
	reason = fmt.Errorf("claim %s/%s: %w", entry.ClaimNamespace, entry.ClaimName, reason)
	logger := klog.FromContext(ctx).WithValues("claim", klog.KRef(entry.ClaimNamespace, entry.ClaimName), "claimUID", entry.ClaimUID)
	logger.Info("A claim cannot be undone yet; nobody else gets its devices until it is, which is tried again", "reason", reason.Error())
	ending := *entry
	ending.Ending = reason.Error()
	if reflect.DeepEqual(r.cfg.Journal.Entry(entry.ClaimUID), &ending) {
		return reason
	}
	if err := r.cfg.Journal.Put(&ending); err != nil {
		return errors.Join(reason, fmt.Errorf("record that: %w", err))
	}
	return reason
}

// end undoes a claim that was judged to be over, unless a call of the kubelet has
// come in between and changed what was judged. Prepares from before the judgement are
// stragglers; a later one sees what was seen then, or something newer.
func (r *Runner) end(ctx context.Context, judged *Entry, at Arrival, why Drift) error {
	return r.operate(ctx, judged.ClaimUID, func(ctx context.Context) error {
		if r.cfg.Journal.Entry(judged.ClaimUID) != judged {
			return nil
		}
		r.bury(judged.ClaimUID, at)
		if err := r.undo(ctx, judged); err != nil {
			return err
		}
		r.mended(ctx, judged, why)
		return nil
	})
}
