// How the Node object is written. The condition goes by server-side apply on
// the status subresource, under a field manager of its own, so that the
// kubelet's conditions are none of our business. The taints of a node are one
// atomic list, so ours is put in or taken out by a patch that names the resource
// version it was computed from: a concurrent writer makes it conflict, not vanish.

package react

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	corev1apply "k8s.io/client-go/applyconfigurations/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/record"
	"k8s.io/client-go/util/retry"

	"github.com/hostler-dev/hostler/health"
)

const (
	// NodeTaintKey is the taint, with effect NoSchedule, of a node whose accelerators are all unusable.
	NodeTaintKey = KeyPrefix + "accelerators-unavailable"
	// NodeCondition is True while no fault asks for a reset or worse.
	NodeCondition = corev1.NodeConditionType("AcceleratorsHealthy")
	fieldManager  = "hostler-health"
)

// NewRecorder writes Events through the client until ctx ends.
func NewRecorder(ctx context.Context, client kubernetes.Interface, nodeName string) record.EventRecorder {
	broadcaster := record.NewBroadcaster(record.WithContext(ctx))
	broadcaster.StartRecordingToSink(&typedcorev1.EventSinkImpl{Interface: client.CoreV1().Events("")})
	context.AfterFunc(ctx, broadcaster.Shutdown)
	return broadcaster.NewRecorder(scheme.Scheme, corev1.EventSource{Component: "hostler", Host: nodeName})
}

func nodeUID(nodeName string) types.UID { return types.UID(nodeName) }

// reconcile makes condition and taint true. Both are tried even if one fails.
func (n *Node) reconcile(ctx context.Context, verdicts []health.Verdict) error {
	return retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		node, err := n.cfg.Client.CoreV1().Nodes().Get(ctx, n.cfg.NodeName, metav1.GetOptions{})
		if err != nil {
			return fmt.Errorf("reading node %s: %w", n.cfg.NodeName, err)
		}
		// The taint first: it is what keeps pods away.
		if err := n.reconcileTaint(ctx, node, verdicts); err != nil {
			return err
		}
		return n.reconcileCondition(ctx, node, verdicts)
	})
}

func (n *Node) reconcileTaint(ctx context.Context, node *corev1.Node, verdicts []health.Verdict) error {
	fault, unusable := nodeFault(verdicts)
	wanted := slices.DeleteFunc(slices.Clone(node.Spec.Taints), func(t corev1.Taint) bool { return t.Key == NodeTaintKey })
	if unusable && n.cfg.Taint {
		wanted = append(wanted, corev1.Taint{Key: NodeTaintKey, Value: string(fault.Family), Effect: corev1.TaintEffectNoSchedule})
	}
	if sameTaints(node.Spec.Taints, wanted) {
		return nil
	}
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"resourceVersion": node.ResourceVersion},
		"spec":     map[string]any{"taints": wanted},
	})
	if err != nil {
		return fmt.Errorf("encoding the taints of node %s: %w", node.Name, err)
	}
	_, err = n.cfg.Client.CoreV1().Nodes().Patch(ctx, node.Name, types.MergePatchType, patch, metav1.PatchOptions{FieldManager: fieldManager})
	if err != nil {
		return fmt.Errorf("setting the taint %s of node %s: %w", NodeTaintKey, node.Name, err)
	}
	return nil
}

// sameTaints compares as sets and by what we set: an admission plugin may add times.
func sameTaints(a, b []corev1.Taint) bool {
	return len(a) == len(b) && !slices.ContainsFunc(b, func(wanted corev1.Taint) bool {
		return !slices.ContainsFunc(a, func(t corev1.Taint) bool {
			return t.Key == wanted.Key && t.Value == wanted.Value && t.Effect == wanted.Effect
		})
	})
}

// nodeFault is the worst standing verdict on the node itself.
func nodeFault(verdicts []health.Verdict) (worst health.Verdict, unusable bool) {
	for _, v := range verdicts {
		if v.Device == "" && v.Severity >= health.NeedsReset && (!unusable || v.Severity > worst.Severity) {
			worst, unusable = v, true
		}
	}
	return worst, unusable
}

// condition is what the node's condition should say.
func condition(verdicts []health.Verdict) (status corev1.ConditionStatus, reason, message string) {
	var faults []string
	for _, v := range verdicts {
		if v.Severity >= health.NeedsReset {
			faults = append(faults, subject(v)+": "+v.Message)
		}
	}
	if len(faults) == 0 {
		return corev1.ConditionTrue, "NoFault", "no accelerator or NIC of this node has a fault that keeps pods away"
	}
	reason = "DeviceFault"
	if _, unusable := nodeFault(verdicts); unusable {
		reason = "AcceleratorsUnavailable"
	}
	const limit = 1024 // enough to read, and far from the API's object limits
	message = strings.Join(faults, "; ")
	if len(message) > limit {
		message = fmt.Sprintf("%s … (%d faults)", strings.ToValidUTF8(message[:limit], ""), len(faults))
	}
	return corev1.ConditionFalse, reason, message
}

func (n *Node) reconcileCondition(ctx context.Context, node *corev1.Node, verdicts []health.Verdict) error {
	status, reason, message := condition(verdicts)
	now := metav1.NewTime(n.cfg.Clock.Now())
	transition := now
	for _, old := range node.Status.Conditions {
		if old.Type == NodeCondition && old.Status == status {
			transition = old.LastTransitionTime
		}
	}
	apply := corev1apply.Node(node.Name).WithStatus(corev1apply.NodeStatus().WithConditions(
		corev1apply.NodeCondition().WithType(NodeCondition).WithStatus(status).WithReason(reason).WithMessage(message).
			WithLastHeartbeatTime(now).WithLastTransitionTime(transition)))
	_, err := n.cfg.Client.CoreV1().Nodes().ApplyStatus(ctx, apply, metav1.ApplyOptions{FieldManager: fieldManager, Force: true})
	if err != nil {
		return fmt.Errorf("setting the condition %s of node %s: %w", NodeCondition, node.Name, err)
	}
	return nil
}
