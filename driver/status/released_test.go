package status

// A claim that ended while its driver was dead leaves an entry of its partitions alone,
// until these can be removed. Its status says by then that it is over.

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	resourceapi "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/hostler-dev/hostler/driver/claim"
)

// leftOf is what the journal keeps of a claim with a NIC and a partition.
func leftOf() *claim.Entry {
	left := entryOf(gpuDevice())
	left.Released = true
	return left
}

// hasBoth has the claim be of the partition, too, and say that both are ready.
func (s *server) hasBoth() {
	s.mu.Lock()
	defer s.mu.Unlock()
	results := &s.claim.Status.Allocation.Devices.Results
	*results = append(*results, resourceapi.DeviceRequestAllocationResult{Request: "gpu", Driver: "hostler.dev", Pool: "node-a/gpu", Device: "gpu-0"})
	for _, device := range []claim.Device{nicDevice(), gpuDevice()} {
		s.claim.Status.Devices = append(s.claim.Status.Devices, resourceapi.AllocatedDeviceStatus{
			Driver: "hostler.dev", Pool: device.Pool, Device: device.Name,
			Conditions: []metav1.Condition{{Type: Ready, Status: metav1.ConditionTrue, Reason: ReasonPrepared}},
		})
	}
}

func TestClaimWhoseDriverWasDeadAtItsEndIsNotReady(t *testing.T) {
	for name, test := range map[string]struct {
		earlier []*claim.Entry
		ends    func(s *server, w *Writer)
	}{
		"it ended just now": {nil, func(s *server, w *Writer) {
			s.holds(entryOf(nicDevice(), gpuDevice()))
			w.Prepared(s.seen(), nil)
			after(time.Minute)
			s.holds(leftOf())
			w.Unprepared("uid")
		}},
		"it ended, and its end was not told": {nil, func(s *server, w *Writer) {
			s.holds(entryOf(nicDevice(), gpuDevice()))
			w.Prepared(s.seen(), nil)
			after(time.Minute)
			s.holds(leftOf())
			w.Review()
		}},
		"an earlier agent ended it": {[]*claim.Entry{leftOf()}, func(s *server, w *Writer) {
			s.holds(leftOf())
			w.Review()
		}},
		"an earlier agent ended it, and its partition is removed": {[]*claim.Entry{leftOf()}, func(_ *server, w *Writer) {
			w.Unprepared("uid")
		}},
	} {
		t.Run(name, func(t *testing.T) {
			runAfter(t, test.earlier, func(s *server, w *Writer) {
				s.hasBoth()
				test.ends(s, w)
				after(time.Minute)
				if status, _ := s.says(); status != "" {
					t.Errorf("its status is still\n%s", status)
				}
				if w.look("uid") != nil {
					t.Error("the claim is kept")
				}
			})
		})
	}
}

func TestClaimThatWasAllocatedAnewSinceItWasReleasedIsLeftAlone(t *testing.T) {
	runAfter(t, []*claim.Entry{leftOf()}, func(s *server, w *Writer) {
		s.hasBoth()
		s.mu.Lock()
		s.claim.Status.Allocation.Devices.Results[2].Device = "gpu-1"
		was := s.claim.DeepCopy()
		s.mu.Unlock()
		s.holds(leftOf())
		w.Review()
		after(time.Hour)
		if diff := cmp.Diff(was, s.seen()); diff != "" {
			t.Errorf("its status was changed:\n%s", diff)
		}
	})
}

func TestNextPodOfAClaimWhosePartitionIsLeft(t *testing.T) {
	run(t, func(s *server, w *Writer) {
		s.hasBoth()
		s.holds(leftOf())
		w.Review()
		s.holds(entryOf(nicDevice(), gpuDevice()), attachedRecord)
		w.Prepared(s.seen(), nil)
		after(time.Minute)
		if status, _ := s.says(); status != attachedLine+"\nnode-a/gpu/gpu-0 Ready=True(Prepared)" {
			t.Errorf("prepared again, its status is\n%s", status)
		}
	})
}
