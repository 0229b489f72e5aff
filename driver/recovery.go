// A journal that was not as the agent left it: what the administrator is told, and
// how the API server helps to complete it.

package driver

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/hostler-dev/hostler/driver/claim"
	"github.com/hostler-dev/hostler/driver/publish"
)

// tellRecoveries tells what happened when the journal was opened.
func (d *Driver) tellRecoveries() {
	for _, recovery := range d.cfg.Journal.Recoveries() {
		d.tellNode(recovery.Reason, recovery.Message)
	}
}

// tellNode makes an event about the node.
func (d *Driver) tellNode(reason, message string) {
	if d.cfg.Events == nil {
		return
	}
	// Kubelets and others name nodes by name in place of the UID; `kubectl describe node` looks for that.
	node := &corev1.ObjectReference{APIVersion: "v1", Kind: "Node", Name: d.cfg.NodeName, UID: types.UID(d.cfg.NodeName)}
	d.cfg.Events.Event(node, corev1.EventTypeWarning, reason, message)
}

// recover prepares what a lost journal may have had.
func (d *Driver) recover(ctx context.Context) error {
	node := d.cfg.NodeName
	here := map[string]bool{publish.GPUPool(node): true, publish.NICPool(node): true, publish.DevicePool(node): true, publish.EgressPool(node): true}
	list := claim.ListClaims(d.cfg.KubeClient.ResourceV1().ResourceClaims("").List)
	return d.runner.Recover(ctx, list, func(pool string) bool { return here[pool] })
}
