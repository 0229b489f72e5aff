// Who has a device that is not free, and who may know that. Why a claim cannot be
// prepared stands in its status and in events of its pods, where its namespace reads
// it; of other namespaces it is told the device and what helps, and no names. Those
// are in the agent's log, with whatever else an error knows, see Details.

package claim

import (
	"context"
	"fmt"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"
)

// HeldError says that a device is in another claim's hands, or hardware that it
// is made of: a GPU and its partitions, a PF and its VFs, a pair and its parts.
type HeldError struct {
	// Device that was asked for, and the device that the other claim holds.
	Device, HeldDevice string
	Holder             types.UID
	Namespace, Claim   string
	// Foreign: the other claim is of another namespace than the one that is refused.
	Foreign bool
	// Released: the claim is over, and what was made for it is still to be removed.
	Released bool
	// Ending is why the other claim, which is over, could not be undone yet.
	Ending string
	// Later: a later version of the agent prepared the other claim, and it stays prepared
	// when its pod is gone, until that version or a reboot undoes it.
	Later bool
	// Mixed: both claims have shares of the NIC, by children that exclude each other.
	Mixed bool
}

// Error tells the refused claim's namespace what it may know.
func (e *HeldError) Error() string {
	switch holder := e.holder(); {
	case e.Later:
		return fmt.Sprintf("device %s is not free: a later version of the agent prepared %s with device %s on this node, and this version cannot take that back when the claim's pod is gone; it is free once the later version has run on the node again, or its `hostler release`, or after a reboot of the node", e.Device, holder, e.HeldDevice)
	case e.Released:
		return fmt.Sprintf("device %s needs memory slices of partition %s, which was made for %s and could not be removed after it while the driver did not work; it is free once the agent has removed it, see its log", e.Device, e.HeldDevice, holder)
	case e.Ending != "" && e.Foreign:
		return fmt.Sprintf("device %s is not free: device %s of %s, which is over, could not be taken back yet; the agent tries again every few minutes and when asked, and its log says why", e.Device, e.HeldDevice, holder)
	case e.Ending != "":
		return fmt.Sprintf("device %s is not free: device %s of %s, which is over, could not be taken back yet: %s; the agent tries again every few minutes and when asked, see its log", e.Device, e.HeldDevice, holder, e.Ending)
	case e.Mixed:
		return fmt.Sprintf("device %s is shared with %s on this node: %v", e.Device, holder, errMixed)
	case e.HeldDevice != e.Device:
		return fmt.Sprintf("device %s shares hardware with device %s, which is held by %s on this node; it is free once that claim's pod is gone", e.Device, e.HeldDevice, holder)
	default:
		return fmt.Sprintf("device %s is already held by %s on this node; it is free once that claim's pod is gone", e.Device, holder)
	}
}

func (e *HeldError) holder() string {
	if e.Foreign {
		return "a claim of another namespace (the agent's log names it)"
	}
	return e.name()
}

func (e *HeldError) name() string {
	return fmt.Sprintf("claim %s/%s (%s)", e.Namespace, e.Claim, e.Holder)
}

// Details is what the error's text leaves out.
func (e *HeldError) Details() string {
	text := fmt.Sprintf("device %s is held by %s", e.HeldDevice, e.name())
	if e.Ending != "" {
		text += ", which is over and could not be undone: " + e.Ending
	}
	return text
}

// LoggerFor is the context's logger, which also says what the error's text leaves out.
func LoggerFor(ctx context.Context, err error) klog.Logger {
	logger := klog.FromContext(ctx)
	if details := Details(err); len(details) > 0 {
		logger = logger.WithValues("details", details)
	}
	return logger
}

// Details of all errors that err is made of are for the agent's log alone.
func Details(err error) []string {
	var details []string
	if detailed, is := err.(interface{ Details() string }); is {
		details = append(details, detailed.Details())
	}
	switch wrapping := err.(type) { //nolint:errorlint // all of the tree is walked here
	case interface{ Unwrap() error }:
		details = append(details, Details(wrapping.Unwrap())...)
	case interface{ Unwrap() []error }:
		for _, inner := range wrapping.Unwrap() {
			details = append(details, Details(inner)...)
		}
	}
	return details
}
