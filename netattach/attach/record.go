package attach

// Records: one JSON file per claim and pod, replaced atomically. The hook
// hostler-gate reads them with the standard library alone, so their form is a
// contract: see the field tags, and cmd/hostler-gate.

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/hostler-dev/hostler/netattach"
)

// State of an attachment.
type State string

const (
	// StateAttaching: begun. The gate refuses.
	StateAttaching State = "Attaching"
	// StateAttached: complete. The gate lets containers start.
	StateAttached State = "Attached"
	// StateDetaching: what could not be taken back is tried again by Reconcile, wherever
	// the pod's sandbox has got to. The gate refuses.
	StateDetaching State = "Detaching"
	// StateDetached: taken back, but a device has not come home yet.
	StateDetached State = "Detached"
)

// Record is what is known of one claim in one pod.
type Record struct {
	State     State                  `json:"state"`
	BootID    string                 `json:"bootID"`
	SandboxID string                 `json:"sandboxID"`
	Pod       netattach.PodReference `json:"pod"`
	// NetNS is the namespace's path, "" for the host's; NetNSInode tells it from
	// a later one under the same path.
	NetNS      string `json:"netns,omitempty"`
	NetNSInode uint64 `json:"netnsInode,omitempty"`
	// RulesetHash is that of the pod's egress rules, "" if it has no scope.
	RulesetHash string           `json:"rulesetHash,omitempty"`
	Intent      netattach.Intent `json:"intent"`
	// Devices of the intent as they are known in the pod, once they are up there.
	Devices []netattach.DeviceState `json:"devices,omitempty"`
	// Chains is how many of the intent's CNI chains were begun, see chainsOf.
	Chains int `json:"chains,omitempty"`
	// FormerRoutes are the pod's default routes that a network of the claim replaced, as
	// the kernel tells them.
	FormerRoutes [][]byte `json:"formerRoutes,omitempty"`
	// Powers are those, of the capabilities that could undo what limits a pod, with
	// which containers that use the claim were let start.
	Powers []string `json:"powers,omitempty"`
	// PowersKnown: containers have been looked at for these since the sandbox was attached.
	// Records of earlier versions say nothing of them.
	PowersKnown bool `json:"powersKnown,omitempty"`
	// last is set while a record is undone after which nobody else would, see release,
	// and over if its claim is not prepared any more.
	last, over bool
	// MissingSince is when a device was found in no namespace.
	MissingSince time.Time `json:"missingSince,omitzero"`
}

func newRecord(sandbox Sandbox, namespace namespace, intent netattach.Intent, hash string, state State) Record {
	return Record{State: state, SandboxID: sandbox.ID, Pod: sandbox.Pod, NetNS: sandbox.NetNS,
		NetNSInode: namespace.inode, RulesetHash: hash, Intent: intent}
}

// in says that the record is of this very namespace. The kernel gives the number of one
// that is gone to the next (proc_alloc_inum), so the record's own has to be there still.
func (r Record) in(namespace namespace) bool {
	if r.NetNSInode != namespace.inode || r.NetNS == "" {
		return r.NetNSInode == namespace.inode
	}
	own, alive, err := r.open()
	if err != nil {
		return true // the number is the same, and nothing says that it is another's
	}
	if !alive {
		return false
	}
	own.Close()
	return true
}

// open opens the record's namespace; alive is false if it is gone.
func (r Record) open() (n namespace, alive bool, err error) {
	if r.NetNS == "" {
		return namespace{}, false, nil
	}
	n, err = openNamespace(r.NetNS)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, errNoNamespace) {
		return namespace{}, false, nil
	}
	if err != nil {
		return namespace{}, false, err
	}
	if n.inode != r.NetNSInode {
		n.Close()
		return namespace{}, false, nil
	}
	return n, true, nil
}

type records struct {
	dir    string
	bootID string
}

// openRecords makes the directory and finds out which boot this is.
func openRecords(run string) (*records, error) {
	dir := filepath.Join(run, "attached")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("cannot make the directory of attachment records: %w; check paths.run", err)
	}
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return nil, fmt.Errorf("cannot read the boot ID: %w", err)
	}
	return &records{dir: dir, bootID: strings.TrimSpace(string(id))}, nil
}

func (s *records) path(claim, pod types.UID) string {
	return filepath.Join(s.dir, fmt.Sprintf("%s-%s.json", claim, pod))
}

// write replaces the record as a whole. It need not outlive the boot, whose end
// undoes what it says, so there is no fsync.
func (s *records) write(record Record) error {
	record.BootID = s.bootID
	raw, err := json.MarshalIndent(record, "", "  ")
	if err != nil {
		return fmt.Errorf("attachment record of claim %s: %w", record.Intent.ClaimUID, err)
	}
	path := s.path(record.Intent.ClaimUID, record.Pod.UID)
	temporary, err := os.CreateTemp(s.dir, ".new-*")
	if err != nil {
		return fmt.Errorf("cannot write an attachment record: %w", err)
	}
	_, err = temporary.Write(raw)
	if err = errors.Join(err, temporary.Close()); err == nil {
		err = os.Rename(temporary.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("cannot write attachment record %s: %w", path, errors.Join(err, os.Remove(temporary.Name())))
	}
	return nil
}

func (s *records) read(claim, pod types.UID) (record Record, found bool, err error) {
	path := s.path(claim, pod)
	raw, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Record{}, false, nil
	}
	if err != nil {
		return Record{}, false, fmt.Errorf("cannot read an attachment record: %w", err)
	}
	if err := json.Unmarshal(raw, &record); err != nil {
		return Record{}, false, fmt.Errorf("attachment record %s is damaged: %w; delete it once the pod is gone", path, err)
	}
	return record, true, nil
}

func (s *records) remove(record Record) error {
	err := os.Remove(s.path(record.Intent.ClaimUID, record.Pod.UID))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("cannot remove an attachment record: %w", err)
	}
	return nil
}

// list returns what can be read; one damaged record does not hide the others.
func (s *records) list() ([]Record, error) { return s.named(".json") }

// ofPod are the pod's.
func (s *records) ofPod(pod types.UID) ([]Record, error) {
	return s.named(filepath.Base(s.path("", pod)))
}

// named are those whose names end so.
func (s *records) named(end string) ([]Record, error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, fmt.Errorf("cannot list attachment records: %w", err)
	}
	var list []Record
	for _, entry := range entries {
		if !strings.HasSuffix(entry.Name(), end) {
			continue
		}
		raw, err := os.ReadFile(filepath.Join(s.dir, entry.Name()))
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed meanwhile
		}
		if err != nil {
			return nil, fmt.Errorf("cannot read an attachment record: %w", err)
		}
		var record Record
		if json.Unmarshal(raw, &record) == nil {
			list = append(list, record)
		}
	}
	return list, nil
}

// sweep removes temporary files of writers that were killed and names records
// that list left out.
func (s *records) sweep() error {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return fmt.Errorf("cannot list attachment records: %w", err)
	}
	var faults []error
	for _, entry := range entries {
		path := filepath.Join(s.dir, entry.Name())
		if stat, err := entry.Info(); strings.HasPrefix(entry.Name(), ".new-") && err == nil && time.Since(stat.ModTime()) > time.Minute {
			faults = append(faults, os.Remove(path))
		}
		if raw, err := os.ReadFile(path); strings.HasSuffix(path, ".json") && err == nil && !json.Valid(raw) {
			faults = append(faults, fmt.Errorf("attachment record %s is damaged; delete it once the pod is gone", path))
		}
	}
	return errors.Join(faults...)
}
