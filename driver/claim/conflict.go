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
					Foreign:  other.ClaimNamespace != candidate.ClaimNamespace,
					Released: other.Released, Ending: other.Ending, Later: other.Later, Mixed: mine.isBeside(theirs),
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
