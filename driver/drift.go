// What reconciliation puts right it reports: as a count, and to whoever looks at
// the claim. A claim that something befell does not look any different afterwards.

package driver

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"

	"github.com/hostler-dev/hostler/driver/claim"
)

// mendedWords are for those who own the claim. What only the node's administrator
// has to know is in the agent's log and in its metrics.
func mendedWords(what claim.Drift) (eventType, reason, message string) {
	switch what {
	case claim.DriftClaimGone:
		return corev1.EventTypeNormal, "ClaimReleased", "Its devices are free again on node %s: it was deleted, allocated anew or left by its pods, and the kubelet did not say so"
	case claim.DriftReboot:
		return corev1.EventTypeNormal, "ClaimRestored", "Prepared again after a reboot of node %s"
	case claim.DriftUndoFailed:
		return corev1.EventTypeNormal, "ClaimReleased", "What could not be taken back at first is free again on node %s"
	case claim.DriftPartition:
		return corev1.EventTypeWarning, "ClaimRestored", "Somebody on node %s removed a GPU partition of it, which was made again as a new MIG device; restart its pods to have them see that one"
	case claim.DriftBinding:
		return corev1.EventTypeWarning, "ClaimRestored", "Somebody on node %s took a PCI function of it away or changed a VF's settings, which was set right; what its pods did with the device meanwhile failed"
	}
	return "", "", ""
}

// mended counts what was put right, and tells the claim's owners of what they might have noticed.
func (d *Driver) mended(m claim.Mending) {
	if d.cfg.Recorder != nil { // Release does without
		d.cfg.Recorder.CountMended(string(m.What))
	}
	eventType, reason, message := mendedWords(m.What)
	if d.cfg.Events == nil || reason == "" || m.ClaimName == "" {
		return
	}
	object := &corev1.ObjectReference{
		APIVersion: resourceapi.SchemeGroupVersion.String(), Kind: "ResourceClaim", Namespace: m.ClaimNamespace, Name: m.ClaimName, UID: m.ClaimUID,
	}
	d.cfg.Events.Event(object, eventType, reason, fmt.Sprintf(message, d.cfg.NodeName))
}

// drifted shows what could not be put right.
func (d *Driver) drifted(found map[claim.Drift]int) {
	if d.cfg.Recorder == nil {
		return
	}
	for what, n := range found {
		d.cfg.Recorder.SetDrift(string(what), n)
	}
}
