package main

// Hooks run on the host, so the host needs the programs: the agent copies them
// from beside its own executable to paths that the runtime sees under the same
// name. A copy is written aside and renamed, because a container may be starting
// through the old one at this moment.

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/hostler-dev/hostler/api/v1alpha1"
)

func installHooks(paths v1alpha1.PathsConfig) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("finding the hooks beside the agent's executable: %w", err)
	}
	if err := installHook(filepath.Join(filepath.Dir(self), "hostler-gate"), paths.Gate); err != nil {
		return err
	}
	// Without NVIDIA's hook, specs go without its steps; the driver logs that.
	err = installHook(filepath.Join(filepath.Dir(self), "nvidia-cdi-hook"), paths.CDIHook)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

func installHook(from, to string) error {
	program, err := os.ReadFile(from)
	if err != nil {
		return fmt.Errorf("a hook belongs beside the agent's executable and cannot be read: %w; install it there", err)
	}
	if installed, err := os.ReadFile(to); err == nil && bytes.Equal(installed, program) {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return hookFailed(to, err)
	}
	aside, err := os.CreateTemp(filepath.Dir(to), ".hook-*")
	if err != nil {
		return hookFailed(to, err)
	}
	defer os.Remove(aside.Name()) // fails after the rename, as it should
	_, writeErr := aside.Write(program)
	if err := errors.Join(writeErr, aside.Chmod(0o755), aside.Sync(), aside.Close()); err != nil {
		return hookFailed(to, err)
	}
	if err := os.Rename(aside.Name(), to); err != nil {
		return hookFailed(to, err)
	}
	return nil
}

func hookFailed(to string, err error) error {
	return fmt.Errorf("installing the hook %s on the host: %w; check paths.gate and paths.cdiHook", to, err)
}
