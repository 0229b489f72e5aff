package attach

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/hostler-dev/hostler/netattach"
)

// hear collects what is told of attachments.
func (n *node) hear() *[]string {
	var heard []string
	n.attacher.cfg.Changed = func(c Change) {
		word := "taken back"
		switch {
		case c.Attached:
			word = "attached"
		case c.Err != nil:
			word = "failed"
		}
		heard = append(heard, fmt.Sprintf("%s in %s %s", c.Claim, c.Pod, word))
	}
	return &heard
}

func TestEachEndOfAnAttachmentIsTold(t *testing.T) {
	n := newNode(t)
	n.claim("claim-1", nil, n.device(t, "rail0", "net1", "10.1.0.5/24"), n.device(t, "rail1", "net2", "10.2.0.5/24"))
	n.claim("claim-2", nil)
	n.tell(errors.New("no space left on device"))
	heard := n.hear()
	expect := func(when string, want ...string) {
		t.Helper()
		got := slices.Clone(*heard)
		slices.Sort(got)
		if slices.Sort(want); strings.Join(slices.Compact(got), "\n") != strings.Join(want, "\n") {
			t.Errorf("%s it is told\n%s\nwant\n%s", when, strings.Join(*heard, "\n"), strings.Join(want, "\n"))
		}
		*heard = nil
	}
	if err := n.attacher.Attach(context.Background(), n.sandbox); err == nil {
		t.Fatal("attached what the driver could not tell of")
	}
	if !slices.Contains(*heard, "claim-1 in pod-1 failed") || !slices.Contains(*heard, "claim-2 in pod-1 failed") || slices.Contains(*heard, "claim-1 in pod-1 attached") {
		t.Errorf("after a failure it is told\n%s", strings.Join(*heard, "\n"))
	}
	if last := (*heard)[len(*heard)-1]; !strings.HasSuffix(last, "failed") {
		t.Errorf("the last word of a failed attachment is %q, which hides the failure", last)
	}
	*heard = nil

	n.tell(nil)
	n.attach(t)
	expect("once it succeeds", "claim-1 in pod-1 attached", "claim-2 in pod-1 attached")
	records, err := n.attacher.RecordsOf("claim-1")
	if err != nil || len(records) != 1 || len(records[0].Devices) != 2 || records[0].State != StateAttached {
		t.Errorf("on record are %+v (%v)", records, err)
	}
	if err := n.attacher.DetachSandbox(context.Background(), "pod-1", "sandbox-1"); err != nil {
		t.Fatal(err)
	}
	expect("at its end", "claim-1 in pod-1 taken back", "claim-2 in pod-1 taken back")
	if records, err := n.attacher.RecordsOf("claim-1"); err != nil || len(records) > 0 {
		t.Errorf("on record are still %+v (%v)", records, err)
	}
	n.sandbox.NetNS = ""
	if err := n.attacher.Attach(context.Background(), n.sandbox); err == nil {
		t.Fatal("a pod on the host's network got a netdev")
	}
	expect("on the host's network", "claim-1 in pod-1 failed", "claim-2 in pod-1 failed")
	n.sandbox.NetNS = "/var/run/netns/nowhere"
	if err := n.attacher.Attach(context.Background(), n.sandbox); err == nil {
		t.Fatal("attached to a namespace that is not there")
	}
	expect("without a namespace", "claim-1 in pod-1 failed", "claim-2 in pod-1 failed")
}

// Device names are unique in their pool only, and a request names what it asked for.
func TestRecordsSayOfWhichRequestADeviceIs(t *testing.T) {
	n := newNode(t)
	device := n.device(t, "rail0", "net1", "10.1.0.5/24")
	device.Pool, device.Request = "node-a/nic", "nic"
	n.claim("claim-1", nil, device)
	n.attach(t)
	records, err := n.attacher.RecordsOf("claim-1")
	if err != nil || len(records) != 1 {
		t.Fatalf("on record are %+v (%v)", records, err)
	}
	want := netattach.DeviceState{Pool: "node-a/nic", Request: "nic", Device: device.Device, Interface: "net1"}
	if got := records[0].Devices[0]; got.Pool != want.Pool || got.Request != want.Request || got.Device != want.Device || got.Interface != want.Interface {
		t.Errorf("the record says %+v", got)
	}
}
