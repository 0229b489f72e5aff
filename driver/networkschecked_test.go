package driver

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/hostler-dev/hostler/netattach"
)

// podEvents are those about pods.
type podEvents []string

func (e *podEvents) Event(object runtime.Object, _, reason, message string) {
	if about, ok := object.(*corev1.ObjectReference); ok && about.Kind == "Pod" {
		*e = append(*e, about.Namespace+"/"+about.Name+" "+string(about.UID)+" "+reason+": "+message)
	}
}

func TestPodsOwnerIsToldWhatPluginsFind(t *testing.T) {
	events := &podEvents{}
	d, _ := newDriver(t, fake.NewClientset(), pathsIn(t), func(c *Config) { c.Events = events })
	pod := netattach.PodReference{UID: "pod-1", Namespace: "team", Name: "trainer"}
	d.NetworksChecked(pod, "claim-1", "")
	d.NetworksChecked(pod, "claim-1", "no lease")
	if len(*events) != 1 || !strings.HasPrefix((*events)[0], "team/trainer pod-1 NetworkCheckFailed: ") || !strings.Contains((*events)[0], "no lease") {
		t.Errorf("events: %v, want one about the pod, of what was found", *events)
	}
}
