package claim

import (
	"context"
	"errors"
	"sync"

	resourceapi "k8s.io/api/resource/v1"
)

var errKilled = errors.New("killed")

// killer ends an agent at a numbered moment: from then on it does nothing to the
// machine, its disk or its GPU any more. Moments are the beginning and the end of
// all that a step does, and the halves of what changes the machine in several.
type killer struct {
	mu sync.Mutex
	// at is the moment, 0 for never; moments counts.
	at, moments int
	dead        bool
	// last is the moment that was passed last.
	last string
}

func (k *killer) pass(moment string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.dead {
		return errKilled
	}
	k.last = moment
	if k.moments++; k.moments == k.at {
		k.dead = true
		return errKilled
	}
	return nil
}

func (k *killer) isDead() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.dead
}

// mortal is a step of an agent that can be killed.
type mortal struct {
	Step
	killer *killer
}

func (m mortal) Do(ctx context.Context) error {
	return m.killer.between(m.Name(), func() error { return m.Step.Do(ctx) })
}

func (m mortal) Verify(ctx context.Context) error {
	return m.killer.between("verifying: "+m.Name(), func() error { return m.Step.Verify(ctx) })
}

func (m mortal) Undo(ctx context.Context) error {
	return m.killer.between("undoing: "+m.Name(), func() error { return m.Step.Undo(ctx) })
}

// between is work with a moment before and after it.
func (k *killer) between(what string, work func() error) error {
	if err := k.pass("before: " + what); err != nil {
		return err
	}
	if err := work(); err != nil {
		return err
	}
	return k.pass("after: " + what)
}

// mortalDisk is where a mortal agent keeps its journal. Nothing is synced: a killed
// process, unlike a killed machine, loses nothing that it has written.
type mortalDisk struct {
	realDisk
	killer *killer
}

func (d mortalDisk) Create(path string) (diskFile, error) {
	if err := d.killer.pass("before the journal is written"); err != nil {
		return nil, err
	}
	f, err := d.realDisk.Create(path)
	return mortalFile{f, d.killer}, err
}

func (d mortalDisk) Rename(from, to string) error {
	return d.killer.between("the journal is replaced", func() error { return d.realDisk.Rename(from, to) })
}

func (d mortalDisk) Link(file, name string) error {
	return d.killer.between("a second name is given", func() error { return d.realDisk.Link(file, name) })
}

func (d mortalDisk) Remove(path string) error {
	if d.killer.isDead() {
		return errKilled
	}
	return d.realDisk.Remove(path)
}

func (d mortalDisk) SyncDirectory(string) error {
	return d.killer.pass("the journal's directory is synced")
}

// Overwrite has a moment in the middle.
func (d mortalDisk) Overwrite(path string, offset int64, data []byte) error {
	return d.killer.between("a slot is written", func() error {
		half := len(data) / 2
		if err := d.realDisk.Overwrite(path, offset, data[:half]); err != nil {
			return err
		}
		if err := d.killer.pass("in the middle of a slot"); err != nil {
			return err
		}
		return d.realDisk.Overwrite(path, offset+int64(half), data[half:])
	})
}

type mortalFile struct {
	diskFile
	killer *killer
}

// Write has a moment in the middle.
func (f mortalFile) Write(data []byte) (int, error) {
	first, err := f.diskFile.Write(data[:len(data)/2])
	if err == nil {
		err = f.killer.pass("in the middle of a write")
	}
	if err != nil {
		return first, err
	}
	second, err := f.diskFile.Write(data[len(data)/2:])
	return first + second, err
}

func (f mortalFile) Sync() error { return f.killer.pass("the journal is synced") }

// agent is one process on the world.
type agent struct {
	*room
	*killer
	world *world
}

func (a *agent) prepare(c *resourceapi.ResourceClaim) (*Entry, error) {
	return a.Prepare(quiet(), a.Arrive(), c)
}

func (a *agent) unprepare(c *resourceapi.ResourceClaim) error { return a.Unprepare(quiet(), c.UID) }

// reconcile compares with an API server that has these claims.
func (a *agent) reconcile(claims ...*resourceapi.ResourceClaim) error {
	return a.Reconcile(quiet(), reader(claims...), a.cdi)
}
