// A Probe asks a GPU whether it is alive and what the driver says it needs.
// Field 230 (NVML_FI_DEV_GET_GPU_RECOVERY_ACTION, driver 555 and newer) is the
// driver's own verdict and outranks anything that is derived from XID numbers.

package nvml

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
)

// RecoveryAction is what the driver asks for, nvmlDeviceGpuRecoveryAction_t.
type RecoveryAction string

const (
	// RecoveryUnknown: the driver does not offer the field, or answered with a number that is not known.
	RecoveryUnknown           RecoveryAction = "Unknown"
	RecoveryNone              RecoveryAction = "None"
	RecoveryReset             RecoveryAction = "Reset"
	RecoveryReboot            RecoveryAction = "Reboot"
	RecoveryDrainP2P          RecoveryAction = "DrainP2P"
	RecoveryDrainAndReset     RecoveryAction = "DrainAndReset"
	RecoveryRecoverIMEXDomain RecoveryAction = "RecoverIMEXDomain"
	RecoveryBusReset          RecoveryAction = "BusReset"
	RecoverySystemReboot      RecoveryAction = "SystemReboot"
)

// RemappedRows counts memory rows that were replaced (nvmlDeviceGetRemappedRows).
type RemappedRows struct {
	Correctable, Uncorrectable int
	// Pending: a reset is needed for a remapping to take effect.
	Pending bool
	// Failure: a remapping failed, the GPU should be replaced.
	Failure bool
}

// Probe is a GPU's state of health as far as the driver knows it.
type Probe struct {
	Lost, Hung bool
	// Silent: the GPU gave no sign of life, Err says why. With Err alone, some of
	// what follows could not be read.
	Silent         bool
	RecoveryAction RecoveryAction
	// CorrectedECCErrors and UncorrectedECCErrors since the driver was loaded, nil if ECC is off or not offered.
	CorrectedECCErrors, UncorrectedECCErrors *uint64
	// RemappedRows is nil on GPUs without row remapping.
	RemappedRows *RemappedRows
	// Err is what kept the probe from an answer, nil if the GPU answered.
	Err error
}

// Probe examines the GPU at a canonical PCI address. The returned error equals
// Probe.Err; a lost or hung GPU is an answer too, with Lost or Hung set.
func (s *Session) Probe(ctx context.Context, pci string) (Probe, error) {
	probe := Probe{RecoveryAction: RecoveryUnknown}
	d, err := s.device(ctx, pci)
	if err != nil {
		probe.Silent = true
		probe.fail(err)
		return probe, err
	}
	h, m := d.nvml(), &measuring{ctx: ctx, lane: d.lane, has: s.has}
	// First the sign of life, from a call that reaches the hardware.
	measure(m, "nvmlDeviceGetTemperature", func() (uint32, nvml.Return) { return h.GetTemperature(nvml.TEMPERATURE_GPU) }, func(uint32) {})
	probe.Silent = m.err() != nil
	measure(m, "nvmlDeviceGetFieldValues", func() (RecoveryAction, nvml.Return) { return recoveryAction(h) },
		func(v RecoveryAction) { probe.RecoveryAction = v })
	measure(m, "nvmlDeviceGetTotalEccErrors", func() (uint64, nvml.Return) {
		return h.GetTotalEccErrors(nvml.MEMORY_ERROR_TYPE_CORRECTED, nvml.VOLATILE_ECC)
	}, func(v uint64) { probe.CorrectedECCErrors = &v })
	measure(m, "nvmlDeviceGetTotalEccErrors", func() (uint64, nvml.Return) {
		return h.GetTotalEccErrors(nvml.MEMORY_ERROR_TYPE_UNCORRECTED, nvml.VOLATILE_ECC)
	}, func(v uint64) { probe.UncorrectedECCErrors = &v })
	measure(m, "nvmlDeviceGetRemappedRows", func() (*RemappedRows, nvml.Return) {
		correctable, uncorrectable, pending, failure, ret := h.GetRemappedRows()
		return &RemappedRows{correctable, uncorrectable, pending, failure}, ret
	}, func(v *RemappedRows) { probe.RemappedRows = v })
	probe.fail(m.err())
	return probe, probe.Err
}

func (p *Probe) fail(err error) {
	p.Err = err
	p.Lost = errors.Is(err, ErrLost)
	p.Hung = errors.Is(err, ErrHung)
}

// recoveryAction reads field 230. Each field has a return code of its own,
// beside the call's.
func recoveryAction(h nvml.Device) (RecoveryAction, nvml.Return) {
	fields := []nvml.FieldValue{{FieldId: nvml.FI_DEV_GET_GPU_RECOVERY_ACTION}}
	if ret := h.GetFieldValues(fields); ret != nvml.SUCCESS {
		return RecoveryUnknown, ret
	}
	field := fields[0]
	switch ret := nvml.Return(field.NvmlReturn); ret {
	case nvml.SUCCESS:
	case nvml.ERROR_INVALID_ARGUMENT: // drivers before 555 do not know the field
		return RecoveryUnknown, nvml.ERROR_NOT_SUPPORTED
	default:
		return RecoveryUnknown, ret
	}
	switch nvml.DeviceGpuRecoveryAction(fieldNumber(field)) {
	case nvml.GPU_RECOVERY_ACTION_NONE:
		return RecoveryNone, nvml.SUCCESS
	case nvml.GPU_RECOVERY_ACTION_GPU_RESET:
		return RecoveryReset, nvml.SUCCESS
	case nvml.GPU_RECOVERY_ACTION_NODE_REBOOT:
		return RecoveryReboot, nvml.SUCCESS
	case nvml.GPU_RECOVERY_ACTION_DRAIN_P2P:
		return RecoveryDrainP2P, nvml.SUCCESS
	case nvml.GPU_RECOVERY_ACTION_DRAIN_AND_RESET:
		return RecoveryDrainAndReset, nvml.SUCCESS
	case nvml.GPU_RECOVERY_ACTION_RECOVER_IMEX_DOMAIN:
		return RecoveryRecoverIMEXDomain, nvml.SUCCESS
	case nvml.GPU_RECOVERY_ACTION_BUS_RESET:
		return RecoveryBusReset, nvml.SUCCESS
	case nvml.GPU_RECOVERY_ACTION_SYSTEM_REBOOT:
		return RecoverySystemReboot, nvml.SUCCESS
	}
	return RecoveryUnknown, nvml.SUCCESS
}

// fieldNumber reads the union nvmlValue_t by its type; 32-bit types fill only its first half.
func fieldNumber(field nvml.FieldValue) uint64 {
	switch nvml.ValueType(field.ValueType) {
	case nvml.VALUE_TYPE_UNSIGNED_INT, nvml.VALUE_TYPE_SIGNED_INT:
		return uint64(binary.NativeEndian.Uint32(field.Value[:4]))
	case nvml.VALUE_TYPE_UNSIGNED_SHORT:
		return uint64(binary.NativeEndian.Uint16(field.Value[:2]))
	}
	return binary.NativeEndian.Uint64(field.Value[:])
}

// String is for logs.
func (r RemappedRows) String() string {
	return fmt.Sprintf("%d correctable, %d uncorrectable, pending=%t, failure=%t", r.Correctable, r.Uncorrectable, r.Pending, r.Failure)
}
