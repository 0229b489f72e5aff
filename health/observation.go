// Observations are the engine's only input. Each is a plain value that says
// what was seen, never what it means; meaning is Step's business.

package health

import (
	"slices"
	"time"

	"github.com/hostler-dev/hostler/topology"
)

// Observation is one of XIDEvent, MemoryEvent, ProbeResult, Inventory, DriverReport, Ports and Tick.
type Observation interface{ observation() }

// XIDEvent is an error number from the driver's event stream.
type XIDEvent struct {
	// Device that reported it. A MIG instance's event counts against its GPU.
	Device string
	Code   uint64
}

// MemoryEvent is an uncorrectable (double-bit) ECC error from the event stream.
type MemoryEvent struct{ Device string }

// RecoveryAction is what the driver asks for (NVML field 230).
type RecoveryAction string

const (
	// ActionUnknown: the driver does not say (before R550, or not on this GPU).
	ActionUnknown           RecoveryAction = "Unknown"
	ActionNone              RecoveryAction = "None"
	ActionReset             RecoveryAction = "Reset"
	ActionReboot            RecoveryAction = "Reboot"
	ActionDrainP2P          RecoveryAction = "DrainP2P"
	ActionDrainAndReset     RecoveryAction = "DrainAndReset"
	ActionRecoverIMEXDomain RecoveryAction = "RecoverIMEXDomain"
	ActionBusReset          RecoveryAction = "BusReset"
	ActionSystemReboot      RecoveryAction = "SystemReboot"
)

// ProbeResult is the answer of one GPU to a probe. A zero value with an Action
// is a healthy answer.
type ProbeResult struct {
	Device string
	// Unasked: the GPU could not be asked, for reasons that say nothing of it.
	Unasked bool
	// Lost: the driver says that the GPU is lost.
	Lost bool
	// Hung: no answer before the deadline.
	Hung bool
	// Error is what else the driver said instead of an answer.
	Error string
	// Silent: there was no sign of life. With an Error and without Silent, the GPU
	// lives and a part of the probe failed.
	Silent bool
	Action RecoveryAction
	// RemapPending and RemapFailed are the row remapper's flags.
	RemapPending, RemapFailed bool
	// UncorrectedECC: volatile (since driver load) uncorrectable errors are counted.
	UncorrectedECC bool
}

// alive is whether the GPU itself answered.
func (p ProbeResult) alive() bool { return !p.Lost && !p.Hung && !p.Silent }

// Inventory is what a snapshot says about presence: which GPUs there are and
// whether the driver lives.
type Inventory struct {
	BootID string
	Driver DriverReport
	GPUs   []GPUPresence
	// InUserSpace are the GPUs that pods have taken from the driver, which does not
	// know them then. They are learned anew when they are back.
	InUserSpace []string
}

// DriverReport is the accelerator driver's state. It is part of an inventory,
// and observed alone for as long as no new inventory contradicts it.
type DriverReport struct {
	State topology.DriverState
	// Message explains a state other than Ready.
	Message string
	// Idle: all GPUs are in user space, and a driver without any may say that it fails.
	Idle bool
}

// GPUPresence is one GPU of an Inventory.
type GPUPresence struct {
	Device string
	PCI    string
	Lost   bool
}

// Ports are the NICs that the host can judge. One whose netdev is in a pod is not listed.
type Ports []Port

// Port is the state of one NIC.
type Port struct {
	Device string
	Up     bool
	// Detail names what is down: "link ens1f0", "RDMA port mlx5_0/1".
	Detail string
}

// Tick lets time pass: it lifts what a recovery rule allows to be lifted.
// Machine observations never lift, so their order within an instant is free.
type Tick struct{}

func (XIDEvent) observation()     {}
func (MemoryEvent) observation()  {}
func (ProbeResult) observation()  {}
func (Inventory) observation()    {}
func (DriverReport) observation() {}
func (Ports) observation()        {}
func (Tick) observation()         {}

// InventoryOf reads an Inventory out of a snapshot and the names of the GPUs in user space.
func InventoryOf(s *topology.Snapshot, inUserSpace []string) Inventory {
	inventory := Inventory{BootID: s.BootID, Driver: DriverReport{State: s.Driver.State, Message: s.Driver.Message}, InUserSpace: inUserSpace}
	for _, gpu := range s.GPUs {
		if !slices.Contains(inUserSpace, gpu.Name) {
			inventory.GPUs = append(inventory.GPUs, GPUPresence{Device: gpu.Name, PCI: gpu.Placement.PCI, Lost: gpu.Lost})
		}
	}
	inventory.Driver.Idle = len(inUserSpace) > 0 && len(inventory.GPUs) == 0
	return inventory
}

// PortsOf reads the NIC ports out of a snapshot.
func PortsOf(s *topology.Snapshot) Ports {
	var ports Ports
	for i := range s.NICs {
		if port, judged := portOf(&s.NICs[i]); judged {
			ports = append(ports, port)
		}
	}
	return ports
}

// Rules are the engine's policy.
type Rules struct {
	// RecoveryHoldDown is how long a device must stay clean before a fault is lifted.
	RecoveryHoldDown time.Duration
	// LinkDownDelay is how long a port must stay down before it is a fault. A
	// netdev that just came home from a pod is down for a moment. The engine's
	// default is 30s.
	LinkDownDelay time.Duration
	// IgnoredXIDs are counted but never taint.
	IgnoredXIDs []int32
}
