package status

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	resourceapi "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/hostler-dev/hostler/driver/claim"
	"github.com/hostler-dev/hostler/netattach/attach"
)

var time0 = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

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

func TestClaimThatIsNotLeftInPeaceIsWrittenOnceItIs(t *testing.T) {
	run(t, func(s *server, w *Writer) {
		gpu := entryOf(claim.Device{Request: "gpu", Pool: "node-a/gpu", Name: "gpu-0"})
		for range 100 {
			s.holds(gpu)
			w.Prepared(s.seen(), nil)
			after(settleTime / 3)
			s.holds(nil)
			w.Unprepared("uid")
			after(settleTime / 100)
		}
		if status, writes := s.says(); writes > 0 {
			t.Errorf("%d writes, the last says\n%s", writes, status)
		}
		s.holds(gpu)
		w.Prepared(s.seen(), nil)
		after(settleTime)
		if status, writes := s.says(); writes != 1 {
			t.Errorf("left in peace, %d writes say\n%s\nwant 1", writes, status)
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
				if _, writes := s.says(); writes != 2 {
					t.Errorf("%d tries without the right, want one and another after the claim was read", writes)
				}
				for range 3 {
					w.Review()
					after(time.Minute)
				}
				if _, writes := s.says(); writes != 5 {
					t.Errorf("%d tries without the right, want one more for each look at all claims", writes)
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

// A claim is deleted and made anew under its name while nobody here hears of it.
// What is still to be said of the earlier one, be it that it is over, is said of no other.
func TestLaterClaimOfTheSameNameIsLeftAlone(t *testing.T) {
	for name, test := range map[string]struct {
		// told is what the agent said of the earlier claim before.
		told bool
		then func(w *Writer)
	}{
		"its unprepare is made up for":                {true, func(w *Writer) { w.Unprepared("uid") }},
		"its pod's attachment fails":                  {true, func(w *Writer) { w.Attached(attach.Change{Claim: "uid", Pod: "pod-a", Err: errors.New("no")}) }},
		"its pod is detached":                         {true, func(w *Writer) { w.Attached(attach.Change{Claim: "uid", Pod: "pod-a"}) }},
		"all claims are looked at":                    {true, (*Writer).Review},
		"its unprepare is made up for by a new agent": {false, func(w *Writer) { w.Unprepared("uid") }},
		"a new agent finds it attached":               {false, func(w *Writer) { w.Attached(attach.Change{Claim: "uid", Pod: "pod-a", Attached: true}) }},
	} {
		t.Run(name, func(t *testing.T) {
			entry := entryOf(nicDevice())
			runAfter(t, []*claim.Entry{entry}, func(s *server, w *Writer) {
				if s.holds(entry, attachedRecord); test.told {
					w.Prepared(s.seen(), nil)
					w.Attached(attach.Change{Claim: "uid", Pod: "pod-a", Attached: true})
					after(time.Minute)
				}
				s.mu.Lock()
				s.claim.UID, s.claim.ResourceVersion = "later", "99"
				s.claim.Status.Devices = []resourceapi.AllocatedDeviceStatus{{Driver: "hostler.dev", Pool: "node-a/nic", Device: "nic-0"}}
				was := s.claim.DeepCopy()
				s.mu.Unlock()
				s.holds(nil)
				test.then(w)
				after(time.Hour)
				w.Review()
				after(time.Hour)
				if diff := cmp.Diff(was, s.seen()); diff != "" {
					t.Errorf("the later claim was changed:\n%s", diff)
				}
				if w.look("uid") != nil {
					t.Error("the earlier claim is kept")
				}
			})
		})
	}
}

// The claim stays, allocated as it was; its last pod here has gone while the agent was away.
func TestWhatAnEarlierAgentSaidIsTakenBack(t *testing.T) {
	entry := entryOf(nicDevice())
	runAfter(t, []*claim.Entry{entry}, func(s *server, w *Writer) {
		s.mu.Lock()
		s.claim.Status.Devices = []resourceapi.AllocatedDeviceStatus{{Driver: "hostler.dev", Pool: "node-a/nic", Device: "nic-0", Conditions: []metav1.Condition{{Type: Ready, Status: metav1.ConditionTrue, Reason: ReasonPrepared}}}}
		s.mu.Unlock()
		w.Unprepared("uid")
		after(time.Minute)
		if status, writes := s.says(); status != "" || writes != 1 {
			t.Errorf("after %d writes the status is %s", writes, status)
		}
		if w.look("uid") != nil {
			t.Error("the claim is kept")
		}
	})
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

// To another node, whose agent alone may write its status now.
func TestClaimThatWentToAnotherNodeIsNoMissingRight(t *testing.T) {
	run(t, func(s *server, w *Writer) {
		w.Prepared(s.seen(), errors.New("no"))
		s.mu.Lock()
		s.claim.Status.Allocation.Devices.Results[0].Pool = "node-b/nic"
		s.fail = func() error {
			return apierrors.NewInvalid(resourceapi.SchemeGroupVersion.WithKind("ResourceClaim").GroupKind(), "c", field.ErrorList{field.Forbidden(field.NewPath("status", "devices"), "requires arbitrary-node:patch")})
		}
		s.mu.Unlock()
		after(time.Hour)
		if _, writes := s.says(); writes != 1 || len(s.told) > 0 || w.look("uid") != nil {
			t.Errorf("%d tries, told %q, kept %v", writes, s.told, w.look("uid"))
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
