// What the files of a claim are to say is worked out while the disk is busy with its
// journal entry. That changes nothing on the node, and so may come before the entry
// is durable; to write the files may not.

package claim

import "context"

// composer is a step that can work out beforehand what it will write. What comes of
// it shows when it is done.
type composer interface {
	Compose(ctx context.Context) error
}

// compose has the steps compose, side by side with the caller's work, which is over
// when done is called.
func (r *Runner) compose(ctx context.Context, steps []Step) (done func()) {
	over := make(chan struct{})
	go func() {
		defer close(over)
		// The plans of claims that come together have the processors first: the disk waits for them.
		r.cfg.Journal.gathering.wait()
		for _, step := range steps {
			if c, can := step.(composer); can {
				// An error comes again when the step is done.
				_ = r.bounded(ctx, c.Compose)
			}
		}
	}()
	return func() { <-over }
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
