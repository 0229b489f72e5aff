// Most writes of the journal do not replace its file: that takes the disk two turns,
// one for the content and one for the directory. They go into a second file beside it,
// of two slots that are overwritten in turn, each with all that the journal says. One
// of them is whole after a crash at any moment, since the other is written then.
//
// A slot counts only with the file that it continues, of which it has the generation.
// So the file on its own says the truth again as soon as it is replaced, which is
// done when a burst of claims is over and when the agent ends: an earlier version of
// the agent, which knows no slots, reads it. A slot that is damaged cannot be told from
// one that was being written; then the one before it counts.

package claim

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"k8s.io/apimachinery/pkg/util/uuid"
)

const (
	slotHeader = "hostler-journal-slot "
	// slotSize is enough for some hundred claims. What is longer replaces the file.
	slotSize = 256 << 10
)

// recentPath is the file of slots that continue the journal at path.
func recentPath(path string) string { return path + ".recent" }

// continuation is what the next write into a slot has to continue.
type continuation struct {
	// generation of the journal's file, "" if that is not known or has no slots.
	generation string
	version    string
	sequence   uint64
}

// newGeneration is one that no file has had.
func newGeneration() string { return string(uuid.NewUUID()) }

// overwrite writes the record into the next slot, if it can be there. Tried is
// false if nothing was done.
func (j *Journal) overwrite(r *record) (tried bool, err error) {
	if j.continues.generation == "" || r.oldestVersion() != j.continues.version {
		return false, nil
	}
	r.Generation, r.Sequence = j.continues.generation, j.continues.sequence+1
	raw, err := j.codec.encode(r)
	if err != nil {
		return false, fmt.Errorf("encode the journal: %w", err)
	}
	slot := append([]byte(slotHeader+strconv.Itoa(len(raw))+"\n"), raw...)
	if len(slot) > slotSize {
		return false, nil
	}
	path := recentPath(j.path)
	err = j.disk.Overwrite(path, int64(r.Sequence%2)*slotSize, slot)
	switch {
	case err == nil:
		j.continues.sequence++
		return true, nil
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	}
	// What is in the slot now nobody knows; a new generation makes it void.
	j.continues.generation = ""
	return true, fmt.Errorf("write the journal %s: %w; %s", path, err, remedy(err, filepath.Dir(path)))
}

// makeSlots has the file of slots be there. It is as long as it will ever be, so that
// overwriting it changes nothing but its content.
func (j *Journal) makeSlots() error {
	path := recentPath(j.path)
	if stat, err := os.Stat(path); err == nil && stat.Size() == 2*slotSize {
		return nil
	}
	if err := discard(j.disk, path); err != nil {
		return err
	}
	if err := writeFile(j.disk, path, make([]byte, 2*slotSize)); err != nil {
		return err
	}
	return j.disk.SyncDirectory(filepath.Dir(path))
}

// latest returns what the journal says whose file says r: r itself, or what a slot in
// one of the files says that continues it. It fails if slots cannot be read.
func (c *codec) latest(r *record, paths ...string) (*record, error) {
	for _, path := range paths {
		raw, err := readState(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		for slot := range 2 {
			recent := c.decodeSlot(raw[min(slot*slotSize, len(raw)):])
			if recent != nil && r.Generation != "" && recent.Generation == r.Generation && recent.Sequence > r.Sequence {
				r = recent
			}
		}
	}
	return r, nil
}

// decodeSlot returns nil for a slot that says nothing.
func (c *codec) decodeSlot(raw []byte) *record {
	header, rest, found := bytes.Cut(raw[:min(len(raw), slotSize)], []byte("\n"))
	text, is := bytes.CutPrefix(header, []byte(slotHeader))
	length, err := strconv.Atoi(string(text))
	if !found || !is || err != nil || length < 0 || length > len(rest) {
		return nil
	}
	r, err := c.decode(rest[:length])
	if err != nil {
		return nil
	}
	return r
}
