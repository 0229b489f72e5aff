// What the files of a claim are to say is worked out while the disk is busy with its
// journal entry. That changes nothing on the node, and so may come before the entry
// is durable; to write the files may not.

package claim

import (
	"context"
	"sync"
)

// composer is a step that can work out beforehand what it will write. What comes of
// it shows when it is done.
type composer interface {
	Compose(ctx context.Context) error
}

// record has the entry join the journal, and the steps compose side by side with that.
func (r *Runner) record(ctx context.Context, entry *Entry, steps []Step) error {
	var composing sync.WaitGroup
	defer composing.Wait()
	return r.timed(kindJournal, PhaseDo, func() error {
		return r.cfg.Journal.put(entry, func() { composing.Go(func() { r.compose(ctx, steps) }) })
	})
}

func (r *Runner) compose(ctx context.Context, steps []Step) {
	for _, step := range steps {
		if c, can := step.(composer); can {
			// An error comes again when the step is done.
			_ = r.bounded(ctx, c.Compose)
		}
	}
}

// Compose implements composer. What names partitions or functions in user space waits
// until these are there.
func (s *specStep) Compose(ctx context.Context) (err error) {
	if s.entry.settledByPlan() {
		_, err = s.build(ctx)
	}
	return err
}

// Compose implements composer.
func (s *metadataStep) Compose(context.Context) (err error) {
	if s.entry.settledByPlan() {
		s.documents, err = s.describe()
	}
	return err
}

// settledByPlan: nothing that steps do has a say in what the claim's files say.
func (e *Entry) settledByPlan() bool {
	for i := range e.Devices {
		if d := &e.Devices[i]; d.Partition != nil || d.VFIO != nil || d.VF != nil {
			return false
		}
	}
	return true
}
