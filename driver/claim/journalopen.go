// Opening the journal never ends in a crash loop over what the file says: a broken
// file is no reason to stop serving a node. One that is damaged, and one that a
// later version of the agent wrote, is set aside under a name that says so, and what
// it said is rebuilt from the CDI specs, each of which carries the entry that it was
// made from. What a later version has set up is left to that version: such claims
// are neither prepared nor unprepared, see LaterError, and when that version is back
// it takes from the file set aside what nobody else could handle.

package claim

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"

	"github.com/hostler-dev/hostler/driver/cdi"
)

// Recovery is one thing that was out of the ordinary when the journal was opened,
// and what was done about it, in the form of an event.
type Recovery struct {
	// Reason is JournalDamaged, JournalSetAside (a later version wrote it),
	// JournalMissing (while there are CDI specs), JournalTakenBack (entries of a file that an
	// earlier version had set aside, or of CDI specs that it could not read) or ClaimsOfLaterVersion.
	Reason  string
	Message string
}

// OpenJournal reads the journal at path, or makes one. See Recoveries for what may
// have happened to it.
func OpenJournal(ctx context.Context, path string, specs cdi.Directory) (*Journal, error) {
	return openOn(ctx, realDisk{}, path, specs)
}

// ReadJournal is a look at the journal by somebody who does not own it: nothing
// is created, set aside or kept open. A missing file is an empty journal.
func ReadJournal(path string) (*Journal, error) {
	j, err := newJournal(realDisk{}, path)
	if err != nil {
		return nil, err
	}
	err = j.load()
	var later *versionError
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return j, nil
	case errors.As(err, &later):
		return nil, fmt.Errorf("the journal %s: %w", path, err)
	case errors.Is(err, errDamaged):
		return nil, fmt.Errorf("the journal %s: %w; the agent rebuilds it when it starts", path, err)
	}
	return j, err
}

func newJournal(d disk, path string) (*Journal, error) {
	codec, err := newCodec()
	if err != nil {
		return nil, err
	}
	return &Journal{
		path: path, disk: d, codec: codec, later: map[types.UID]*laterClaim{},
		entries: map[types.UID]*Entry{}, durable: map[types.UID]*Entry{}, unprepared: map[types.UID]Tombstone{}, changed: make(chan struct{}),
	}, nil
}

func openOn(ctx context.Context, d disk, path string, specs cdi.Directory) (*Journal, error) {
	j, err := newJournal(d, path)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		return nil, fmt.Errorf("create the state directory: %w; check paths.state in the agent's configuration", err)
	}
	fault := j.load()
	if fault != nil && !errors.Is(fault, fs.ErrNotExist) && !errors.Is(fault, errDamaged) {
		return nil, fault
	}
	// What the slots say may be in memory alone, if a sync has failed, and their file's
	// name, too, if its maker was killed. The first write says it all anew, in the file.
	j.continues = continuation{}
	var aside string
	if errors.Is(fault, errDamaged) {
		if aside, err = j.setAside(ctx, fault); err != nil {
			return nil, err
		}
	}
	// What was set aside says more of a claim than its spec, unless this may be the later one.
	taken := fault == nil && j.takeAsides(ctx)
	// A journal that is not complete yet was written by an agent that may not have been
	// able to read all specs.
	rebuilt := j.readSpecs(ctx, specs, fault != nil || j.incomplete)
	j.report(ctx, fault, aside, rebuilt)
	changed := rebuilt.restored > 0 || aside != ""
	if fault != nil {
		taken = j.takeAsides(ctx)
	}
	if changed || taken {
		j.mu.Lock()
		j.incomplete = j.incomplete || changed
		// Until the journal is written they are safe where they were taken from.
		j.durable, j.unsettled = maps.Clone(j.entries), true
		if err := j.commit(); err != nil {
			// The disk may be full, or fail. Serving goes on with what is in memory, and
			// each later write brings all of it to disk.
			klog.FromContext(ctx).Error(err, "The rebuilt journal cannot be written yet; trying again with the next change and at every reconciliation")
			return j, nil
		}
	}
	j.dropAsides()
	j.tidyAsides(ctx)
	return j, nil
}

var errDamaged = errors.New("it cannot be used")

// load takes the entries from the file. The error is fs.ErrNotExist or errDamaged
// (a *versionError among these) if one can go on without.
func (j *Journal) load() error {
	r, err := j.read()
	if err != nil {
		return err
	}
	for _, entry := range r.Entries {
		j.entries[entry.ClaimUID] = entry
	}
	for _, stone := range r.Unprepared {
		j.unprepared[stone.Claim] = stone
	}
	j.durable, j.incomplete = maps.Clone(j.entries), r.Incomplete
	return nil
}

// read returns what the file and its slots say, and notes what is to continue them. Who
// looks on while the agent writes may have to look twice.
func (j *Journal) read() (*record, error) {
	for {
		raw, err := readState(j.path)
		if err != nil {
			return nil, err
		}
		r, err := j.codec.decode(raw)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", errDamaged, err)
		}
		latest, err := j.codec.latest(r, recentPath(j.path))
		if err != nil {
			return nil, err
		}
		j.continues = continuation{generation: r.Generation, version: r.oldestVersion(), sequence: latest.Sequence}
		again, err := readState(j.path)
		if err != nil || bytes.Equal(raw, again) {
			return latest, err
		}
	}
}

// readState reads a file of the journal. The error is fs.ErrNotExist or errDamaged if
// one can go on without.
func readState(path string) ([]byte, error) {
	raw, err := os.ReadFile(path)
	switch {
	case err == nil, errors.Is(err, fs.ErrNotExist):
		return raw, err
	case errors.Is(err, syscall.EIO):
		return nil, fmt.Errorf("%w: %w", errDamaged, err)
	}
	return nil, fmt.Errorf("read the journal: %w; the agent needs read and write access to this file", err)
}

// rebuilding is what CDI specs told beyond the journal.
type rebuilding struct {
	restored int
	useless  []string
	fault    error
}

// readSpecs looks at the specs of claims that the journal does not have. It takes
// their entries if the journal was lost; else such a spec is left to
// reconciliation, which removes it. Those of a later version are noted always.
func (j *Journal) readSpecs(ctx context.Context, specs cdi.Directory, lost bool) rebuilding {
	claims, err := specs.List()
	result := rebuilding{fault: err}
	for _, claim := range claims {
		if j.entries[claim] != nil {
			continue
		}
		raw, err := specs.Entry(claim)
		var entry *Entry
		if err == nil {
			entry, err = j.codec.decodeEntry(claim, raw)
		}
		if err == nil && lost {
			err = j.conflict(entry)
		}
		var later *versionError
		switch {
		case errors.As(err, &later):
			j.later[claim] = &laterClaim{entry: entry, version: later.Version, spec: specs.File(claim)}
		case lost && err != nil:
			LoggerFor(ctx, err).Error(err, "A CDI spec is of no use for rebuilding the journal", "claimUID", claim)
			result.useless = append(result.useless, string(claim))
		case lost:
			j.entries[claim] = entry
			result.restored++
		}
	}
	return result
}

// report words what happened.
func (j *Journal) report(ctx context.Context, fault error, aside string, rebuilt rebuilding) {
	text := fmt.Sprintf("%d claims were rebuilt from their CDI specs", rebuilt.restored)
	if len(rebuilt.useless) > 0 {
		text += fmt.Sprintf(", those of %d could not be read", len(rebuilt.useless))
	}
	if rebuilt.fault != nil {
		text += fmt.Sprintf(", the CDI directory could not be read (%v)", rebuilt.fault)
	}
	text += "; other claims of this node's pods are looked up in the API server"
	var later *versionError
	switch {
	case errors.As(fault, &later):
		j.recovered(ctx, "JournalSetAside", fmt.Sprintf("The journal %s is of version %s, which this version of the agent cannot read. It is kept as %s; %s. Let the later version run again, or run its `hostler release`, to have the claims that need it undone.",
			j.path, later.Version, aside, text))
	case errors.Is(fault, errDamaged):
		j.recovered(ctx, "JournalDamaged", fmt.Sprintf("The journal %s was damaged: %v. It is kept as %s; %s. GPU partitions that no claim holds now have to be removed by hand.", j.path, fault, aside, text))
	case fault == nil && rebuilt.restored > 0:
		j.recovered(ctx, "JournalTakenBack", fmt.Sprintf("The journal %s is not complete since it was lost; %s.", j.path, text))
	case fault != nil && rebuilt.restored+len(rebuilt.useless) > 0:
		j.recovered(ctx, "JournalMissing", fmt.Sprintf("The journal %s was missing; %s. GPU partitions that no claim holds now have to be removed by hand.", j.path, text))
	}
	if len(j.later) > 0 {
		var names []string
		for _, claim := range slices.Sorted(maps.Keys(j.later)) {
			names = append(names, j.later[claim].name())
		}
		// The event is about the node, and whoever reads those need not know all claims.
		klog.FromContext(ctx).Info("Claims were prepared by a later version of the agent, which alone can unprepare them", "claims", names)
		j.recovered(ctx, "ClaimsOfLaterVersion", fmt.Sprintf("%d claims were prepared by a later version of the agent, which alone can unprepare them; the agent's log names them. Let that version run again, or run its `hostler release`, or reboot the node.", len(names)))
	}
}

func (j *Journal) recovered(ctx context.Context, reason, message string) {
	klog.FromContext(ctx).Info("The journal was not as the agent left it", "reason", reason, "what", message)
	j.recoveries = append(j.recoveries, Recovery{Reason: reason, Message: message})
}

// Recoveries returns what was out of the ordinary when the journal was opened.
func (j *Journal) Recoveries() []Recovery { return j.recoveries }
