package driver

import (
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/hostler-dev/hostler/driver/claim"
)

// eventLog keeps events as lines.
type eventLog struct{ lines []string }

func (l *eventLog) Event(object runtime.Object, eventType, reason, message string) {
	o := object.(*corev1.ObjectReference)
	l.lines = append(l.lines, fmt.Sprintf("%s %s %s/%s %s: %s %s: %s", o.APIVersion, o.Kind, o.Namespace, o.Name, o.UID, eventType, reason, message))
}

// Every kind is counted. The claim's owners are told of what they may have noticed,
// and of nothing that was only a file.
func TestMendingIsReported(t *testing.T) {
	told := map[claim.Drift]string{
		claim.DriftClaimGone: "Normal ClaimReleased", claim.DriftReboot: "Normal ClaimRestored", claim.DriftUndoFailed: "Normal ClaimReleased",
		claim.DriftPartition: "Warning ClaimRestored", claim.DriftBinding: "Warning ClaimRestored",
	}
	for _, what := range claim.Drifts() {
		events := &eventLog{}
		d, recorder := newDriver(t, fake.NewClientset(), pathsIn(t), func(c *Config) { c.Events = events })
		d.mended(claim.Mending{What: what, ClaimNamespace: "team", ClaimName: "c", ClaimUID: "uid-c"})
		d.mended(claim.Mending{What: what, ClaimUID: "uid-of-a-file"})
		d.drifted(map[claim.Drift]int{what: 2})
		if n := recorder.seen["mended "+string(what)+" ok=true"]; n != 2 {
			t.Errorf("%s is counted %d times", what, n)
		}
		if recorder.seen["drifted "+string(what)+" ok=true"] != 1 {
			t.Errorf("%s is not shown where it remains", what)
		}
		want := 0
		if told[what] != "" {
			want = 1
		}
		if len(events.lines) != want || want == 1 && (!strings.HasPrefix(events.lines[0], "resource.k8s.io/v1 ResourceClaim team/c uid-c: "+told[what]+": ") || !strings.Contains(events.lines[0], node)) {
			t.Errorf("%s: events %q", what, events.lines)
		}
	}
	// `hostler release` has nobody to tell.
	d, _ := newDriver(t, fake.NewClientset(), pathsIn(t), func(c *Config) { c.Recorder = nil })
	d.mended(claim.Mending{What: claim.DriftClaimGone, ClaimName: "c"})
	d.drifted(map[claim.Drift]int{claim.DriftClaimGone: 1})
}
