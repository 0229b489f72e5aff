// What becomes of claims is told in their status, see package status: the runner
// says how a prepare ended, netattach what became of the claim in a pod.

package driver

import (
	"time"

	resourceapi "k8s.io/api/resource/v1"

	"github.com/hostler-dev/hostler/driver/claim"
	"github.com/hostler-dev/hostler/driver/status"
	"github.com/hostler-dev/hostler/netattach/attach"
)

// newStatus returns nil if there is nobody to write it.
func (d *Driver) newStatus() *status.Writer {
	if d.cfg.StatusClient == nil {
		return nil
	}
	return status.New(status.Config{
		NodeName: d.cfg.NodeName, Client: d.cfg.StatusClient, Entry: d.cfg.Journal.Entry, Records: d.cfg.AttachRecords, Tell: d.tellNode,
		Observe: func(duration time.Duration, err error) {
			d.cfg.Recorder.ObserveStep("status", claim.PhaseDo, duration, err)
		},
	})
}

func (d *Driver) prepared(c *resourceapi.ResourceClaim, err error) {
	if d.status != nil {
		d.status.Prepared(c, err)
	}
}

// AttachmentChanged is told by netattach what became of a claim in a pod.
func (d *Driver) AttachmentChanged(change attach.Change) {
	if d.status != nil {
		d.status.Attached(change)
	}
}
