package status

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	resourceapi "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation/field"
	resourceapply "k8s.io/client-go/applyconfigurations/resource/v1"
	resourceclient "k8s.io/client-go/kubernetes/typed/resource/v1"

	"github.com/hostler-dev/hostler/driver/claim"
	"github.com/hostler-dev/hostler/netattach/attach"
)

var time0 = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// server is an API server that holds one claim, with the journal and the records
// of the node. It applies as the real one does for a single manager.
type server struct {
	resourceclient.ResourceClaimInterface
	mu      sync.Mutex
	claim   *resourceapi.ResourceClaim
	entry   *claim.Entry
	records []attach.Record
	// fail, if set, answers in place of the server.
	fail func() error
	// drops: status.devices is switched off.
	drops          bool
	applied, asked int
	inFlight, most int
	slow           time.Duration
	told           []string
}

func (s *server) ResourceClaims(string) resourceclient.ResourceClaimInterface { return s }

func (s *server) Get(context.Context, string, metav1.GetOptions) (*resourceapi.ResourceClaim, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked++
	if s.claim == nil {
		return nil, apierrors.NewNotFound(resourceapi.Resource("resourceclaims"), "c")
	}
	return s.claim.DeepCopy(), nil
}

func (s *server) ApplyStatus(ctx context.Context, apply *resourceapply.ResourceClaimApplyConfiguration, options metav1.ApplyOptions) (*resourceapi.ResourceClaim, error) {
	s.mu.Lock()
	s.applied++
	s.inFlight++
	s.most = max(s.most, s.inFlight)
	slow := s.slow
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		s.inFlight--
		s.mu.Unlock()
	}()
	select {
	case <-time.After(slow):
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case options.FieldManager != "hostler.dev/node-a" || !options.Force:
		return nil, fmt.Errorf("options %+v", options)
	case s.fail != nil:
		return nil, s.fail()
	case s.claim == nil:
		return nil, apierrors.NewNotFound(resourceapi.Resource("resourceclaims"), "c")
	case *apply.UID != s.claim.UID:
		return nil, apierrors.NewInvalid(resourceapi.SchemeGroupVersion.WithKind("ResourceClaim").GroupKind(), "c", field.ErrorList{field.Invalid(field.NewPath("metadata", "uid"), "", "immutable")})
	}
	s.claim.ResourceVersion += "0"
	s.claim.Status.Devices = nil
	for _, d := range apply.Status.Devices {
		device := resourceapi.AllocatedDeviceStatus{Driver: *d.Driver, Pool: *d.Pool, Device: *d.Device, ShareID: d.ShareID}
		for _, c := range d.Conditions {
			device.Conditions = append(device.Conditions, metav1.Condition{Type: *c.Type, Status: *c.Status, Reason: *c.Reason, Message: *c.Message, LastTransitionTime: *c.LastTransitionTime})
		}
		if n := d.NetworkData; n != nil {
			device.NetworkData = &resourceapi.NetworkDeviceData{InterfaceName: *n.InterfaceName, IPs: n.IPs, HardwareAddress: *n.HardwareAddress}
		}
		if !s.drops {
			s.claim.Status.Devices = append(s.claim.Status.Devices, device)
		}
	}
	return s.claim.DeepCopy(), nil
}

// holds changes what the node holds.
func (s *server) holds(entry *claim.Entry, records ...attach.Record) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.entry, s.records = entry, records
}

// says is the claim's status in lines, and writes how often it was written.
func (s *server) says() (status string, writes int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var lines []string
	if s.claim != nil {
		for _, device := range s.claim.Status.Devices {
			lines = append(lines, line(device))
		}
	}
	return strings.Join(lines, "\n"), s.applied
}

func (s *server) seen() *resourceapi.ResourceClaim {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.claim.DeepCopy()
}

func newServer() *server {
	return &server{claim: &resourceapi.ResourceClaim{
		ObjectMeta: metav1.ObjectMeta{Namespace: "team", Name: "c", UID: "uid", ResourceVersion: "1"},
		Status: resourceapi.ResourceClaimStatus{
			Allocation: &resourceapi.AllocationResult{Devices: resourceapi.DeviceAllocationResult{Results: []resourceapi.DeviceRequestAllocationResult{
				{Request: "nic", Driver: "hostler.dev", Pool: "node-a/nic", Device: "nic-0"}, {Request: "other", Driver: "example.com", Pool: "p", Device: "d"},
			}}},
			ReservedFor: []resourceapi.ResourceClaimConsumerReference{{Resource: "pods", Name: "a", UID: "pod-a"}},
		},
	}}
}

// run calls test in a bubble whose time passes only while all wait.
func run(t *testing.T, test func(s *server, w *Writer)) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		w := New(Config{
			NodeName: "node-a", Client: s,
			Entry:   func(types.UID) *claim.Entry { s.mu.Lock(); defer s.mu.Unlock(); return s.entry },
			Records: func(types.UID) ([]attach.Record, error) { s.mu.Lock(); defer s.mu.Unlock(); return s.records, nil },
			Tell: func(reason, message string) {
				s.mu.Lock()
				defer s.mu.Unlock()
				s.told = append(s.told, reason+": "+message)
			},
		})
		ctx, stop := context.WithCancel(t.Context())
		var done sync.WaitGroup
		done.Go(func() { w.Run(ctx) })
		test(s, w)
		stop()
		done.Wait()
	})
}

// after lets the time pass and everything be done that is due then.
func after(d time.Duration) {
	time.Sleep(d) // in a bubble
	synctest.Wait()
}

var attachedRecord = inPod("a", attach.StateAttached, net1("192.0.2.7/24"))

const attachedLine = "node-a/nic/nic-0 Ready=True(Prepared) Attached=True(Attached): In pod a; net1 02:00:00:00:00:0a 192.0.2.7/24"

func TestPodStartCostsOneWrite(t *testing.T) {
	run(t, func(s *server, w *Writer) {
		s.holds(entryOf(nicDevice()))
		w.Prepared(s.seen(), nil)
		after(300 * time.Millisecond)
		w.Prepared(s.seen(), nil) // for another container, or pod
		s.holds(entryOf(nicDevice()), attachedRecord)
		w.Attached(attach.Change{Claim: "uid", Pod: "pod-a", Attached: true})
		after(0)
		if status, writes := s.says(); status != attachedLine || writes != 1 {
			t.Errorf("right after the attachment %d writes say\n%s\nwant 1 that says\n%s", writes, status, attachedLine)
		}
		after(time.Hour)
		w.Prepared(s.seen(), nil)
		w.Review()
		after(time.Hour)
		if _, writes := s.says(); writes != 1 {
			t.Errorf("%d writes though nothing changed, want 1", writes)
		}
	})
}

func TestStatusFollowsTheClaim(t *testing.T) {
	run(t, func(s *server, w *Writer) {
		expect := func(when string, writes int, want string) {
			t.Helper()
			if status, wrote := s.says(); status != want || wrote != writes {
				t.Errorf("%s %d writes say\n%s\nwant %d that say\n%s", when, wrote, status, writes, want)
			}
		}
		w.Prepared(s.seen(), errors.New("GPU gpu-0 is lost"))
		after(time.Minute)
		expect("refused,", 1, "node-a/nic/nic-0 Ready=False(PrepareFailed): GPU gpu-0 is lost;")
		s.holds(entryOf(nicDevice()))
		w.Prepared(s.seen(), nil)
		w.Attached(attach.Change{Claim: "uid", Pod: "pod-a"}) // undone
		w.Attached(attach.Change{Claim: "uid", Pod: "pod-a", Err: errors.New("the chain failed")})
		after(time.Minute)
		expect("not attached,", 2, "node-a/nic/nic-0 Ready=True(Prepared) Attached=False(AttachFailed): the chain failed;")
		s.holds(entryOf(nicDevice()), attachedRecord)
		w.Attached(attach.Change{Claim: "uid", Pod: "pod-a", Attached: true})
		after(0)
		expect("attached,", 3, attachedLine)
		s.holds(entryOf(nicDevice()))
		w.Attached(attach.Change{Claim: "uid", Pod: "pod-a"})
		after(time.Second)
		s.holds(nil)
		w.Unprepared("uid")
		after(time.Minute)
		expect("unprepared,", 4, "")
		if k := w.look("uid"); k != nil {
			t.Errorf("kept %+v of a claim that is over", k)
		}
	})
}

func TestEndOfAPodLeavesNothingToWrite(t *testing.T) {
	run(t, func(s *server, w *Writer) {
		s.holds(entryOf(nicDevice()), attachedRecord)
		w.Prepared(s.seen(), nil)
		after(time.Minute)
		s.holds(nil)
		w.Attached(attach.Change{Claim: "uid", Pod: "pod-a"})
		w.Unprepared("uid")
		after(time.Second)
		s.mu.Lock()
		s.claim = nil // with its pod
		s.mu.Unlock()
		after(time.Hour)
		if _, writes := s.says(); writes != 2 {
			t.Errorf("%d requests, want the first and one that finds the claim gone", writes)
		}
		if w.look("uid") != nil {
			t.Error("kept what is known of a claim that is gone")
		}
	})
}

func TestAgentThatStartsComparesFirst(t *testing.T) {
	run(t, func(s *server, w *Writer) {
		s.holds(entryOf(nicDevice()), attachedRecord)
		s.claim.Status.Devices = dated(Wanted(Claim{Entry: s.entry, Records: s.records}), nil, time0)
		s.claim.Status.Devices[0].Driver = "hostler.dev"
		w.Prepared(s.seen(), nil) // by reconciliation
		w.Review()
		after(time.Hour)
		if _, writes := s.says(); writes != 0 {
			t.Errorf("%d writes of what is there already", writes)
		}
		s.mu.Lock()
		s.claim.Status.Devices = nil // somebody removed it
		s.claim.ResourceVersion = "2"
		s.mu.Unlock()
		w.Prepared(s.seen(), nil)
		after(time.Minute)
		if status, writes := s.says(); status != attachedLine || writes != 1 {
			t.Errorf("%d writes say %s, want 1 that restores %s", writes, status, attachedLine)
		}
	})
}

func TestWhatIsBeingPreparedIsNotCalledReady(t *testing.T) {
	run(t, func(s *server, w *Writer) {
		w.Prepared(s.seen(), errors.New("no such device"))
		after(time.Minute)
		s.holds(nil)
		w.Unprepared("uid")
		s.holds(entryOf(nicDevice())) // its steps have begun
		w.Review()
		after(time.Hour)
		if status, _ := s.says(); strings.Contains(status, "Ready=True") {
			t.Errorf("%s before the prepare has ended", status)
		}
	})
}

func TestServerThatIsAwayIsTriedAgain(t *testing.T) {
	run(t, func(s *server, w *Writer) {
		s.fail = func() error { return errors.New("connection refused") }
		s.holds(entryOf(nicDevice()), attachedRecord)
		w.Prepared(s.seen(), nil)
		after(10 * time.Minute)
		_, writes := s.says()
		if writes < 5 || writes > 30 {
			t.Errorf("%d tries in ten minutes, want some, less and less often", writes)
		}
		s.mu.Lock()
		s.fail = nil
		s.mu.Unlock()
		after(2 * time.Minute)
		if status, _ := s.says(); status != attachedLine {
			t.Errorf("the status is %q once the server is back", status)
		}
	})
}

func TestSlowServerHoldsUpNobody(t *testing.T) {
	run(t, func(s *server, w *Writer) {
		s.slow = time.Minute
		s.holds(entryOf(nicDevice()), attachedRecord)
		for i := range 10000 {
			w.Prepared(s.seen(), nil)
			w.Attached(attach.Change{Claim: "uid", Pod: types.UID(fmt.Sprint("pod-", i%3)), Attached: true})
		}
		after(time.Second)
		if queued := w.queue.Len(); queued > 1 {
			t.Errorf("%d entries wait for one claim", queued)
		}
		after(time.Hour)
		if s.most > 1 {
			t.Errorf("%d writes of one claim at the same time", s.most)
		}
	})
}

func TestMissingRightsAreToldOnce(t *testing.T) {
	for name, refusal := range map[string]error{
		"by RBAC": apierrors.NewForbidden(resourceapi.Resource("resourceclaims/status"), "c", errors.New("cannot patch")),
		"by 1.36": apierrors.NewInvalid(resourceapi.SchemeGroupVersion.WithKind("ResourceClaim").GroupKind(), "c", field.ErrorList{field.Forbidden(field.NewPath("status", "devices"), "changing status.devices requires resourceclaims/driver")}),
	} {
		t.Run(name, func(t *testing.T) {
			run(t, func(s *server, w *Writer) {
				s.fail = func() error { return refusal }
				s.holds(entryOf(nicDevice()), attachedRecord)
				w.Prepared(s.seen(), nil)
				after(time.Hour)
				if _, writes := s.says(); writes != 1 {
					t.Errorf("%d tries without the right, want 1 until the next look at all claims", writes)
				}
				for range 3 {
					w.Review()
					after(time.Minute)
				}
				if len(s.told) != 1 || !strings.Contains(s.told[0], "associated-node:patch") {
					t.Errorf("told %q, want once what right is missing", s.told)
				}
				s.mu.Lock()
				s.fail = nil
				s.mu.Unlock()
				w.Review()
				after(time.Minute)
				if status, _ := s.says(); status != attachedLine {
					t.Errorf("the status is %q once the right was granted", status)
				}
			})
		})
	}
}

func TestServerThatDropsDeviceStatusIsNotWrittenForEver(t *testing.T) {
	run(t, func(s *server, w *Writer) {
		s.drops = true
		s.holds(entryOf(nicDevice()), attachedRecord)
		for range 20 {
			w.Prepared(s.seen(), nil)
			w.Review()
			after(3 * time.Minute)
		}
		if _, writes := s.says(); writes != 1 {
			t.Errorf("%d writes to a server that drops them", writes)
		}
	})
}

func TestClaimsThatAreNoLongerWhatTheyWere(t *testing.T) {
	for name, change := range map[string]func(*resourceapi.ResourceClaim) *resourceapi.ResourceClaim{
		"deleted":                  func(*resourceapi.ResourceClaim) *resourceapi.ResourceClaim { return nil },
		"another of the same name": func(c *resourceapi.ResourceClaim) *resourceapi.ResourceClaim { c.UID = "later"; return c },
		"allocated anew": func(c *resourceapi.ResourceClaim) *resourceapi.ResourceClaim {
			c.Status.Allocation.Devices.Results[0].Device = "nic-1"
			return c
		},
	} {
		t.Run(name, func(t *testing.T) {
			run(t, func(s *server, w *Writer) {
				w.Prepared(s.seen(), errors.New("no"))
				s.mu.Lock()
				s.claim = change(s.claim)
				if s.claim != nil && s.claim.UID == "uid" {
					s.fail = func() error {
						return apierrors.NewInvalid(resourceapi.SchemeGroupVersion.WithKind("ResourceClaim").GroupKind(), "c", field.ErrorList{field.Invalid(field.NewPath("status", "devices"), "", "must be an allocated device in the claim")})
					}
				}
				s.mu.Unlock()
				after(time.Hour)
				if status, writes := s.says(); status != "" || writes > 1 {
					t.Errorf("%d writes, %s", writes, status)
				}
				w.Review()
				after(time.Hour)
				if w.look("uid") != nil {
					t.Error("the claim is kept")
				}
			})
		})
	}
}

func TestRefusalThatStaysIsTriedWithTheNextLookOnly(t *testing.T) {
	run(t, func(s *server, w *Writer) {
		s.fail = func() error {
			return &apierrors.StatusError{ErrStatus: metav1.Status{Status: metav1.StatusFailure, Code: http.StatusUnprocessableEntity, Reason: metav1.StatusReasonInvalid, Message: "a policy says no"}}
		}
		s.holds(entryOf(nicDevice()), attachedRecord)
		w.Prepared(s.seen(), nil)
		after(time.Hour)
		if _, writes := s.says(); writes != 2 {
			t.Errorf("%d tries, want one and another after the claim was read", writes)
		}
	})
}

func TestWordsAloneAreWrittenOnceAMinute(t *testing.T) {
	run(t, func(s *server, w *Writer) {
		for i := range 600 {
			w.Prepared(s.seen(), fmt.Errorf("try %d failed", i))
			after(time.Second)
		}
		if _, writes := s.says(); writes > 11 {
			t.Errorf("%d writes in ten minutes, of which all but one change only a number", writes)
		}
	})
}

func TestFailuresOfPodsThatAreGoneAreForgotten(t *testing.T) {
	run(t, func(s *server, w *Writer) {
		s.holds(entryOf(egressDevice()), inPod("a", attach.StateAttached))
		w.Prepared(s.seen(), nil)
		w.Attached(attach.Change{Claim: "uid", Pod: "pod-gone", Err: errors.New("no resolver")})
		after(time.Minute)
		if status, _ := s.says(); !strings.Contains(status, "EgressEnforced=False(AttachFailed)") {
			t.Errorf("the status is %s", status)
		}
		w.Prepared(s.seen(), nil) // it is reserved for another pod alone
		after(time.Minute)
		if status, _ := s.says(); !strings.Contains(status, "EgressEnforced=True(Enforced): In pod a") {
			t.Errorf("the status is %s", status)
		}
	})
}

func TestWaitForAnotherPodsDeviceIsNoFailure(t *testing.T) {
	run(t, func(s *server, w *Writer) {
		w.Prepared(s.seen(), errors.New("device nic-0 is still held by claim team/before"))
		after(2 * time.Second)
		s.holds(entryOf(nicDevice()), attachedRecord)
		w.Prepared(s.seen(), nil)
		w.Attached(attach.Change{Claim: "uid", Pod: "pod-a", Attached: true})
		after(time.Minute)
		if status, writes := s.says(); status != attachedLine || writes != 1 {
			t.Errorf("%d writes say %s, want 1 that says %s", writes, status, attachedLine)
		}
	})
}

func TestFieldManagersAreOnePerNodeAndShort(t *testing.T) {
	long := strings.Repeat("n", 250)
	for _, node := range []string{"node-a", long, long + "m"} {
		if name := fieldManager(node); len(name) > longestManager || !strings.HasPrefix(name, "hostler.dev/"+node[:6]) {
			t.Errorf("field manager %q of node %s", name, node)
		}
	}
	if fieldManager(long) == fieldManager(long+"m") {
		t.Error("two nodes have one field manager")
	}
}
