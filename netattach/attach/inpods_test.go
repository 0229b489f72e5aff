package attach

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"k8s.io/apimachinery/pkg/types"

	"github.com/hostler-dev/hostler/netattach"
)

// tell has the attacher tell a driver, who answers with err, and returns what that
// could see of each claim when it was told.
func (n *node) tell(err error) map[types.UID][]netattach.DeviceState {
	seen := map[types.UID][]netattach.DeviceState{}
	n.attacher.cfg.Attached = func(_ context.Context, claim types.UID) error {
		states, fault := n.attacher.InPods(claim)
		seen[claim] = append(seen[claim], states...)
		return errors.Join(err, fault)
	}
	return seen
}

func TestDriverIsToldHowDevicesAreKnownInThePod(t *testing.T) {
	n := newNode(t)
	n.claim("claim-1", nil, n.device(t, "rail0", "net1", "10.1.0.5/24"), n.device(t, "rail1", "net2", "2001:db8::5/64"))
	n.claim("claim-2", nil)
	seen := n.tell(nil)
	n.attach(t)
	mac := func(name string) string { return n.pod.Link(t, name).Attrs().HardwareAddr.String() }
	want := map[types.UID][]netattach.DeviceState{"claim-1": {
		{Device: "nic-rail0", Interface: "net1", MAC: mac("net1"), Addresses: []netip.Prefix{netip.MustParsePrefix("10.1.0.5/24")}},
		{Device: "nic-rail1", Interface: "net2", MAC: mac("net2"), Addresses: []netip.Prefix{netip.MustParsePrefix("2001:db8::5/64")}},
	}}
	prefixes := cmpopts.EquateComparable(netip.Prefix{})
	if diff := cmp.Diff(want, seen, prefixes); diff != "" {
		t.Errorf("the driver was told (-want +got):\n%s", diff)
	}
	n.restart(t)
	if got, err := n.attacher.InPods("claim-1"); err != nil || !cmp.Equal(want["claim-1"], got, prefixes) {
		t.Errorf("after the agent's restart: %+v (%v)", got, err)
	}
	if err := n.attacher.DetachSandbox(context.Background(), "pod-1", "sandbox-1"); err != nil {
		t.Fatal(err)
	}
	if got, err := n.attacher.InPods("claim-1"); err != nil || len(got) > 0 {
		t.Errorf("home again: %+v (%v)", got, err)
	}
}

// The workload is promised the file that the driver writes.
func TestAttachFailsIfTheDriverCannotTellThePod(t *testing.T) {
	n := newNode(t)
	n.claim("claim-1", nil, n.device(t, "rail0", "net1", "10.1.0.5/24"))
	n.tell(errors.New("no space left on device"))
	err := n.attacher.Attach(context.Background(), n.sandbox)
	if err == nil || !strings.Contains(err.Error(), "no space left on device") {
		t.Fatalf("attached with %v", err)
	}
	if !n.host.Has(t, "rail0") || n.recordCount(t) != 0 {
		t.Errorf("the device did not come home; %d records", n.recordCount(t))
	}
	if err := n.attacher.Check(context.Background(), "pod-1", "claim-1", n.pod.FD); err == nil {
		t.Error("containers may start")
	}
}
