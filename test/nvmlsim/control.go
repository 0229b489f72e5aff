// How a test makes a day good or bad: each change is one file of the control
// folder, written so that a running NVML call sees the old value or the new one.

package nvmlsim

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
)

// Control changes the simulated GPUs of one driver root while programs use
// them. Each method writes a file that a shell could write as well; a change
// is seen by the next NVML call. Methods may be called from several
// goroutines, except that Fail, Slow, Hang and Clear rewrite the same file.
type Control struct {
	// Dir is the folder nvmlsim of the driver root.
	Dir string
}

// AllGPUs, in place of a GPU's index, makes a rule apply to every GPU and to
// calls that concern none.
const AllGPUs = -1

// RecoveryAction is what field 230 says must be done about a GPU.
type RecoveryAction string

// Actions as the file recovery_action words them.
const (
	RecoveryNone          RecoveryAction = "none"
	RecoveryReset         RecoveryAction = "reset"
	RecoveryReboot        RecoveryAction = "reboot"
	RecoveryDrainP2P      RecoveryAction = "drain_p2p"
	RecoveryDrainAndReset RecoveryAction = "drain_and_reset"
)

// NewMachine writes the files of a driver without GPUs.
func (c Control) NewMachine(driverVersion, cudaVersion string) error {
	return errors.Join(c.write("driver_version", driverVersion), c.write("cuda_version", cudaVersion), c.write("events", ""))
}

// AddGPU writes the attribute files of a GPU; README.md lists the names.
func (c Control) AddGPU(gpu int, attributes map[string]string) error {
	for name, value := range attributes {
		if err := c.Set(gpu, name, value); err != nil {
			return err
		}
	}
	return nil
}

// Set gives one attribute of a GPU a value.
func (c Control) Set(gpu int, attribute, value string) error {
	return c.write(filepath.Join(folder(gpu), attribute), value)
}

// Unset makes a GPU answer "not supported" for an attribute.
func (c Control) Unset(gpu int, attribute string) error {
	err := os.Remove(filepath.Join(c.Dir, folder(gpu), attribute))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("steer the NVML simulator: %w", err)
	}
	return nil
}

// SetUtilization of the GPU's processors in percent.
func (c Control) SetUtilization(gpu, percent int) error {
	return c.Set(gpu, "utilization", strconv.Itoa(percent))
}

// SetMemoryUsed sets the memory that processes hold.
func (c Control) SetMemoryUsed(gpu int, bytes uint64) error {
	return c.Set(gpu, "memory_used", strconv.FormatUint(bytes, 10))
}

// SetTemperature in degrees Celsius.
func (c Control) SetTemperature(gpu, degrees int) error {
	return c.Set(gpu, "temperature", strconv.Itoa(degrees))
}

// SetLost makes every call on the GPU answer "GPU is lost", or no longer.
func (c Control) SetLost(gpu int, lost bool) error {
	if !lost {
		return c.Unset(gpu, "lost")
	}
	return c.Set(gpu, "lost", "1")
}

// SetUnbound takes a GPU from the driver, as unbinding its PCI function does, or
// gives it back. The driver counts only the GPUs that it has.
func (c Control) SetUnbound(gpu int, unbound bool) error {
	if !unbound {
		return c.Unset(gpu, "unbound")
	}
	return c.Set(gpu, "unbound", "1")
}

// SetRecoveryAction sets what the driver asks for (field 230). It emits no event.
func (c Control) SetRecoveryAction(gpu int, action RecoveryAction) error {
	return c.Set(gpu, "recovery_action", string(action))
}

// InjectXID emits an XID event. It has no other effect: a GPU that falls off
// the bus needs SetLost as well. gi and ci, of the MIG instance that the error
// is confined to, are nil for the whole GPU.
func (c Control) InjectXID(gpu int, xid uint64, gi, ci *uint32) error {
	line := fmt.Sprintf("xid %s %d", folder(gpu), xid)
	if gi != nil {
		line += fmt.Sprintf(" gi=%d", *gi)
	}
	if ci != nil {
		line += fmt.Sprintf(" ci=%d", *ci)
	}
	return c.InjectEvent(line)
}

// InjectEvent emits an event of any kind, "<kind> gpu<N> [<number>]".
func (c Control) InjectEvent(line string) error {
	f, err := os.OpenFile(filepath.Join(c.Dir, "events"), os.O_APPEND|os.O_WRONLY|os.O_CREATE, 0o644)
	if err != nil {
		return fmt.Errorf("steer the NVML simulator: %w", err)
	}
	_, err = fmt.Fprintln(f, line)
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("steer the NVML simulator: %w", err)
	}
	return nil
}

// Fail makes a call return an error. call is an NVML function's name, a shell
// pattern of names, or "field:<id>" for one value of nvmlDeviceGetFieldValues.
func (c Control) Fail(call string, gpu int, result nvml.Return) error {
	return c.edit(call, gpu, fmt.Sprintf("return=%d", int(result)))
}

// Slow makes a call take that long.
func (c Control) Slow(call string, gpu int, delay time.Duration) error {
	return c.edit(call, gpu, fmt.Sprintf("delay=%dms", delay.Milliseconds()))
}

// Hang makes a call not return until the rule is cleared.
func (c Control) Hang(call string, gpu int) error {
	return c.edit(call, gpu, "hang")
}

// Clear removes the rules that Fail, Slow and Hang made for this call and GPU.
func (c Control) Clear(call string, gpu int) error {
	return c.edit(call, gpu, "")
}

// ClearAll removes all rules, so that every call works and hung ones return.
func (c Control) ClearAll() error {
	return c.write("calls", "")
}

// KillDriver makes nvmlInit and every other call answer "driver not loaded".
func (c Control) KillDriver() error {
	return c.write("driver", "dead")
}

// ReviveDriver undoes KillDriver.
func (c Control) ReviveDriver() error {
	return c.write("driver", "alive")
}

// edit replaces the rules of a call and GPU; an empty effect only removes them.
func (c Control) edit(call string, gpu int, effect string) error {
	target := "*"
	if gpu != AllGPUs {
		target = folder(gpu)
	}
	content, err := os.ReadFile(filepath.Join(c.Dir, "calls"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("steer the NVML simulator: %w", err)
	}
	var kept []string
	for line := range strings.Lines(string(content)) {
		fields := strings.Fields(line)
		if len(fields) >= 2 && fields[0] == call && fields[1] == target {
			continue
		}
		kept = append(kept, line)
	}
	if effect != "" {
		kept = append(kept, fmt.Sprintf("%s %s %s\n", call, target, effect))
	}
	return c.write("calls", strings.Join(kept, ""))
}

// write replaces a file in one step: a call must never read half a value.
func (c Control) write(name, value string) error {
	path := filepath.Join(c.Dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("steer the NVML simulator: %w", err)
	}
	if value != "" && !strings.HasSuffix(value, "\n") {
		value += "\n"
	}
	temporary := filepath.Join(c.Dir, "."+strings.ReplaceAll(name, "/", "-"))
	if err := os.WriteFile(temporary, []byte(value), 0o644); err != nil {
		return fmt.Errorf("steer the NVML simulator: %w", err)
	}
	if err := os.Rename(temporary, path); err != nil {
		return fmt.Errorf("steer the NVML simulator: %w", err)
	}
	return nil
}

func folder(gpu int) string { return "gpu" + strconv.Itoa(gpu) }
