package publish

import (
	"slices"
	"testing"

	resourceapi "k8s.io/api/resource/v1"

	"github.com/hostler-dev/hostler/topology"
)

func TestKubernetes134TakesFourTaintsAndNoneThatOnlyInforms(t *testing.T) {
	const (
		none       = resourceapi.DeviceTaintEffectNone
		noSchedule = resourceapi.DeviceTaintEffectNoSchedule
		noExecute  = resourceapi.DeviceTaintEffectNoExecute
	)
	fewer := []string{"the API server takes four taints a device and none with the effect None (Kubernetes 1.35 or newer takes more): 1 device is published without the least grave taints"}
	for name, test := range map[string]struct {
		effects []resourceapi.DeviceTaintEffect
		want    []resourceapi.DeviceTaintEffect
		told    []string
	}{
		"no taints":           {},
		"as many as it takes": {effects: slices.Repeat([]resourceapi.DeviceTaintEffect{noSchedule}, 4), want: slices.Repeat([]resourceapi.DeviceTaintEffect{noSchedule}, 4)},
		"one that informs":    {effects: []resourceapi.DeviceTaintEffect{none}, told: fewer},
		"the gravest stay": {
			effects: []resourceapi.DeviceTaintEffect{noSchedule, none, noSchedule, noSchedule, noExecute, noSchedule},
			want:    []resourceapi.DeviceTaintEffect{noExecute, noSchedule, noSchedule, noSchedule}, told: fewer,
		},
	} {
		t.Run(name, func(t *testing.T) {
			in := Input{NodeName: node, Features: everything, Snapshot: &topology.Snapshot{NICs: []topology.NIC{nic("0000:19:00.0")}}}
			in.Features.FewTaints = true
			device := in.Snapshot.NICs[0].Name
			for i, effect := range test.effects {
				in.Taints = append(in.Taints, Taint{Device: device, Key: "hostler.dev/fault-" + string(rune('a'+i)), Effect: effect})
			}
			var got []resourceapi.DeviceTaintEffect
			for _, slice := range Resources(in).Pools[NICPool(node)].Slices {
				for _, d := range slice.Devices {
					for _, taint := range d.Taints {
						got = append(got, taint.Effect)
					}
				}
			}
			if !slices.Equal(got, test.want) {
				t.Errorf("taints have the effects %v, want %v", got, test.want)
			}
			if told := Shortfalls(in); !slices.Equal(told, test.told) {
				t.Errorf("an administrator is told %q, want %q", told, test.told)
			}
		})
	}
}
