// What becomes of claims is told in their status, see package status: the runner
// says how a prepare ended, netattach what became of the claim in a pod.

package driver

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/hostler-dev/hostler/driver/claim"
	"github.com/hostler-dev/hostler/driver/status"
	"github.com/hostler-dev/hostler/netattach"
	"github.com/hostler-dev/hostler/netattach/attach"
)

// newStatus returns nil if there is nobody to write it.
func (d *Driver) newStatus() *status.Writer {
	if d.cfg.StatusClient == nil {
		return nil
	}
	return status.New(status.Config{
		NodeName: d.cfg.NodeName, Client: d.cfg.StatusClient, Entry: d.cfg.Journal.Entry, Entries: d.cfg.Journal.Entries(), Records: d.cfg.AttachRecords, Tell: d.tellNode,
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

// NetworksChecked is told by netattach what CNI plugins say of what they made for a
// claim in a pod, "" if it is as they made it. The pod's owner is told, too.
func (d *Driver) NetworksChecked(pod netattach.PodReference, claim types.UID, wrong string) {
	if d.status != nil {
		d.status.Attached(attach.Change{Claim: claim, Pod: pod.UID, Attached: true})
	}
	if wrong == "" || d.cfg.Events == nil {
		return
	}
	object := &corev1.ObjectReference{APIVersion: "v1", Kind: "Pod", Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID}
	d.cfg.Events.Event(object, corev1.EventTypeWarning, "NetworkCheckFailed", fmt.Sprintf("A network of the pod has changed while the agent was away: %s; the pod keeps what it has, delete it to have its networks made anew", wrong))
}
