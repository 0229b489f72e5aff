// What is left of a claim when the driver dies before its partitions are
// removed. Its pod must not hang in termination for that, so the claim counts as
// unprepared; but whose the partitions are is known from the journal alone, so
// the entry stays, marked as released and with nothing but them, until they are
// removed or seen gone. Until then nobody else gets their memory slices.

package claim

import (
	"context"
	"errors"

	"k8s.io/klog/v2"
)

// leave keeps of the entry only those of its partitions.
func (r *Runner) leave(ctx context.Context, entry *Entry, partitions map[string]bool) error {
	if entry.Released && len(partitions) == len(entry.Devices) {
		return nil // as before
	}
	left := &Entry{ClaimUID: entry.ClaimUID, ClaimNamespace: entry.ClaimNamespace, ClaimName: entry.ClaimName, BootID: entry.BootID, Released: true}
	for _, device := range entry.Devices {
		if partitions[device.Name] {
			left.Devices = append(left.Devices, device)
			klog.FromContext(ctx).Info("The driver does not work; a GPU partition is removed when it does again", "device", device.Name)
		}
	}
	return r.cfg.Journal.Put(left)
}

// removeLeftovers tries again. It asks nobody but the GPUs.
func (r *Runner) removeLeftovers(ctx context.Context) error {
	var faults []error
	for _, entry := range r.cfg.Journal.Entries() {
		if !entry.Released {
			continue
		}
		faults = append(faults, r.operate(ctx, entry.ClaimUID, func(ctx context.Context) error {
			current := r.cfg.Journal.Entry(entry.ClaimUID)
			if current == nil || !current.Released {
				return nil // the kubelet was faster
			}
			if err := r.undo(ctx, current); err != nil || r.cfg.Journal.Entry(entry.ClaimUID) != nil {
				return err
			}
			r.mended(ctx, current, DriftLeftover)
			return nil
		}))
	}
	return errors.Join(faults...)
}
