// Taints: the verdicts of health, and what the machine itself forbids. Partitions
// are tainted with their GPU, pairs with both their halves; a VF's port is judged on its
// own, not with its PF's. Order and selection depend on the taints alone, not
// on the order in which faults came in.

package publish

import (
	"cmp"
	"slices"
	"strings"

	resourceapi "k8s.io/api/resource/v1"

	"github.com/hostler-dev/hostler/topology"
)

type taints []resourceapi.DeviceTaint

// taintsByDevice sorts the verdicts by device.
func taintsByDevice(verdicts []Taint) map[string]taints {
	sorted := slices.Clone(verdicts)
	slices.SortFunc(sorted, func(a, b Taint) int {
		return cmp.Or(cmp.Compare(a.Device, b.Device), cmp.Compare(a.Value, b.Value), a.TimeAdded.Compare(b.TimeAdded.Time))
	})
	out := map[string]taints{}
	for _, t := range sorted {
		taint := resourceapi.DeviceTaint{Key: t.Key, Value: labelValue(t.Value), Effect: t.Effect}
		if !t.TimeAdded.IsZero() {
			taint.TimeAdded = t.TimeAdded.DeepCopy()
		}
		out[t.Device] = append(out[t.Device], taint)
	}
	return out
}

// together joins the taints of a device's parts: each key and effect once, and of
// more than the API allows those that matter most.
func together(lists ...taints) taints {
	var all taints
	for _, list := range lists {
		for _, taint := range list {
			if !slices.ContainsFunc(all, func(t resourceapi.DeviceTaint) bool { return t.Key == taint.Key && t.Effect == taint.Effect }) {
				all = append(all, taint)
			}
		}
	}
	slices.SortStableFunc(all, func(a, b resourceapi.DeviceTaint) int {
		return cmp.Or(cmp.Compare(gravity(&a), gravity(&b)), cmp.Compare(a.Key, b.Key))
	})
	return all[:min(len(all), resourceapi.DeviceTaintsMaxLength)]
}

// gravity puts first what must not fall off the end: what the machine itself
// forbids, then the effects that matter most.
func gravity(taint *resourceapi.DeviceTaint) int {
	switch {
	case taint.Key == UplinkTaint, taint.Key == AwayTaint, taint.Key == MIGModeTaint:
		return 0
	case taint.Effect == resourceapi.DeviceTaintEffectNoExecute:
		return 1
	case taint.Effect == resourceapi.DeviceTaintEffectNoSchedule:
		return 2
	}
	return 3
}

// few are those of them, in the order of together, that Kubernetes 1.34 takes.
func (t taints) few() taints {
	const limit = 4 // DeviceTaintsMaxLength of k8s.io/api v0.34
	without := slices.DeleteFunc(slices.Clone(t), func(t resourceapi.DeviceTaint) bool { return t.Effect == resourceapi.DeviceTaintEffectNone })
	return without[:min(len(without), limit)]
}

// forbidding is the gravest taint that keeps new claims off the device, nil if none does.
func (t taints) forbidding() *resourceapi.DeviceTaint {
	for i := range t {
		if t[i].Effect == resourceapi.DeviceTaintEffectNoSchedule || t[i].Effect == resourceapi.DeviceTaintEffectNoExecute {
			return &t[i]
		}
	}
	return nil
}

// gpuTaints are those of the whole GPU.
func (o *offering) gpuTaints(gpu *topology.GPU) taints {
	if !partitioned(gpu) {
		return together(o.taints[gpu.Name])
	}
	mode := resourceapi.DeviceTaint{Key: MIGModeTaint, Effect: resourceapi.DeviceTaintEffectNoSchedule}
	return together(taints{mode}, o.taints[gpu.Name])
}

func (o *offering) nicTaints(nic *topology.NIC) taints {
	var own taints
	if nic.Uplink != "" {
		own = append(own, resourceapi.DeviceTaint{Key: UplinkTaint, Value: labelValue(nic.Uplink), Effect: resourceapi.DeviceTaintEffectNoSchedule})
	}
	if nic.NetdevAway() { // of a NIC that a pod of ours holds, the state before is published
		own = append(own, resourceapi.DeviceTaint{Key: AwayTaint, Effect: resourceapi.DeviceTaintEffectNoSchedule})
	}
	return together(own, o.taints[nic.Name])
}

// labelValue makes a sentence fit where the API wants a label value: letters,
// digits, '-', '_' and '.', at most 63, with a letter or digit at both ends.
func labelValue(s string) string {
	mapped := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '.', r == '_', r == '-':
			return r
		}
		return '-'
	}, s)
	if len(mapped) > 63 {
		mapped = mapped[:63]
	}
	return strings.Trim(mapped, "-_.")
}
