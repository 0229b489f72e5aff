// Drift is what is not as the journal and the API server say, until
// reconciliation, or a repeated prepare, has put it right. Each kind has a fixed
// word, by which it is counted, logged and told in events: on a quiet node all
// counts stand still.

package claim

import (
	"context"
	"errors"
	"os"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"
)

// Drift is a kind of difference.
type Drift string

// The kinds of drift.
const (
	// DriftClaimGone: the claim was deleted, allocated anew or left by its pods, and
	// nobody told this node.
	DriftClaimGone Drift = "claim-gone"
	// DriftReboot: what the claim had did not outlive a reboot.
	DriftReboot Drift = "reboot"
	// DriftSpecMissing and DriftSpecWrong: the CDI spec was not there, or said something else.
	DriftSpecMissing Drift = "spec-missing"
	DriftSpecWrong   Drift = "spec-wrong"
	// DriftStraySpec: a CDI spec belonged to no claim.
	DriftStraySpec Drift = "stray-spec"
	// DriftMetadata: a metadata file was not there, was damaged or belonged to no claim.
	DriftMetadata Drift = "metadata"
	// DriftDeviceInfo: a device-info file for Multus was not there, or said something else.
	DriftDeviceInfo Drift = "device-info"
	// DriftPartition: somebody had removed a GPU partition.
	DriftPartition Drift = "partition"
	// DriftBinding: a device was not bound, or a VF not set up, as the claim wants it.
	DriftBinding Drift = "binding"
	// DriftLeftover: a partition of a released claim was still there.
	DriftLeftover Drift = "leftover"
	// DriftUndoFailed: a claim that is over could not be undone.
	DriftUndoFailed Drift = "undo-failed"
)

// Drifts are all kinds.
func Drifts() []Drift {
	return []Drift{DriftClaimGone, DriftReboot, DriftSpecMissing, DriftSpecWrong, DriftStraySpec, DriftMetadata, DriftDeviceInfo, DriftPartition, DriftBinding, DriftLeftover, DriftUndoFailed}
}

// Mending is one difference that was put right.
type Mending struct {
	What     Drift
	ClaimUID types.UID
	// ClaimNamespace and ClaimName are "" if nothing but files is left of the claim.
	ClaimNamespace, ClaimName string
}

// mended reports what was put right for the entry's claim.
func (r *Runner) mended(ctx context.Context, entry *Entry, what Drift) {
	klog.FromContext(ctx).Info("Mended a claim", "claim", klog.KRef(entry.ClaimNamespace, entry.ClaimName), "claimUID", entry.ClaimUID, "what", what)
	r.cfg.Mended(Mending{What: what, ClaimUID: entry.ClaimUID, ClaimNamespace: entry.ClaimNamespace, ClaimName: entry.ClaimName})
}

// maker is the step of a partition; others know more precisely what was wrong.
type maker interface{ Made() bool }

// mender is a step that knows what its Do had to put right, "" if it found its work done.
type mender interface{ Mended() Drift }

// verifiable are the kinds of steps that can be verified before they are done, with
// what has drifted where that fails.
var verifiable = map[string]Drift{"vf-settings": DriftBinding, "vfio": DriftBinding, "deviceinfo": DriftDeviceInfo}

// redo does the step of an entry that was prepared before, and reports what was
// not there any more.
func (r *Runner) redo(ctx context.Context, entry *Entry, step Step) error {
	what, known := verifiable[step.Kind()]
	undone := known && step.Verify(ctx) != nil
	if err := step.Do(ctx); err != nil {
		return err
	}
	if undone && step.Verify(ctx) == nil {
		r.mended(ctx, entry, what)
	}
	if m, makes := step.(maker); makes && m.Made() {
		r.mended(ctx, entry, DriftPartition)
	}
	if m, knows := step.(mender); knows && m.Mended() != "" {
		r.mended(ctx, entry, m.Mended())
	}
	return nil
}

// driftError is of a difference that could not be put right.
type driftError struct {
	what Drift
	error
}

func (e *driftError) Unwrap() error { return e.error }

// failed says which difference remains if the step fails.
func failed(step Step, err error) error {
	what, known := verifiable[step.Kind()]
	if !known {
		what = map[string]Drift{"partition": DriftPartition, "metadata": DriftMetadata, "cdi": DriftSpecWrong}[step.Kind()]
	}
	if what == "" {
		return err
	}
	return &driftError{what, err}
}

// drift counts what remains after a reconciliation: what its faults are about, and
// the claims that are over and not undone.
func (r *Runner) drift(faults []error) map[Drift]int {
	found := map[Drift]int{}
	for _, what := range Drifts() {
		found[what] = 0
	}
	for _, fault := range faults {
		var drifted *driftError
		if errors.As(fault, &drifted) {
			found[drifted.what]++
		}
	}
	for _, entry := range r.cfg.Journal.Entries() {
		switch {
		case entry.Released:
			found[DriftLeftover]++
		case entry.Ending != "":
			found[DriftUndoFailed]++
		}
	}
	return found
}

// Mended implements mender.
func (s *specStep) Mended() Drift { return s.mended }

// ensure writes the spec and remembers what was wrong with it.
func (s *specStep) ensure(write func() (bool, error)) error {
	_, missing := os.Stat(s.steps.Directory.File(s.entry.ClaimUID))
	written, err := write()
	switch {
	case err != nil:
		return err
	case written && missing != nil:
		s.mended = DriftSpecMissing
	case written:
		s.mended = DriftSpecWrong
	}
	return nil
}

// Mended implements mender. A file that only says something newer has not drifted.
func (s *metadataStep) Mended() Drift {
	if s.missing {
		return DriftMetadata
	}
	return ""
}
