// What others read of the journal: Ledger says who holds which device, for
// metrics and health; Store hands netattach the intents of prepared claims.

package claim

import (
	"slices"

	"k8s.io/apimachinery/pkg/types"

	"github.com/hostler-dev/hostler/driver/publish"
	"github.com/hostler-dev/hostler/netattach"
	"github.com/hostler-dev/hostler/topology"
)

// Holder is one device in a claim's hands.
type Holder struct {
	Device, Pool, Request string
	// GPU and NIC are the hardware that the device is or is part of, by name: a
	// partition's GPU, both of a pair. "" for what it has not.
	GPU, NIC                  string
	ClaimUID                  types.UID
	ClaimNamespace, ClaimName string
	Pods                      []netattach.PodReference
	AdminAccess               bool
	// ShareID of the allocation, nil if the device is not shared.
	ShareID *types.UID
}

// Ledger answers who holds what.
type Ledger struct{ journal *Journal }

// NewLedger reads from the journal.
func NewLedger(journal *Journal) *Ledger { return &Ledger{journal: journal} }

// Holders lists all devices of prepared claims, by claim UID and then in claim order.
func (l *Ledger) Holders() []Holder {
	var holders []Holder
	for _, entry := range l.journal.Entries() {
		if entry.Released {
			continue
		}
		for _, device := range entry.Devices {
			holder := Holder{
				Device: device.Name, Pool: device.Pool, Request: device.Request,
				ClaimUID: entry.ClaimUID, ClaimNamespace: entry.ClaimNamespace, ClaimName: entry.ClaimName,
				Pods: slices.Clone(entry.Pods), AdminAccess: device.AdminAccess, ShareID: device.ShareID,
			}
			if device.GPU != nil {
				holder.GPU = device.GPU.Name
			}
			if device.NIC != nil {
				holder.NIC = device.NIC.Name
			}
			holders = append(holders, holder)
		}
	}
	return holders
}

// Changed returns a channel that is closed at the next change of Holders. Call
// it again after each change.
func (l *Ledger) Changed() <-chan struct{} { return l.journal.Changed() }

// Held returns the NICs that pods hold, alone or in pairs, by their own names,
// as they were when they were prepared.
func (l *Ledger) Held() map[string]topology.NIC {
	held := map[string]topology.NIC{}
	for _, entry := range l.journal.Entries() {
		for _, device := range entry.Devices {
			if device.NIC != nil && device.exclusive() {
				held[device.NIC.Name] = *device.NIC
			}
		}
	}
	return held
}

// HeldGPUs returns the GPUs that pods have in user space, alone or in pairs, by
// their own names, as they were when they were prepared: their driver does not list them.
func (l *Ledger) HeldGPUs() map[string]topology.GPU {
	held := map[string]topology.GPU{}
	for _, entry := range l.journal.Entries() {
		for i := range entry.Devices {
			if device := &entry.Devices[i]; device.gpuInUserSpace() {
				held[device.GPU.Name] = *device.GPU
			}
		}
	}
	return held
}

// InUse are the devices of hardware that claims have for themselves, by name. Whoever
// has admin access looks at a device without taking it.
func (l *Ledger) InUse() map[string]publish.Use {
	uses := map[string]publish.Use{}
	for _, holder := range l.Holders() {
		if !holder.AdminAccess && (holder.GPU != "" || holder.NIC != "") {
			uses[holder.Device] = publish.Use{Pool: holder.Pool, GPU: holder.GPU, NIC: holder.NIC, Shared: holder.ShareID != nil}
		}
	}
	return uses
}

// Made are the names of the partitions that exist, or are about to, because a
// claim was prepared since the machine's last boot, those of released claims among
// them that are still to be removed.
func (l *Ledger) Made(bootID string) map[string]bool {
	names := map[string]bool{}
	for _, entry := range l.journal.Entries() {
		for _, device := range entry.Devices {
			if entry.BootID == bootID && device.Partition != nil && !device.Partition.Static {
				names[device.Name] = true
			}
		}
	}
	return names
}

// Store is the source of intents that netattach reads.
type Store struct{ journal *Journal }

// NewStore reads from the journal.
func NewStore(journal *Journal) *Store { return &Store{journal: journal} }

// Intents of all prepared claims, by claim UID.
func (s *Store) Intents() []netattach.Intent {
	var intents []netattach.Intent
	for _, entry := range s.journal.Entries() {
		if !entry.Released {
			intents = append(intents, entry.Intent())
		}
	}
	return intents
}

// IntentsForPod returns the intents of the claims that the pod uses. A pod is
// known by UID; namespace and name find it where the UID is not known.
func (s *Store) IntentsForPod(uid types.UID, namespace, name string) []netattach.Intent {
	var intents []netattach.Intent
	for _, intent := range s.Intents() {
		if slices.ContainsFunc(intent.Pods, func(pod netattach.PodReference) bool {
			if uid != "" && pod.UID != "" {
				return pod.UID == uid
			}
			return pod.Namespace == namespace && pod.Name == name
		}) {
			intents = append(intents, intent)
		}
	}
	return intents
}

// Intent returns the intent of a claim.
func (s *Store) Intent(claim types.UID) (netattach.Intent, bool) {
	entry := s.journal.Entry(claim)
	if entry == nil || entry.Released {
		return netattach.Intent{}, false
	}
	return entry.Intent(), true
}
