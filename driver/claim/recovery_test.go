package claim

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"

	resourceapi "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// lister has these claims in its API server, in pages of one.
func lister(claims ...*resourceapi.ResourceClaim) ClaimLister {
	return ListClaims(func(_ context.Context, options metav1.ListOptions) (*resourceapi.ResourceClaimList, error) {
		at := len(options.Continue)
		if at >= len(claims) {
			return &resourceapi.ResourceClaimList{}, nil
		}
		page := &resourceapi.ResourceClaimList{Items: []resourceapi.ResourceClaim{*claims[at]}}
		if at+1 < len(claims) {
			page.Continue = options.Continue + "+"
		}
		return page, nil
	})
}

func here(pool string) bool { return strings.HasPrefix(pool, node+"/") }

// Journal and CDI specs are lost, both. What pods of this node have reserved is found in
// the API server; nothing else is touched.
func TestClaimsOfALostJournalAreFound(t *testing.T) {
	running, broken := allocated("running", onGPU("gpu-0000-17-00-0")), allocated("broken", onGPU("gpu-0000-27-00-0"))
	elsewhere, free, others := allocated("elsewhere", onGPU("gpu-0000-27-00-0")), allocated("free", onGPU("gpu-0000-27-00-0")), allocated("others", onGPU("gpu-0000-27-00-0"))
	elsewhere.Status.Allocation.Devices.Results[0].Pool = "node-b/gpu"
	free.Status.ReservedFor = nil
	others.Status.Allocation.Devices.Results[0].Driver = "another.example"
	directory := t.TempDir()
	before := newRoom(t, directory, boot)
	for _, c := range []*resourceapi.ResourceClaim{running, broken} {
		if _, err := before.prepare(c); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(os.WriteFile(before.path, nil, 0o600), before.cdi.Remove(running.UID), os.WriteFile(before.cdi.File(broken.UID), []byte("{"), 0o600)); err != nil {
		t.Fatal(err)
	}
	r := newRoom(t, directory, boot)
	all := lister(elsewhere, running, free, broken, others)
	away := func(context.Context, func(*resourceapi.ResourceClaim) error) error {
		return errors.New("connection refused")
	}
	if err := r.Recover(t.Context(), away, here); err == nil || !r.journal.Incomplete() {
		t.Errorf("the API server is away: %v, incomplete %v", err, r.journal.Incomplete())
	}
	// Until it is back nothing is taken for nobody's, over another start, too.
	r = newRoom(t, directory, boot)
	if err := r.Reconcile(t.Context(), reader(running, broken), r.cdi); err != nil {
		t.Fatal(err)
	}
	if specs, err := r.cdi.List(); err != nil || len(specs) != 1 {
		t.Errorf("specs %v, %v; want that of the broken one left alone", specs, err)
	}
	if err := r.Recover(t.Context(), all, here); err != nil {
		t.Fatal(err)
	}
	sameEntries(t, "found", before.journal.Entries(), r.journal.Entries())
	if specs, err := r.cdi.List(); err != nil || len(specs) != 2 || r.journal.Incomplete() {
		t.Errorf("specs %v, %v, incomplete %v", specs, err, r.journal.Incomplete())
	}
	refuse := func(context.Context, func(*resourceapi.ResourceClaim) error) error {
		t.Error("listed once more")
		return nil
	}
	if err := newRoom(t, directory, boot).Recover(t.Context(), refuse, here); err != nil {
		t.Error(err)
	}
}

// A partition that is there and that no entry tells of stays: it may be anybody's.
func TestPartitionsOfALostJournalStay(t *testing.T) {
	directory, device := t.TempDir(), migDevice()
	c := allocated("c", onGPU(part1g0))
	before := newMIGRoom(t, directory, boot, device)
	if _, err := before.prepare(c); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.WriteFile(before.path, nil, 0o600), before.cdi.Remove(c.UID)); err != nil {
		t.Fatal(err)
	}
	was := instances(device)
	r := newMIGRoom(t, directory, boot, device)
	if err := r.Recover(t.Context(), lister(c), here); err != nil {
		t.Fatal(err)
	}
	if entry := r.journal.Entry(c.UID); entry == nil || !entry.Devices[0].Partition.Static {
		t.Errorf("entry %+v", entry)
	}
	if err := r.Unprepare(t.Context(), c.UID); err != nil {
		t.Fatal(err)
	}
	if now := instances(device); len(now) != len(was) {
		t.Errorf("instances %v, were %v", now, was)
	}
}

// What cannot be prepared is tried again, and what is unprepared meanwhile is not.
func TestRecoveryGoesOnUntilItIsComplete(t *testing.T) {
	directory := t.TempDir()
	if err := os.MkdirAll(directory+"/state", 0o750); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(directory+"/state/journal", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	r := newRoom(t, directory, boot)
	away, over := allocated("away", onNIC("nic-0000-19-00-0")), allocated("over", onGPU("gpu-0000-17-00-0"))
	r.snapshot.NICs[1].Link = nil
	r.snapshot.NICs = append(r.snapshot.NICs[:1:1], r.snapshot.NICs[2:]...)
	list := func(ctx context.Context, visit func(*resourceapi.ResourceClaim) error) error {
		err := lister(away, over)(ctx, visit)
		return errors.Join(err, r.Unprepare(ctx, over.UID))
	}
	if err := r.Recover(t.Context(), list, here); err == nil || !strings.Contains(err.Error(), "nic-0000-19-00-0") || !r.journal.Incomplete() {
		t.Errorf("%v, incomplete %v", err, r.journal.Incomplete())
	}
	if r.journal.Entry(over.UID) != nil {
		t.Error("prepared what was unprepared since it was listed")
	}
	if err := r.Recover(t.Context(), lister(), here); err != nil || r.journal.Incomplete() {
		t.Errorf("once the claim is gone: %v, incomplete %v", err, r.journal.Incomplete())
	}
	var claims []types.UID
	for _, entry := range r.journal.Entries() {
		claims = append(claims, entry.ClaimUID)
	}
	if len(claims) > 0 {
		t.Errorf("entries %v", claims)
	}
}
