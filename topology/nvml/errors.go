// Errors that callers branch on. NVML's own return codes stay inside this
// package: the rest of Hostler asks "is it lost, is it hung, does it exist".

package nvml

import (
	"errors"
	"fmt"

	"github.com/NVIDIA/go-nvml/pkg/nvml"

	"github.com/hostler-dev/hostler/topology"
)

var (
	// ErrLibraryMissing: no NVML library under the driver root.
	ErrLibraryMissing = fmt.Errorf("no NVML library was found: %w", topology.ErrDriverMissing)
	// ErrLibraryTooOld: the library lacks a symbol that Hostler cannot do without.
	ErrLibraryTooOld = errors.New("the NVML library is too old")
	// ErrLibraryReplaced: the driver root now holds another library than the one
	// that this process has mapped. A process can bind NVML's symbols only once.
	ErrLibraryReplaced = errors.New("the NVML library was replaced while the agent runs")
	// ErrLost: the driver knows the GPU but it no longer answers on the bus.
	ErrLost = errors.New("GPU is lost")
	// ErrHung: a call to the GPU did not return within the deadline.
	ErrHung = errors.New("GPU does not answer")
	// ErrNotSupported: the library or the GPU does not offer what was asked.
	ErrNotSupported = errors.New("not supported")
	// ErrUnknownGPU: NVML lists no GPU at that PCI address.
	ErrUnknownGPU = errors.New("NVML lists no such GPU")
	// ErrPartitionInUse: a MIG instance cannot be destroyed because something runs on it.
	ErrPartitionInUse = errors.New("the MIG instance is in use")
	// ErrNoCapacity: a MIG instance cannot be made because another one holds what it needs.
	ErrNoCapacity = errors.New("the GPU has no room for the MIG instance")
	// ErrNotInMIGMode: the GPU cannot be partitioned as it is set now.
	ErrNotInMIGMode = errors.New("the GPU is not in MIG mode")
	// ErrDriverGone: the session is no longer valid, the kernel module was unloaded or replaced.
	ErrDriverGone = errors.New("the NVIDIA driver went away")
)

// callError turns a return code into an error that names the call and matches
// the sentinel above, nil on success.
func callError(call string, ret nvml.Return) error {
	switch ret {
	case nvml.SUCCESS:
		return nil
	case nvml.ERROR_GPU_IS_LOST:
		return fmt.Errorf("%s: %w (NVML: %s)", call, ErrLost, nameOf(ret))
	case nvml.ERROR_NOT_SUPPORTED, nvml.ERROR_FUNCTION_NOT_FOUND, nvml.ERROR_ARGUMENT_VERSION_MISMATCH:
		return fmt.Errorf("%s: %w (NVML: %s)", call, ErrNotSupported, nameOf(ret))
	case nvml.ERROR_UNINITIALIZED, nvml.ERROR_DRIVER_NOT_LOADED, nvml.ERROR_LIB_RM_VERSION_MISMATCH:
		return fmt.Errorf("%s: %w (NVML: %s)", call, ErrDriverGone, nameOf(ret))
	default:
		return fmt.Errorf("%s: NVML answers %w", call, code(ret))
	}
}

// code is a return code that has no sentinel above.
type code nvml.Return

func (c code) Error() string { return nameOf(nvml.Return(c)) }
