package claim

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	resourceapi "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/hostler-dev/hostler/netattach"
)

func TestPreparedDeviceIsRefusedToOthers(t *testing.T) {
	r := newRoom(t, t.TempDir(), boot)
	first, second := allocated("first", onGPU("gpu-0000-17-00-0")), allocated("second", onGPU("gpu-0000-17-00-0"))
	if _, err := r.prepare(first); err != nil {
		t.Fatal(err)
	}
	_, err := r.prepare(second)
	var held *HeldError
	if !errors.As(err, &held) || held.Holder != first.UID || !strings.Contains(err.Error(), "gpu-0000-17-00-0") {
		t.Fatalf("%v; want the device and its holder named", err)
	}
	if err := r.Unprepare(t.Context(), first.UID); err != nil {
		t.Fatal(err)
	}
	if _, err := r.prepare(second); err != nil {
		t.Errorf("the device is free and still refused: %v", err)
	}
}

func TestAdminAccessAndEgressAreShared(t *testing.T) {
	r := newRoom(t, t.TempDir(), boot)
	watching := allocated("watching", onGPU("gpu-0000-17-00-0"))
	yes := true
	watching.Status.Allocation.Devices.Results[0].AdminAccess = &yes
	for _, c := range []*resourceapi.ResourceClaim{allocated("using", onGPU("gpu-0000-17-00-0")), watching, allocated("e1", onEgress()), allocated("e2", onEgress())} {
		if _, err := r.prepare(c); err != nil {
			t.Errorf("%s: %v", c.Name, err)
		}
	}
}

func TestRDMAAndScopeInOnePod(t *testing.T) {
	r := newRoom(t, t.TempDir(), boot)
	nic, scope := allocated("nic", onNIC("nic-0000-18-00-0")), allocated("scope", onEgress())
	scope.Status.ReservedFor = nic.Status.ReservedFor
	if _, err := r.prepare(nic); err != nil {
		t.Fatal(err)
	}
	if _, err := r.prepare(scope); err == nil || !strings.Contains(err.Error(), "used by one pod") {
		t.Errorf("%v; two claims of one pod bypass each other", err)
	}
	if _, err := r.prepare(with(scope, claim, `EgressConfig {"kernelBypass": "Allow"}`)); err != nil {
		t.Errorf("accepted by the user and refused: %v", err)
	}
}

func TestFailedPrepareLeavesNothing(t *testing.T) {
	r := newRoom(t, t.TempDir(), boot)
	// The CDI directory's place is taken by a file.
	if err := os.WriteFile(r.cdi.Path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	c := allocated("c", onGPU("gpu-0000-17-00-0"))
	if _, err := r.prepare(c); err == nil || !strings.Contains(err.Error(), "paths.cdi") {
		t.Fatalf("%v; want a hint at paths.cdi", err)
	}
	if err := os.Remove(r.cdi.Path); err != nil {
		t.Fatal(err)
	}
	if _, err := r.prepare(allocated("d", onGPU("gpu-0000-17-00-0"))); err != nil {
		t.Errorf("the failed claim still holds the device: %v", err)
	}
}

func TestNetworksAreResolvedBeforeAnythingIsDone(t *testing.T) {
	r := newRoom(t, t.TempDir(), boot)
	c := with(allocated("c", onNIC("nic-0000-19-00-0")), claim, `NICConfig {"networks": [{"name": "nowhere"}]}`)
	if _, err := r.prepare(c); err == nil || !strings.Contains(err.Error(), "team/nowhere") || len(r.journal.Entries()) != 0 {
		t.Errorf("%v; entries %v", err, r.journal.Entries())
	}
	c = with(allocated("c", onNIC("nic-0000-19-00-0")), class, `NICConfig {"networks": [{"name": "storage", "namespace": "infra"}]}`)
	if _, err := r.prepare(c); err != nil {
		t.Fatal(err)
	}
	intent, ok := NewStore(r.journal).Intent(c.UID)
	if !ok || string(intent.Devices[0].Networks[0].Config) != `{"deviceID":"0000:19:00.0"}` || intent.Devices[0].Networks[0].Namespace != "infra" {
		t.Errorf("intent: %+v", intent)
	}
}

func TestUnprepareKeepsWhatDoesNotComeHome(t *testing.T) {
	r := newRoom(t, t.TempDir(), boot)
	c := allocated("c", onNIC("nic-0000-19-00-0"))
	if _, err := r.prepare(c); err != nil {
		t.Fatal(err)
	}
	r.attacher.fail = errors.New("device or resource busy")
	if err := r.Unprepare(t.Context(), c.UID); err == nil || !strings.Contains(err.Error(), "busy") {
		t.Errorf("%v; want the reason", err)
	}
	if len(NewLedger(r.journal).Held()) != 1 {
		t.Error("a NIC that is still in a pod counts as free")
	}
	r.attacher.fail = nil
	if err := r.Unprepare(t.Context(), c.UID); err != nil {
		t.Error(err)
	}
	if err := r.Unprepare(t.Context(), "never-seen"); err != nil {
		t.Errorf("an unknown claim: %v", err)
	}
}

func TestLatePrepareIsRefused(t *testing.T) {
	r := newRoom(t, t.TempDir(), boot)
	c := allocated("c", onGPU("gpu-0000-17-00-0"))
	late := r.Arrive()
	if err := r.Unprepare(t.Context(), c.UID); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Prepare(t.Context(), late, c); !errors.Is(err, ErrStraggler) {
		t.Errorf("a prepare that arrived before the unprepare: %v", err)
	}
	if _, err := r.prepare(c); err != nil {
		t.Errorf("a prepare that arrived after it (the claim's next pod): %v", err)
	}
}

// stuck is a step that waits until it is let go.
type stuck struct{ entered, release chan struct{} }

func (s stuck) Name() string                 { return "wait" }
func (s stuck) Kind() string                 { return "wait" }
func (s stuck) Verify(context.Context) error { return nil }
func (s stuck) Undo(context.Context) error   { return nil }
func (s stuck) Do(ctx context.Context) error {
	s.entered <- struct{}{}
	select {
	case <-s.release:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func TestSlowWorkOutlivesTheCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRoom(t, t.TempDir(), boot)
		slow := stuck{make(chan struct{}, 9), make(chan struct{})}
		steps := r.cfg.Steps
		r.cfg.Steps = func(e *Entry) []Step {
			if e.ClaimName == "slow" {
				return append([]Step{slow}, steps(e)...)
			}
			return steps(e)
		}
		c := allocated("slow", onGPU("gpu-0000-17-00-0"))
		ctx, cancel := context.WithTimeout(t.Context(), 40*time.Second)
		defer cancel()
		if _, err := r.Prepare(ctx, r.Arrive(), c); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the first call: %v", err)
		}
		if _, err := r.prepare(allocated("fast", onGPU("gpu-0000-27-00-0"))); err != nil {
			t.Errorf("another claim, meanwhile: %v", err)
		}
		second := make(chan error)
		go func() { _, err := r.prepare(c); second <- err }()
		synctest.Wait()
		if len(slow.entered) != 1 {
			t.Errorf("the slow step was begun %d times", len(slow.entered))
		}
		close(slow.release)
		if err := <-second; err != nil {
			t.Errorf("the second call: %v", err)
		}
	})
}

// reader answers like an API server that has these claims.
func reader(claims ...*resourceapi.ResourceClaim) ClaimReader {
	return func(_ context.Context, namespace, name string) (*resourceapi.ResourceClaim, error) {
		for _, c := range claims {
			if c.Namespace == namespace && c.Name == name {
				return c, nil
			}
		}
		return nil, apierrors.NewNotFound(schema.GroupResource{Resource: "resourceclaims"}, name)
	}
}

func TestReconcile(t *testing.T) {
	kept, deleted := allocated("kept", onGPU("gpu-0000-17-00-0")), allocated("deleted", onNIC("nic-0000-19-00-0"))
	namesake := allocated("deleted", onNIC("nic-0000-19-00-0"))
	namesake.UID = "another"
	freed := allocated("deleted")
	freed.Status.Allocation = nil
	for _, test := range []struct {
		name   string
		boot   string
		read   ClaimReader
		before func(*room) error
		want   []types.UID
		fault  string
	}{
		{"nothing changed", boot, reader(kept, deleted), nil, []types.UID{deleted.UID, kept.UID}, ""},
		{"a claim was deleted while the agent was down", boot, reader(kept), nil, []types.UID{kept.UID}, ""},
		{"a claim was deleted with force while its pod runs", boot, reader(kept), func(r *room) error {
			r.attacher.inUse = map[types.UID]bool{deleted.UID: true}
			return nil
		}, []types.UID{deleted.UID, kept.UID}, ""},
		{"and made again under its name", boot, reader(kept, namesake), nil, []types.UID{kept.UID}, ""},
		{"a claim lost its allocation", boot, reader(kept, withUID(freed, deleted.UID)), nil, []types.UID{kept.UID}, ""},
		{"the machine rebooted, which empties the CDI directory", "second-boot", reader(kept, deleted), func(r *room) error { return os.RemoveAll(r.cdi.Path) }, []types.UID{deleted.UID, kept.UID}, ""},
		{"a spec was deleted", boot, reader(kept, deleted), func(r *room) error { return r.cdi.Remove(kept.UID) }, []types.UID{deleted.UID, kept.UID}, ""},
		{"a spec belongs to nobody", boot, reader(kept, deleted), func(r *room) error {
			return os.WriteFile(r.cdi.File("stray"), []byte("{}"), 0o600)
		}, []types.UID{deleted.UID, kept.UID}, ""},
		{"the API server is away", boot, func(context.Context, string, string) (*resourceapi.ResourceClaim, error) {
			return nil, errors.New("connection refused")
		}, nil, []types.UID{deleted.UID, kept.UID}, "connection refused"},
	} {
		t.Run(test.name, func(t *testing.T) {
			directory := t.TempDir()
			before := newRoom(t, directory, boot)
			for _, c := range []*resourceapi.ResourceClaim{kept, deleted} {
				if _, err := before.prepare(c); err != nil {
					t.Fatal(err)
				}
			}
			r := newRoom(t, directory, test.boot)
			if test.before != nil {
				if err := test.before(r); err != nil {
					t.Fatal(err)
				}
			}
			err := r.Reconcile(t.Context(), test.read, r.cdi)
			if (err != nil) != (test.fault != "") || err != nil && !strings.Contains(err.Error(), test.fault) {
				t.Fatalf("%v, want %q", err, test.fault)
			}
			var got []types.UID
			for _, entry := range r.journal.Entries() {
				if entry.BootID != test.boot {
					t.Errorf("claim %s is of boot %s", entry.ClaimUID, entry.BootID)
				}
				got = append(got, entry.ClaimUID)
			}
			specs, err := r.cdi.List()
			if fmt.Sprint(got) != fmt.Sprint(test.want) || err != nil || fmt.Sprint(specs) != fmt.Sprint(test.want) {
				t.Errorf("entries %v, specs %v, %v; want %v", got, specs, err, test.want)
			}
			if _, there := r.journal.entries[deleted.UID]; !there && r.attacher.released[deleted.UID] == 0 {
				t.Error("the NIC was not brought home")
			}
		})
	}
}

func withUID(c *resourceapi.ResourceClaim, uid types.UID) *resourceapi.ResourceClaim {
	c.UID = uid
	return c
}

func TestStoreFindsAPodsIntents(t *testing.T) {
	r := newRoom(t, t.TempDir(), boot)
	for _, c := range []*resourceapi.ResourceClaim{allocated("a", onNIC("nic-0000-19-00-0")), allocated("b", onEgress())} {
		if _, err := r.prepare(c); err != nil {
			t.Fatal(err)
		}
	}
	store := NewStore(r.journal)
	for _, test := range []struct {
		uid             types.UID
		namespace, name string
		want            int
	}{
		{"pod-a", "team", "pod-a", 1}, {"", "team", "pod-b", 1}, {"other", "team", "pod-a", 0}, {"", "elsewhere", "pod-a", 0},
	} {
		if got := store.IntentsForPod(test.uid, test.namespace, test.name); len(got) != test.want {
			t.Errorf("pod %s/%s (%s) has %d intents, want %d", test.namespace, test.name, test.uid, len(got), test.want)
		}
	}
	want := Holder{Device: "nic-0000-19-00-0", Pool: "node-a/nic", Request: "r0", NIC: "nic-0000-19-00-0", ClaimUID: "uid-a", ClaimNamespace: "team", ClaimName: "a",
		Pods: []netattach.PodReference{{UID: "pod-a", Namespace: "team", Name: "pod-a"}}}
	if holders := NewLedger(r.journal).Holders(); len(holders) != 2 || fmt.Sprint(holders[0]) != fmt.Sprint(want) {
		t.Errorf("holders %+v", holders)
	}
}

func TestParallelClaimsForOneDevice(t *testing.T) {
	r := newRoom(t, t.TempDir(), boot)
	var all sync.WaitGroup
	won := make([]bool, 16)
	for i := range won {
		all.Go(func() {
			_, err := r.prepare(allocated(fmt.Sprint(i), onGPU("gpu-0000-17-00-0")))
			won[i] = err == nil
		})
	}
	all.Wait()
	winners := 0
	for _, w := range won {
		if w {
			winners++
		}
	}
	if winners != 1 {
		t.Errorf("%d claims got one GPU", winners)
	}
}
