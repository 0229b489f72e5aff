package apiserver

// What becomes of claims, written by the agent's own Writer with the chart's
// rights: what the server takes, keeps, drops and refuses, release by release.

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	metaapply "k8s.io/client-go/applyconfigurations/meta/v1"
	resourceapply "k8s.io/client-go/applyconfigurations/resource/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/utils/ptr"

	"github.com/hostler-dev/hostler/driver/claim"
	"github.com/hostler-dev/hostler/driver/publish"
	"github.com/hostler-dev/hostler/driver/status"
	"github.com/hostler-dev/hostler/netattach"
	"github.com/hostler-dev/hostler/netattach/attach"
	"github.com/hostler-dev/hostler/topology"
)

const (
	team  = "team"
	share = types.UID("4f7a2a3e-6d5c-4a39-9a42-0d8b2f6c1a11")
)

// onNode is a claim's allocation of a GPU, a NIC and another driver's device.
func onNode(node string, shared bool) *resourceapi.AllocationResult {
	nic := resourceapi.DeviceRequestAllocationResult{Request: "nic", Driver: publish.DriverName, Pool: node + "/nic", Device: "nic-0"}
	if shared {
		nic.ShareID = ptr.To(share)
	}
	return &resourceapi.AllocationResult{
		Devices: resourceapi.DeviceAllocationResult{Results: []resourceapi.DeviceRequestAllocationResult{
			{Request: "gpu", Driver: publish.DriverName, Pool: node + "/gpu", Device: "gpu-0"}, nic, {Request: "other", Driver: "example.com", Pool: "pool", Device: "other-0"},
		}},
		NodeSelector: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
			MatchFields: []corev1.NodeSelectorRequirement{{Key: "metadata.name", Operator: corev1.NodeSelectorOpIn, Values: []string{node}}},
		}}},
	}
}

// allocate makes a claim and allocates it, as a user and the scheduler do.
func allocate(t *testing.T, admin kubernetes.Interface, name, node string, shared bool) *resourceapi.ResourceClaim {
	t.Helper()
	var requests []resourceapi.DeviceRequest
	for _, name := range []string{"gpu", "nic", "other"} {
		requests = append(requests, resourceapi.DeviceRequest{Name: name, Exactly: &resourceapi.ExactDeviceRequest{DeviceClassName: "any"}})
	}
	claims := admin.ResourceV1().ResourceClaims(team)
	made, err := claims.Create(t.Context(), &resourceapi.ResourceClaim{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: resourceapi.ResourceClaimSpec{Devices: resourceapi.DeviceClaim{Requests: requests}}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	made.Status.Allocation = onNode(node, shared)
	made.Status.ReservedFor = []resourceapi.ResourceClaimConsumerReference{{Resource: "pods", Name: "a", UID: "pod-a"}}
	if _, err = claims.UpdateStatus(t.Context(), made, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	theirs := resourceapply.ResourceClaim(name, team).WithStatus(resourceapply.ResourceClaimStatus().WithDevices(
		resourceapply.AllocatedDeviceStatus().WithDriver("example.com").WithPool("pool").WithDevice("other-0").
			WithConditions(metaapply.Condition().WithType("Ready").WithStatus(metav1.ConditionTrue).WithReason("Theirs").WithMessage("").WithLastTransitionTime(metav1.Now()))))
	if made, err = claims.ApplyStatus(t.Context(), theirs, metav1.ApplyOptions{FieldManager: "example.com"}); err != nil {
		t.Fatal(err)
	}
	return made
}

// nodeSide is what the node has of its claims.
type nodeSide struct {
	mu      sync.Mutex
	entries map[types.UID]*claim.Entry
	records []attach.Record
	told    []string
	writes  int
}

func (n *nodeSide) set(uid types.UID, entry *claim.Entry, records ...attach.Record) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.entries[uid], n.records = entry, records
}

func (n *nodeSide) counts() (told []string, writes int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.told), n.writes
}

// startWriter is the agent of the node with its client, until the test ends.
func startWriter(t *testing.T, agent kubernetes.Interface) (*status.Writer, *nodeSide) {
	t.Helper()
	n := &nodeSide{entries: map[types.UID]*claim.Entry{}}
	w := status.New(status.Config{
		NodeName: nodeName, Client: agent.ResourceV1(),
		Entry:   func(uid types.UID) *claim.Entry { n.mu.Lock(); defer n.mu.Unlock(); return n.entries[uid] },
		Records: func(types.UID) ([]attach.Record, error) { n.mu.Lock(); defer n.mu.Unlock(); return n.records, nil },
		Tell: func(_, message string) {
			n.mu.Lock()
			defer n.mu.Unlock()
			n.told = append(n.told, message)
		},
		Observe: func(time.Duration, error) {
			n.mu.Lock()
			defer n.mu.Unlock()
			n.writes++
		},
	})
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	var done sync.WaitGroup
	done.Go(func() { w.Run(ctx) })
	t.Cleanup(func() { stop(); done.Wait() })
	return w, n
}

// prepared is the claim's entry, attached what its pod has of it.
func prepared(c *resourceapi.ResourceClaim) (entry *claim.Entry, attached attach.Record) {
	results := c.Status.Allocation.Devices.Results
	return &claim.Entry{ClaimUID: c.UID, ClaimNamespace: c.Namespace, ClaimName: c.Name, Devices: []claim.Device{
			{Request: "gpu", Pool: results[0].Pool, Name: results[0].Device, GPU: &topology.GPU{}},
			{Request: "nic", Pool: results[1].Pool, Name: results[1].Device, ShareID: results[1].ShareID, NIC: &topology.NIC{}, Network: &netattach.DeviceIntent{}},
		}}, attach.Record{State: attach.StateAttached, Pod: netattach.PodReference{UID: "pod-a", Namespace: team, Name: "a"}, Devices: []netattach.DeviceState{
			{Device: results[1].Device, Pool: results[1].Pool, ShareID: results[1].ShareID, Interface: "net1", MAC: "02:00:00:00:00:0a",
				Addresses: []netip.Prefix{netip.MustParsePrefix("192.0.2.7/24"), netip.MustParsePrefix("2001:db8::7/64")}},
		}}
}

// statusOf is what a claim's status says of its devices, one line for each.
func statusOf(t *testing.T, admin kubernetes.Interface, name string) (string, *resourceapi.ResourceClaim) {
	t.Helper()
	c, err := admin.ResourceV1().ResourceClaims(team).Get(t.Context(), name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, d := range c.Status.Devices {
		words := []string{d.Driver, d.Pool, d.Device}
		if d.ShareID != nil {
			words = append(words, "shared")
		}
		for _, condition := range d.Conditions {
			words = append(words, fmt.Sprintf("%s=%s", condition.Type, condition.Reason))
		}
		if d.NetworkData != nil {
			words = append(append(words, d.NetworkData.InterfaceName, d.NetworkData.HardwareAddress), d.NetworkData.IPs...)
		}
		lines = append(lines, strings.Join(words, " "))
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n"), c
}

func (s *server) awaitStatus(t *testing.T, admin kubernetes.Interface, name string, want ...string) *resourceapi.ResourceClaim {
	t.Helper()
	var last *resourceapi.ResourceClaim
	eventually(t, s.process, "the status of claim "+name, func(context.Context) error {
		got, c := statusOf(t, admin, name)
		last = c
		if got != strings.Join(want, "\n") {
			return fmt.Errorf("it says\n%s\nwant\n%s", got, strings.Join(want, "\n"))
		}
		return nil
	})
	return last
}

const theirs = "example.com pool other-0 Ready=Theirs"

// makeTeam makes the claims' namespace, and waits until the server knows the
// agent's rights on them.
func (s *server) makeTeam(t *testing.T, agent, admin kubernetes.Interface) {
	t.Helper()
	eventually(t, s.process, "the agent's right to write status to be in force", func(ctx context.Context) error {
		for _, right := range []authorizationv1.ResourceAttributes{{Verb: "patch", Subresource: "status"}, {Verb: "associated-node:patch", Subresource: "driver", Name: publish.DriverName}} {
			right.Group, right.Resource, right.Namespace = resourceapi.GroupName, "resourceclaims", team
			review, err := agent.AuthorizationV1().SelfSubjectAccessReviews().Create(ctx, &authorizationv1.SelfSubjectAccessReview{Spec: authorizationv1.SelfSubjectAccessReviewSpec{ResourceAttributes: &right}}, metav1.CreateOptions{})
			if err != nil || !review.Status.Allowed {
				return fmt.Errorf("%s %s: allowed %t, %w", right.Verb, right.Subresource, err == nil && review.Status.Allowed, err)
			}
		}
		return nil
	})
	if _, err := admin.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: team}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

func TestClaimStatus(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, release string
		arguments     []string
		shared        bool
	}{
		{name: "1.34", release: "1.34"},
		{name: "1.35", release: "1.35"},
		{name: "1.36", release: "1.36", shared: true},
		{name: "1.36 without rights of its own for drivers", release: "1.36", arguments: []string{"--feature-gates=DRAResourceClaimGranularStatusAuthorization=false"}},
		{name: "1.37", release: "1.37", shared: true},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := startServer(t, test.release, test.arguments...)
			agent, admin := installAgent(t, s), s.client(t, adminToken)
			s.makeTeam(t, agent, admin)
			w, n := startWriter(t, agent)
			gpu, nic := "hostler.dev node1/gpu gpu-0 ", "hostler.dev node1/nic nic-0 "
			if test.shared {
				nic += "shared "
			}

			c := allocate(t, admin, "one", nodeName, test.shared)
			w.Prepared(c, errors.New("the driver is dead"))
			refused := s.awaitStatus(t, admin, "one", theirs, gpu+"Ready=PrepareFailed", nic+"Ready=PrepareFailed")
			entry, attached := prepared(c)
			n.set(c.UID, entry, attached)
			w.Prepared(refused, nil)
			w.Attached(attach.Change{Claim: c.UID, Pod: "pod-a", Attached: true})
			up := s.awaitStatus(t, admin, "one", theirs, gpu+"Ready=Prepared", nic+"Ready=Prepared Attached=Attached net1 02:00:00:00:00:0a 192.0.2.7/24 2001:db8::7/64")
			n.set(c.UID, entry)
			w.Attached(attach.Change{Claim: c.UID, Pod: "pod-a"})
			down := s.awaitStatus(t, admin, "one", theirs, gpu+"Ready=Prepared", nic+"Ready=Prepared Attached=NotAttached")
			if a, b := readyOf(up, "nic-0"), readyOf(down, "nic-0"); !a.LastTransitionTime.Equal(&b.LastTransitionTime) {
				t.Errorf("the condition %v became %v though its status did not change", a, b)
			}
			// The claim stays allocated, for its next pod, say.
			n.set(c.UID, nil)
			w.Unprepared(c.UID)
			s.awaitStatus(t, admin, "one", theirs)

			// What a claim's devices were is gone with its allocation.
			n.set(c.UID, entry, attached)
			w.Prepared(c, nil)
			w.Attached(attach.Change{Claim: c.UID, Pod: "pod-a", Attached: true})
			s.awaitStatus(t, admin, "one", theirs, gpu+"Ready=Prepared", nic+"Ready=Prepared Attached=Attached net1 02:00:00:00:00:0a 192.0.2.7/24 2001:db8::7/64")
			_, now := statusOf(t, admin, "one")
			now.Status.Allocation, now.Status.ReservedFor = nil, nil
			if _, err := admin.ResourceV1().ResourceClaims(team).UpdateStatus(t.Context(), now, metav1.UpdateOptions{}); err != nil {
				t.Fatal(err)
			}
			s.awaitStatus(t, admin, "one")
			_, before := n.counts()
			n.set(c.UID, entry)
			w.Attached(attach.Change{Claim: c.UID, Pod: "pod-a", Err: errors.New("too late")})
			s.awaitWrites(t, n, before+1)
			s.awaitStatus(t, admin, "one")

			// A later claim of the same name is not touched, and what the agent said of it
			// itself stays, whatever is still to be said of the earlier one.
			second := allocate(t, admin, "two", nodeName, test.shared)
			if err := admin.ResourceV1().ResourceClaims(team).Delete(t.Context(), "two", metav1.DeleteOptions{}); err != nil {
				t.Fatal(err)
			}
			third := allocate(t, admin, "two", nodeName, test.shared)
			_, before = n.counts()
			w.Prepared(second, errors.New("the old one failed"))
			s.awaitWrites(t, n, before+1)
			s.awaitStatus(t, admin, "two", theirs)
			entry, attached = prepared(third)
			n.set(third.UID, entry, attached)
			w.Prepared(third, nil)
			w.Attached(attach.Change{Claim: third.UID, Pod: "pod-a", Attached: true})
			said := []string{theirs, gpu + "Ready=Prepared", nic + "Ready=Prepared Attached=Attached net1 02:00:00:00:00:0a 192.0.2.7/24 2001:db8::7/64"}
			s.awaitStatus(t, admin, "two", said...)
			_, before = n.counts()
			w.Prepared(second, errors.New("the old one failed again"))
			s.awaitWrites(t, n, before+1)
			s.awaitStatus(t, admin, "two", said...)
			if told, _ := n.counts(); len(told) > 0 {
				t.Errorf("an administrator was told %q", told)
			}
		})
	}
}

func readyOf(c *resourceapi.ResourceClaim, device string) metav1.Condition {
	for _, d := range c.Status.Devices {
		if d.Device == device {
			return *meta.FindStatusCondition(d.Conditions, "Ready")
		}
	}
	return metav1.Condition{}
}

// awaitWrites waits until so many writes were tried.
func (s *server) awaitWrites(t *testing.T, n *nodeSide, want int) {
	t.Helper()
	eventually(t, s.process, "the writes to be tried", func(context.Context) error {
		if _, writes := n.counts(); writes < want {
			return fmt.Errorf("%d of %d", writes, want)
		}
		return nil
	})
}

// An agent whose token was stolen cannot give devices away, nor speak for others.
func TestAgentsWriteNothingElseOfAClaim(t *testing.T) {
	t.Parallel()
	for _, release := range []string{"1.34", "1.35", "1.36", "1.37"} {
		t.Run(release, func(t *testing.T) {
			t.Parallel()
			s := startServer(t, release)
			agent, admin := installAgent(t, s), s.client(t, adminToken)
			s.makeTeam(t, agent, admin)
			allocate(t, admin, "ours", nodeName, false)
			allocate(t, admin, "others", otherNode, false)
			device := func(driver, pool, device string) string {
				return `{"driver":"` + driver + `","pool":"` + pool + `","device":"` + device + `","conditions":[{"type":"Ready","status":"False","reason":"Attack","message":"","lastTransitionTime":"2026-01-01T00:00:00Z"}]}`
			}
			// From 1.36 on most of it is refused before the policy is asked.
			refused := func(err error, by, before string) bool {
				return err != nil && (strings.Contains(err.Error(), by) || release >= "1.36" && before != "" && strings.Contains(err.Error(), before))
			}
			for _, write := range []struct{ what, claim, status, refusal, before string }{
				{"its own devices", "ours", `{"devices":[` + device("hostler.dev", "node1/gpu", "gpu-0") + `]}`, "", ""},
				{"devices of another node", "others", `{"devices":[` + device("hostler.dev", "node2/gpu", "gpu-0") + `]}`, "of that node", "[arbitrary-node:patch]"},
				{"devices of another driver", "ours", `{"devices":[` + device("example.com", "pool", "other-0") + `]}`, "of the driver hostler.dev", "resourceclaims/driver"},
				{"who may use the claim", "ours", `{"reservedFor":[{"resource":"pods","name":"b","uid":"pod-b"}]}`, "may not allocate or reserve", "resourceclaims/binding"},
			} {
				t.Run(write.what, func(t *testing.T) {
					eventually(t, s.process, "the answer", func(ctx context.Context) error { // policies come into force a moment after they are made
						body := `{"apiVersion":"resource.k8s.io/v1","kind":"ResourceClaim","metadata":{"name":"` + write.claim + `"},"status":` + write.status + `}`
						_, err := agent.ResourceV1().ResourceClaims(team).Patch(ctx, write.claim, types.ApplyPatchType, []byte(body),
							metav1.PatchOptions{FieldManager: "attack", Force: ptr.To(true), DryRun: []string{metav1.DryRunAll}}, "status")
						if write.refusal == "" {
							return err
						}
						if !refused(err, write.refusal, write.before) {
							return fmt.Errorf("it is \"%w\", want one that says %q", err, write.refusal)
						}
						return nil
					})
				})
			}
			free := `[{"op":"remove","path":"/status/allocation"},{"op":"remove","path":"/status/reservedFor"}]`
			if _, err := agent.ResourceV1().ResourceClaims(team).Patch(t.Context(), "ours", types.JSONPatchType, []byte(free), metav1.PatchOptions{}, "status"); !refused(err, "may not allocate or reserve", "resourceclaims/binding") {
				t.Errorf("deallocating a claim is answered with %v", err)
			}
			if _, err := agent.ResourceV1().ResourceClaims(team).Patch(t.Context(), "ours", types.MergePatchType, []byte(`{"metadata":{"labels":{"a":"b"}}}`), metav1.PatchOptions{}); err == nil {
				t.Error("an agent may change a claim itself")
			}
		})
	}
}

func TestMissingRightIsNamed(t *testing.T) {
	t.Parallel()
	s := startServer(t, "1.37")
	agent, admin := installAgent(t, s), s.client(t, adminToken)
	s.makeTeam(t, agent, admin)
	role, err := admin.RbacV1().ClusterRoles().Get(t.Context(), agentName, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	all := slices.Clone(role.Rules)
	role.Rules = slices.DeleteFunc(role.Rules, func(r rbacv1.PolicyRule) bool { return slices.Contains(r.Resources, "resourceclaims/driver") })
	if role, err = admin.RbacV1().ClusterRoles().Update(t.Context(), role, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	w, n := startWriter(t, agent)
	eventually(t, s.process, "the right to be gone", func(ctx context.Context) error {
		right := authorizationv1.ResourceAttributes{Verb: "associated-node:patch", Group: resourceapi.GroupName, Resource: "resourceclaims", Subresource: "driver", Name: publish.DriverName, Namespace: team}
		review, err := agent.AuthorizationV1().SelfSubjectAccessReviews().Create(ctx, &authorizationv1.SelfSubjectAccessReview{Spec: authorizationv1.SelfSubjectAccessReviewSpec{ResourceAttributes: &right}}, metav1.CreateOptions{})
		if err == nil && review.Status.Allowed {
			err = errors.New("still there")
		}
		return err
	})
	c := allocate(t, admin, "one", nodeName, false)
	w.Prepared(c, errors.New("the driver is dead"))
	eventually(t, s.process, "an administrator to be told", func(context.Context) error {
		told, _ := n.counts()
		if len(told) != 1 || !strings.Contains(told[0], `resourceclaims/driver`) || !strings.Contains(told[0], "associated-node:patch") {
			return fmt.Errorf("told %q", told)
		}
		return nil
	})
	role.Rules = all
	if _, err = admin.RbacV1().ClusterRoles().Update(t.Context(), role, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, s.process, "the status to be written once the right is there", func(context.Context) error {
		w.Review()
		if got, _ := statusOf(t, admin, "one"); !strings.Contains(got, "Ready=PrepareFailed") {
			return errors.New(got)
		}
		return nil
	})
}

func TestServersThatHaveNoDeviceStatusAreLeftAlone(t *testing.T) {
	t.Parallel()
	for release, gates := range map[string]string{
		"1.34": "DRAResourceClaimDeviceStatus=false",
		"1.36": "DRAResourceClaimDeviceStatus=false,DRADeviceBindingConditions=false,DRAResourceClaimGranularStatusAuthorization=false",
	} {
		t.Run(release, func(t *testing.T) {
			t.Parallel()
			s := startServer(t, release, "--feature-gates="+gates)
			agent, admin := installAgent(t, s), s.client(t, adminToken)
			s.makeTeam(t, agent, admin)
			w, n := startWriter(t, agent)
			c := allocate(t, admin, "first", nodeName, false)
			w.Prepared(c, errors.New("the driver is dead"))
			s.awaitWrites(t, n, 1)
			last := allocate(t, admin, "last", nodeName, false)
			for range 20 {
				w.Review()
			}
			w.Prepared(last, errors.New("the driver is dead"))
			s.awaitWrites(t, n, 2)
			if told, writes := n.counts(); writes != 2 || len(told) > 0 {
				t.Errorf("%d writes for two claims; told %q", writes, told)
			}
		})
	}
}
