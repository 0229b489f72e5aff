package cluster

// What a cluster changes of the whole machine, saved when the first one comes
// and put back when the last one goes: a few kernel parameters, which the kubelet
// sets (setupKernelTunables in k8s.io/kubernetes/pkg/kubelet/cm), and the mount
// of /run/netns onto itself, which `ip netns add` makes (ip-netns(8)).

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

const netNSDir = "/run/netns"

func settings() []string {
	return []string{"vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic", "kernel/panic_on_oops",
		"kernel/keys/root_maxkeys", "kernel/keys/root_maxbytes"}
}

func settingsPath() string { return filepath.Join(stateRoot, "settings.json") }

// machineState is the content of settings.json.
type machineState struct {
	Settings map[string]string `json:"settings"`
	// NetNSMounted says whether /run/netns was a mount before the first cluster.
	NetNSMounted bool `json:"netNSMounted"`
}

func netNSMounted() (bool, error) {
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return false, fmt.Errorf("look for the mount of %s: %w", netNSDir, err)
	}
	return bytes.Contains(mounts, []byte(" "+netNSDir+" ")), nil
}

func saveSettings() error {
	if _, err := os.Stat(settingsPath()); err == nil {
		return nil
	}
	mounted, err := netNSMounted()
	if err != nil {
		return err
	}
	saved := machineState{Settings: map[string]string{}, NetNSMounted: mounted}
	for _, key := range settings() {
		value, err := os.ReadFile(filepath.Join("/proc/sys", key))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("read the kernel setting %s: %w", key, err)
		}
		saved.Settings[key] = string(value)
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
	var saved machineState
	if err := json.Unmarshal(content, &saved); err != nil {
		return fmt.Errorf("read the machine's kernel settings %s: %w", settingsPath(), err)
	}
	for key, value := range saved.Settings {
		if err := os.WriteFile(filepath.Join("/proc/sys", key), []byte(value), 0o644); err != nil {
			return fmt.Errorf("restore the kernel setting %s: %w", key, err)
		}
	}
	if err := saved.restoreNetNS(); err != nil {
		return err
	}
	return os.Remove(settingsPath())
}

// restoreNetNS undoes the mount unless somebody else has put a namespace there meanwhile.
func (s machineState) restoreNetNS() error {
	mounted, err := netNSMounted()
	if err != nil || s.NetNSMounted || !mounted {
		return err
	}
	names, err := os.ReadDir(netNSDir)
	if err != nil || len(names) > 0 {
		return err
	}
	if err := unix.Unmount(netNSDir, unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount %s: %w", netNSDir, err)
	}
	return nil
}
