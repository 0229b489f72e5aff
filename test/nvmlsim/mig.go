// MIG in the simulator, from the test's side: what an administrator or another
// program does to a GPU behind the agent's back.

package nvmlsim

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// SetMIGMode turns a GPU's MIG mode on or off, which destroys its instances,
// and emits the event that a driver emits then. The GPU needs a file mig_profiles
// to be cut.
func (c Control) SetMIGMode(gpu int, enabled bool) error {
	mode := "0 0"
	if enabled {
		mode = "1 1"
	}
	return c.changeMIG(gpu, func() error {
		if err := c.Unset(gpu, "mig_instances"); err != nil {
			return err
		}
		return c.Set(gpu, "mig_mode", mode)
	})
}

// SetMIGInstances replaces a GPU's instances by these lines of mig_instances
// (README.md), as if another program had made them, and emits the event.
func (c Control) SetMIGInstances(gpu int, lines string) error {
	return c.changeMIG(gpu, func() error { return c.Set(gpu, "mig_instances", lines) })
}

// changeMIG keeps NVML calls of any process from changing instances meanwhile.
func (c Control) changeMIG(gpu int, change func() error) error {
	lock, err := os.OpenFile(filepath.Join(c.Dir, folder(gpu), ".mig_lock"), os.O_CREATE|os.O_RDWR, 0o666)
	if err != nil {
		return fmt.Errorf("steer the NVML simulator: %w", err)
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return fmt.Errorf("steer the NVML simulator: lock the MIG instances of GPU %d: %w", gpu, err)
	}
	if err := change(); err != nil {
		return err
	}
	return c.InjectEvent("mig_config " + folder(gpu))
}
