// The state's file. It is replaced as a whole: written beside the old one,
// synced, renamed, and the directory synced, so that a power cut leaves either
// the old judgement or the new one. A file that cannot be understood is set
// aside for the administrator and never stops the agent.

package health

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

const fileVersion = 1

type stateFile struct {
	Version int   `json:"version"`
	State   State `json:"state"`
}

// load reads the state. A missing file is an empty state. A damaged one is
// renamed and described in setAside; only an I/O failure is an error.
func load(path string) (state State, setAside string, err error) {
	raw, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return State{}, "", nil
	}
	if err != nil {
		return State{}, "", fmt.Errorf("reading the health state: %w", err)
	}
	state, damage := decodeState(raw)
	if damage == nil {
		return state, "", nil
	}
	aside := path + ".damaged"
	if err := os.Rename(path, aside); err != nil {
		return State{}, "", fmt.Errorf("the health state %s is damaged (%w) and cannot be set aside: %w", path, damage, err)
	}
	return State{}, fmt.Sprintf("the health state %s could not be understood (%v); it was moved to %s and judgement starts anew: faults that only an event showed, and that no probe can see, are forgotten",
		path, damage, aside), nil
}

// decodeState parses a state file and restores the order that lookups rely on.
func decodeState(raw []byte) (State, error) {
	var file stateFile
	if err := json.Unmarshal(raw, &file); err != nil {
		return State{}, err
	}
	if file.Version != fileVersion {
		return State{}, fmt.Errorf("its version is %d, this agent reads %d", file.Version, fileVersion)
	}
	slices.SortFunc(file.State.Faults, compareFaults)
	for i, f := range file.State.Faults {
		if f.Family == "" || f.Severity == None {
			return State{}, fmt.Errorf("fault %d has no family or no severity", i)
		}
		if i > 0 && compareFaults(file.State.Faults[i-1], f) == 0 {
			return State{}, fmt.Errorf("device %q has two faults of family %s", f.Device, f.Family)
		}
	}
	return file.State, nil
}

func encodeState(state State) ([]byte, error) {
	return json.MarshalIndent(stateFile{Version: fileVersion, State: state}, "", "  ")
}

// save writes the state so that it survives a crash at any instruction.
func save(path string, state State) error {
	raw, err := encodeState(state)
	if err != nil {
		return fmt.Errorf("encoding the health state: %w", err)
	}
	directory := filepath.Dir(path)
	draft, err := os.CreateTemp(directory, filepath.Base(path)+".draft-*")
	if err != nil {
		return fmt.Errorf("writing the health state: %w", err)
	}
	defer os.Remove(draft.Name()) // gone already after a successful rename
	_, writeErr := draft.Write(raw)
	if err := errors.Join(writeErr, draft.Sync(), draft.Close()); err != nil {
		return fmt.Errorf("writing the health state to %s: %w", draft.Name(), err)
	}
	if err := os.Rename(draft.Name(), path); err != nil {
		return fmt.Errorf("replacing the health state: %w", err)
	}
	return syncDirectory(directory)
}

func syncDirectory(path string) error {
	directory, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("syncing the directory of the health state: %w", err)
	}
	return errors.Join(directory.Sync(), directory.Close())
}
