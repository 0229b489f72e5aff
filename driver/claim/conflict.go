// The last line of defence: what the scheduler should have prevented, and what
// it cannot know. Conflicts are looked for at the one moment that matters,
// when an entry is about to join the others in the journal.

package claim

import (
	"fmt"

	"k8s.io/apimachinery/pkg/types"

	"github.com/hostler-dev/hostler/api/v1alpha1"
)

// HeldError says that a device is in another claim's hands.
type HeldError struct {
	Device           string
	Holder           types.UID
	Namespace, Claim string
}

func (e *HeldError) Error() string {
	return fmt.Sprintf("device %s is already held by claim %s/%s (%s) on this node; it is free once that claim's pod is gone", e.Device, e.Namespace, e.Claim, e.Holder)
}

// conflict returns why candidate cannot join the entries that are there, nil if it can.
func conflict(candidate *Entry, entries map[types.UID]*Entry) error {
	for _, other := range entries {
		if other.ClaimUID == candidate.ClaimUID {
			continue
		}
		for i := range candidate.Devices {
			for j := range other.Devices {
				mine, theirs := &candidate.Devices[i], &other.Devices[j]
				if mine.Pool == theirs.Pool && mine.Name == theirs.Name && mine.exclusive() && theirs.exclusive() {
					return &HeldError{Device: mine.Name, Holder: other.ClaimUID, Namespace: other.ClaimNamespace, Claim: other.ClaimName}
				}
			}
		}
		if candidate.sharesPodWith(other) && (bypasses(candidate, other) || bypasses(other, candidate)) {
			return fmt.Errorf("claims %s/%s and %s/%s are used by one pod: %w",
				candidate.ClaimNamespace, candidate.ClaimName, other.ClaimNamespace, other.ClaimName, errBypass)
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
	return "RDMA verbs bypass the rules of an egress scope; set \"rdma: None\" in the NICConfig, or \"kernelBypass: Allow\" in the EgressConfig to accept that"
}
