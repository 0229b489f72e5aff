// Package cdi writes, for each prepared claim, the one file from which the
// container runtime learns what a container of that claim gets: device nodes,
// driver libraries and the gate hook (Container Device Interface, CDI).
//
// The directory is usually a tmpfs and anyone may clean it, so it is never
// trusted: every prepare ends with the file compared against what it should be.
// Each file also carries, as an annotation, the journal entry that it was made
// from: should the journal be lost, it can be rebuilt from the directory.
package cdi

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"sort"
	"strings"
	"syscall"

	"k8s.io/apimachinery/pkg/types"
	"tags.cncf.io/container-device-interface/pkg/parser"
	"tags.cncf.io/container-device-interface/specs-go"
)

// Kind is the CDI kind of all devices that the driver makes.
const Kind = vendor + "/" + class

const (
	vendor = "hostler.dev"
	class  = "claim"
	// EntryAnnotation holds the journal entry of the claim as JSON.
	EntryAnnotation = "hostler.dev/journal-entry"
)

// DeviceID is the name by which the kubelet hands a device to the runtime.
func DeviceID(claim types.UID, device string) string {
	return parser.QualifiedName(vendor, class, deviceName(claim, device))
}

// deviceName contains the claim's UID: runtimes cache specs by device name, so
// a name must never be used for two claims.
func deviceName(claim types.UID, device string) string { return string(claim) + "-" + device }

// Directory is where the runtime looks for specs.
type Directory struct{ Path string }

// File is the path of a claim's spec: vendor-class_transient ID, as the CDI library names
// specs that come and go.
func (d Directory) File(claim types.UID) string {
	return filepath.Join(d.Path, fmt.Sprintf("%s-%s_%s.json", vendor, class, claim))
}

// Ensure makes the claim's file say what the encoded spec says. It reports whether it had
// to write. A file that is already right is left alone, so that a repeated
// prepare does not make the runtime reload it.
func (d Directory) Ensure(claim types.UID, spec []byte) (written bool, err error) {
	if have, err := os.ReadFile(d.File(claim)); err == nil && sameSpec(have, spec) {
		return false, nil
	}
	if err := os.MkdirAll(d.Path, 0o755); err != nil {
		return false, fmt.Errorf("create the CDI directory: %w; check paths.cdi in the agent's configuration", err)
	}
	if err := replaceFile(d.File(claim), spec); err != nil {
		return false, fmt.Errorf("write the CDI spec of claim %s: %w; %s must be writable for the agent and have free space", claim, err, d.Path)
	}
	return true, nil
}

// Verify fails unless the claim's file says what the encoded spec says.
func (d Directory) Verify(claim types.UID, spec []byte) error {
	have, err := os.ReadFile(d.File(claim))
	if err != nil {
		return fmt.Errorf("read back the CDI spec of claim %s: %w", claim, err)
	}
	if !sameSpec(have, spec) {
		return fmt.Errorf("the CDI spec %s differs from what was written; something else writes to this directory", d.File(claim))
	}
	return nil
}

// sameSpec: an earlier version of the agent wrote the same in other words, indented.
func sameSpec(have, want []byte) bool {
	if bytes.Equal(have, want) {
		return true
	}
	var a, b any
	return json.Unmarshal(have, &a) == nil && json.Unmarshal(want, &b) == nil && reflect.DeepEqual(a, b)
}

// Remove deletes the claim's file. It is no error if there is none, nor if
// there is no directory that could hold one.
func (d Directory) Remove(claim types.UID) error {
	err := os.Remove(d.File(claim))
	if err == nil || gone(err) {
		return nil
	}
	// A read-only file system refuses before it looks.
	if _, look := os.Lstat(d.File(claim)); look != nil && gone(look) {
		return nil
	}
	return fmt.Errorf("remove the CDI spec of claim %s: %w; %s must be writable for the agent", claim, err, d.Path)
}

func gone(err error) bool { return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) }

// List returns the claims that have a file, sorted.
func (d Directory) List() ([]types.UID, error) {
	files, err := os.ReadDir(d.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list the CDI directory: %w", err)
	}
	prefix := fmt.Sprintf("%s-%s_", vendor, class)
	var claims []types.UID
	for _, file := range files {
		if uid, ours := strings.CutPrefix(file.Name(), prefix); ours {
			if uid, isSpec := strings.CutSuffix(uid, ".json"); isSpec && uid != "" {
				claims = append(claims, types.UID(uid))
			}
		}
	}
	sort.Slice(claims, func(i, j int) bool { return claims[i] < claims[j] })
	return claims, nil
}

// Entry returns the journal entry that the claim's file carries.
func (d Directory) Entry(claim types.UID) ([]byte, error) {
	raw, err := os.ReadFile(d.File(claim))
	if err != nil {
		return nil, fmt.Errorf("read the CDI spec of claim %s: %w", claim, err)
	}
	var spec specs.Spec
	if err := json.Unmarshal(raw, &spec); err != nil {
		return nil, fmt.Errorf("the CDI spec %s is not JSON: %w", d.File(claim), err)
	}
	entry, ok := spec.Annotations[EntryAnnotation]
	if !ok {
		return nil, fmt.Errorf("the CDI spec %s carries no journal entry", d.File(claim))
	}
	return []byte(entry), nil
}

// Encode makes the file of a claim's spec: in one line, since the runtime reads all
// files again at each change of one, and its parser reads blanks slowly.
func Encode(claim types.UID, spec *specs.Spec) ([]byte, error) {
	raw, err := json.Marshal(spec)
	if err != nil {
		return nil, fmt.Errorf("encode the CDI spec of claim %s: %w", claim, err)
	}
	return append(raw, '\n'), nil
}

// replaceFile puts data in place of whatever file says: a reader sees the old
// file or the new one. It is not synced to disk, because no spec outlives a
// boot: after one, every spec is written anew from the journal, which is. The
// temporary name does not end in .json, so no runtime reads it as a spec; it is
// the same for every attempt, so an interrupted write leaves at most one.
func replaceFile(file string, data []byte) error {
	temporary := unfinished(file)
	if err := os.WriteFile(temporary, data, 0o644); err != nil {
		if left := os.Remove(temporary); left != nil && !errors.Is(left, fs.ErrNotExist) && !errors.Is(left, syscall.EROFS) {
			err = errors.Join(err, left)
		}
		return err
	}
	return os.Rename(temporary, file)
}
