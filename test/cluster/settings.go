package cluster

// The kubelet sets a few kernel parameters that belong to the whole machine
// (setupKernelTunables in k8s.io/kubernetes/pkg/kubelet/cm). They are saved when
// the first cluster comes and restored when the last one goes.

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

func settings() []string {
	return []string{"vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic", "kernel/panic_on_oops",
		"kernel/keys/root_maxkeys", "kernel/keys/root_maxbytes"}
}

func settingsPath() string { return filepath.Join(stateRoot, "settings.json") }

func saveSettings() error {
	if _, err := os.Stat(settingsPath()); err == nil {
		return nil
	}
	saved := map[string]string{}
	for _, key := range settings() {
		value, err := os.ReadFile(filepath.Join("/proc/sys", key))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("read the kernel setting %s: %w", key, err)
		}
		saved[key] = string(value)
	}
	content, err := json.MarshalIndent(saved, "", "  ")
	if err != nil {
		return fmt.Errorf("encode the machine's kernel settings: %w", err)
	}
	if err := os.WriteFile(settingsPath(), content, 0o644); err != nil {
		return fmt.Errorf("save the machine's kernel settings: %w", err)
	}
	return nil
}

// restoreSettings puts the machine's values back if p is the last cluster.
func (p Plan) restoreSettings() error {
	others, err := filepath.Glob(filepath.Join(stateRoot, "*", "cluster.json"))
	if err != nil {
		return err
	}
	for _, other := range others {
		if filepath.Dir(other) != p.Dir {
			return nil
		}
	}
	content, err := os.ReadFile(settingsPath())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read the machine's kernel settings: %w", err)
	}
	saved := map[string]string{}
	if err := json.Unmarshal(content, &saved); err != nil {
		return fmt.Errorf("read the machine's kernel settings %s: %w", settingsPath(), err)
	}
	for key, value := range saved {
		if err := os.WriteFile(filepath.Join("/proc/sys", key), []byte(value), 0o644); err != nil {
			return fmt.Errorf("restore the kernel setting %s: %w", key, err)
		}
	}
	return os.Remove(settingsPath())
}
