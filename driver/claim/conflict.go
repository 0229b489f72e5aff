// The last line of defence: what the scheduler should have prevented, and what
// it cannot know. Conflicts are looked for at the one moment that matters,
// when an entry is about to join the others in the journal.

package claim

import (
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/types"

	"github.com/hostler-dev/hostler/api/v1alpha1"
)

// HeldError says that a device is in another claim's hands, or hardware that it
// is made of: a GPU and its partitions, a PF and its VFs, a pair and its parts.
type HeldError struct {
	// Device that was asked for, and the device that the other claim holds.
	Device, HeldDevice string
	Holder             types.UID
	Namespace, Claim   string
	// Released: the claim is over, and what was made for it is still to be removed.
	Released bool
	// Ending is why the other claim, which is over, could not be undone yet.
	Ending string
	// Mixed: both claims have shares of the NIC, by children that exclude each other.
	Mixed bool
}

func (e *HeldError) Error() string {
	if e.Released {
		return fmt.Sprintf("device %s needs memory slices of partition %s, which was made for claim %s/%s (%s) and could not be removed after it while the driver did not work; it is free once the agent has removed it, see its log", e.Device, e.HeldDevice, e.Namespace, e.Claim, e.Holder)
	}
	if e.Ending != "" {
		return fmt.Sprintf("device %s is not free: device %s of claim %s/%s (%s), which is over, could not be taken back yet: %s; the agent tries again every few minutes and when asked, see its log", e.Device, e.HeldDevice, e.Namespace, e.Claim, e.Holder, e.Ending)
	}
	if e.Mixed {
		return fmt.Sprintf("device %s is shared with claim %s/%s (%s) on this node: %v", e.Device, e.Namespace, e.Claim, e.Holder, errMixed)
	}
	if e.HeldDevice != e.Device {
		return fmt.Sprintf("device %s shares hardware with device %s, which is held by claim %s/%s (%s) on this node; it is free once that claim's pod is gone", e.Device, e.HeldDevice, e.Namespace, e.Claim, e.Holder)
	}
	return fmt.Sprintf("device %s is already held by claim %s/%s (%s) on this node; it is free once that claim's pod is gone", e.Device, e.Namespace, e.Claim, e.Holder)
}

// conflict returns why candidate cannot join the entries that are there, nil if
// it can. An entry that only replaces its former self, with other pods, holds
// its devices already: what an earlier version let it have stays with it.
func conflict(candidate *Entry, entries map[types.UID]*Entry) error {
	if err := checkPods(candidate); err != nil {
		return err
	}
	before := entries[candidate.ClaimUID]
	holdsAlready := before != nil && before.BootID == candidate.BootID && slices.Equal(before.results(), candidate.results())
	for _, other := range entries {
		if other.ClaimUID == candidate.ClaimUID {
			continue
		}
		if held := collision(candidate, other); held != nil && !holdsAlready {
			return held
		}
		if !candidate.sharesPodWith(other) {
			continue
		}
		if err := checkTogether(other, candidate); err != nil {
			return fmt.Errorf("claims %s/%s and %s/%s are used by one pod: %w",
				candidate.ClaimNamespace, candidate.ClaimName, other.ClaimNamespace, other.ClaimName, err)
		}
		if bypasses(candidate, other) || bypasses(other, candidate) {
			return fmt.Errorf("claims %s/%s and %s/%s are used by one pod: %w",
				candidate.ClaimNamespace, candidate.ClaimName, other.ClaimNamespace, other.ClaimName, errBypass)
		}
	}
	return nil
}

// collision returns the first devices of two claims that exclude each other.
func collision(candidate, other *Entry) *HeldError {
	for i := range candidate.Devices {
		for j := range other.Devices {
			mine, theirs := &candidate.Devices[i], &other.Devices[j]
			if mine.exclusive() && theirs.exclusive() && mine.overlaps(theirs) {
				return &HeldError{
					Device: mine.Name, HeldDevice: theirs.Name, Holder: other.ClaimUID, Namespace: other.ClaimNamespace, Claim: other.ClaimName,
					Released: other.Released, Ending: other.Ending, Mixed: mine.isBeside(theirs),
				}
			}
		}
	}
	return nil
}

// bypasses reports whether rdma would let a pod around the scope of egress.
func bypasses(rdma, egress *Entry) bool {
	return rdma.usesRDMA() && egress.Egress != nil && egress.Egress.Config.KernelBypass != v1alpha1.KernelBypassAllow
}

var errBypass = bypassError{}

type bypassError struct{}

func (bypassError) Error() string {
	return "RDMA verbs bypass the rules of an egress scope, and so does a NIC in user space; set \"rdma: None\" and no mode vfio in the NICConfig, or \"kernelBypass: Allow\" in the EgressConfig to accept that"
}
