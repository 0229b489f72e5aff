package attach

// What becomes of claims in pods, for whoever tells it on: see Config.Changed.

import (
	"k8s.io/apimachinery/pkg/types"

	"github.com/hostler-dev/hostler/netattach"
)

// Change is one end of an attachment.
type Change struct {
	Claim, Pod types.UID
	// Attached: the pod has all that the claim wants. Else either Err says why it
	// has not, or it was taken back.
	Attached bool
	Err      error
}

// changed tells how an attachment of the claims to the pod ended.
func (a *Attacher) changed(pod types.UID, intents []netattach.Intent, err error) {
	if a.cfg.Changed == nil {
		return
	}
	for _, intent := range intents {
		a.cfg.Changed(Change{Claim: intent.ClaimUID, Pod: pod, Attached: err == nil, Err: err})
	}
}

// takenBack tells that the record's attachment is over.
func (a *Attacher) takenBack(record Record) {
	if a.cfg.Changed != nil {
		a.cfg.Changed(Change{Claim: record.Intent.ClaimUID, Pod: record.Pod.UID})
	}
}

// RecordsOf returns the claim's records of this boot, those left out of whose
// attachment nothing is left but a device that has not come home.
func (a *Attacher) RecordsOf(claim types.UID) ([]Record, error) {
	all, err := a.records.list()
	if err != nil {
		return nil, err
	}
	var records []Record
	for _, record := range all {
		if record.Intent.ClaimUID == claim && record.BootID == a.records.bootID && record.State != StateDetached {
			records = append(records, record)
		}
	}
	return records, nil
}
