package status

import (
	"context"
	"fmt"
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
func run(t *testing.T, test func(s *server, w *Writer)) { runAfter(t, nil, test) }

// runAfter is run after an earlier agent, which left these entries.
func runAfter(t *testing.T, entries []*claim.Entry, test func(s *server, w *Writer)) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		w := New(Config{
			NodeName: "node-a", Client: s, Entries: entries,
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
