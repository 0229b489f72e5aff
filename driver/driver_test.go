package driver

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/dynamic-resource-allocation/kubeletplugin"
	"k8s.io/dynamic-resource-allocation/resourceslice"
	drahealthv1 "k8s.io/kubelet/pkg/apis/dra-health/v1"
	drapbv1 "k8s.io/kubelet/pkg/apis/dra/v1"
	drapbv1beta1 "k8s.io/kubelet/pkg/apis/dra/v1beta1"
	registerapi "k8s.io/kubelet/pkg/apis/pluginregistration/v1"

	"github.com/hostler-dev/hostler/driver/publish"
	"github.com/hostler-dev/hostler/topology"
)

func TestKubeletPreparesAndUnprepares(t *testing.T) {
	s := start(t, claimOn("a", publish.GPUPool(node), "gpu-0000-20-00-0"), claimOn("gone", publish.GPUPool(node), "gpu-0000-99-00-0"))
	s.SetSnapshot(machineOf(2))
	got := s.prepare(t, "uid-a", "a")
	if got.Error != "" || len(got.Devices) != 1 || got.Devices[0].PoolName != "node-a/gpu" || got.Devices[0].RequestNames[0] != "r" ||
		fmt.Sprint(got.Devices[0].CdiDeviceIds) != "[hostler.dev/claim=uid-a-gpu-0000-20-00-0 hostler.dev/claim=uid-a-gpu-driver]" {
		t.Errorf("answer %v", got)
	}
	if got := s.prepare(t, "uid-gone", "gone"); !strings.Contains(got.Error, "GPU gpu-0000-99-00-0: the node no longer has the device") {
		t.Errorf("a device that is gone: %q", got.Error)
	}
	specs, _ := s.directory.List()
	if fmt.Sprint(specs) != "[uid-a]" {
		t.Errorf("specs %v", specs)
	}
	// An older kubelet takes it back.
	old, err := drapbv1beta1.NewDRAPluginClient(s.conn).NodeUnprepareResources(context.Background(), &drapbv1beta1.NodeUnprepareResourcesRequest{
		Claims: []*drapbv1beta1.Claim{{Namespace: "team", Name: "a", Uid: "uid-a"}, {Namespace: "team", Name: "never", Uid: "never-seen"}},
	})
	if err != nil || len(old.Claims) != 2 || old.Claims["uid-a"].Error+old.Claims["never-seen"].Error != "" {
		t.Errorf("unprepare: %v, %v", old, err)
	}
	if specs, _ := s.directory.List(); len(specs) != 0 {
		t.Errorf("specs %v are left", specs)
	}
	if seen := fmt.Sprint(s.recorder.seen["prepare ok=true"], s.recorder.seen["prepare ok=false"], s.recorder.seen["unprepare ok=true"]); seen != "1 1 2" {
		t.Errorf("recorded %v", s.recorder.seen)
	}
}

func TestPrepareWaitsForTheFirstSnapshot(t *testing.T) {
	s := start(t, claimOn("a", publish.GPUPool(node), "gpu-0000-20-00-0"))
	answer := make(chan *drapbv1.NodePrepareResourceResponse)
	go func() { answer <- s.prepare(t, "uid-a", "a") }()
	select {
	case got := <-answer:
		t.Fatalf("answered before the machine was looked at: %v", got)
	case <-time.After(50 * time.Millisecond):
	}
	s.SetSnapshot(machineOf(1))
	if got := <-answer; got.Error != "" {
		t.Error(got.Error)
	}
}

func TestPublishedSlicesFollowTheMachine(t *testing.T) {
	s := start(t)
	s.SetSnapshot(machineOf(2))
	const all = "gpu-0000-20-00-0 gpu-0000-21-00-0 nic-0000-18-00-0 egress"
	eventually(t, "both GPUs are published", func() bool { return s.published(t) == all })
	s.SetVerdicts([]publish.Taint{{Device: "gpu-0000-21-00-0", Key: "hostler.dev/xid", Value: "79", Effect: resourceapi.DeviceTaintEffectNoSchedule}}, nil)
	eventually(t, "one is tainted", func() bool { return s.published(t) == strings.Replace(all, "gpu-0000-21", "!gpu-0000-21", 1) })
	s.SetVerdicts(nil, nil)
	eventually(t, "it is healed", func() bool { return s.published(t) == all })
	s.SetSnapshot(machineOf(1))
	eventually(t, "one is unplugged", func() bool { return s.published(t) == "gpu-0000-20-00-0 nic-0000-18-00-0 egress" })
}

// countingPublisher counts what would be written.
type countingPublisher struct {
	published chan resourceslice.DriverResources
}

func (p countingPublisher) PublishResources(_ context.Context, r resourceslice.DriverResources) error {
	p.published <- r
	return nil
}

func TestUnchangedMachineWritesNothing(t *testing.T) {
	d, _ := newDriver(t, fake.NewClientset(), pathsIn(t))
	p := countingPublisher{make(chan resourceslice.DriverResources, 100)}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { d.publish(ctx, p); close(done) }()
	d.SetSnapshot(machineOf(2))
	<-p.published
	for range 20 {
		d.SetSnapshot(machineOf(2))
		d.SetVerdicts(nil, []DeviceHealth{{Device: "gpu-0000-20-00-0", Health: kubeletplugin.HealthStatusHealthy}})
	}
	d.SetSnapshot(machineOf(3))
	if r := <-p.published; len(r.Pools[publish.GPUPool(node)].Slices[0].Devices) != 3 {
		t.Error("an unchanged machine was published again")
	}
	stop()
	<-done
}

// Slices of pools that the library is not told of stay for half a minute; with pairs
// switched on or off they would offer a GPU twice.
func TestPoolsThatAreNotInUseArePublishedEmpty(t *testing.T) {
	for name, test := range map[string]struct {
		pairs       bool
		full, empty []string
	}{
		"without pairs": {false, []string{publish.GPUPool(node), publish.NICPool(node)}, []string{publish.DevicePool(node)}},
		"with pairs":    {true, []string{publish.DevicePool(node)}, []string{publish.GPUPool(node), publish.NICPool(node)}},
	} {
		t.Run(name, func(t *testing.T) {
			d, _ := newDriver(t, fake.NewClientset(), pathsIn(t), func(c *Config) { c.Publish.CompositeDevices = test.pairs })
			p := countingPublisher{make(chan resourceslice.DriverResources, 1)}
			go d.publish(t.Context(), p)
			d.SetSnapshot(machineOf(1))
			pools := (<-p.published).Pools
			for _, pool := range test.full {
				if len(pools[pool].Slices) == 0 {
					t.Errorf("%s has no slices", pool)
				}
			}
			for _, pool := range test.empty {
				if contents, told := pools[pool]; !told || len(contents.Slices) != 0 {
					t.Errorf("%s: told %t, with %d slices", pool, told, len(contents.Slices))
				}
			}
		})
	}
}

func TestHealthReachesTheKubelet(t *testing.T) {
	s := start(t)
	s.SetSnapshot(machineOf(1))
	stream, err := drahealthv1.NewDRAResourceHealthClient(s.conn).NodeWatchResources(t.Context(), &drahealthv1.NodeWatchResourcesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	await := func(what string, health drahealthv1.HealthStatus, message string) {
		t.Helper()
		for range 100 {
			report, err := stream.Recv()
			if err != nil {
				t.Fatal(err)
			}
			for _, d := range report.Devices {
				if d.Device.DeviceName == "gpu-0000-20-00-0" && d.Device.PoolName == "node-a/gpu" && d.Health == health && d.Message == message {
					if len(report.Devices) != 3 {
						t.Errorf("the report covers %d devices, want all 3", len(report.Devices))
					}
					return
				}
			}
		}
		t.Fatalf("never reported: %s", what)
	}
	await("nobody has judged yet", drahealthv1.HealthStatus_UNKNOWN, "")
	s.SetVerdicts(nil, []DeviceHealth{{Device: "gpu-0000-20-00-0", Health: kubeletplugin.HealthStatusUnhealthy, Message: "XID 79"}})
	await("it broke", drahealthv1.HealthStatus_UNHEALTHY, "XID 79")
	s.SetVerdicts(nil, nil)
	await("it healed", drahealthv1.HealthStatus_HEALTHY, "")
	await("and again, without a change", drahealthv1.HealthStatus_HEALTHY, "")
}

func TestClaimsDeletedWhileDownAreReleased(t *testing.T) {
	s := start(t, claimOn("new", publish.GPUPool(node), "gpu-0000-20-00-0"))
	s.SetSnapshot(machineOf(1))
	eventually(t, "the first reconciliation is over", func() bool {
		s.recorder.mu.Lock()
		defer s.recorder.mu.Unlock()
		return s.recorder.seen["reconcile ok=true"] > 0
	})
	// A claim that the API server does not know (any more) holds the GPU.
	if _, err := s.runner.Prepare(context.Background(), s.runner.Arrive(), claimOn("old", publish.GPUPool(node), "gpu-0000-20-00-0")); err != nil {
		t.Fatal(err)
	}
	if got := s.prepare(t, "uid-new", "new"); got.Error != "" {
		t.Fatalf("answer %q, want the deleted claim's GPU", got.Error)
	}
}

// With a forced deletion the scheduler gives the device away before the kubelet
// has unprepared the old claim.
func TestPrepareWaitsForTheLastHolder(t *testing.T) {
	s := start(t, claimOn("old", publish.GPUPool(node), "gpu-0000-20-00-0"), claimOn("new", publish.GPUPool(node), "gpu-0000-20-00-0"))
	s.SetSnapshot(machineOf(1))
	if got := s.prepare(t, "uid-old", "old"); got.Error != "" {
		t.Fatal(got.Error)
	}
	answer := make(chan *drapbv1.NodePrepareResourceResponse, 1)
	go func() { answer <- s.prepare(t, "uid-new", "new") }()
	select {
	case got := <-answer:
		t.Fatalf("answer %v while the GPU is held", got)
	case <-time.After(100 * time.Millisecond): // long enough for a refusal
	}
	if _, err := drapbv1.NewDRAPluginClient(s.conn).NodeUnprepareResources(context.Background(), &drapbv1.NodeUnprepareResourcesRequest{
		Claims: []*drapbv1.Claim{{Namespace: "team", Name: "old", Uid: "uid-old"}},
	}); err != nil {
		t.Fatal(err)
	}
	if got := <-answer; got.Error != "" {
		t.Errorf("answer %q after the GPU was let go", got.Error)
	}
}

// So does discovery, which may see the old pod's end after the kubelet has told it.
func TestPrepareWaitsForANICThatIsNotHomeYet(t *testing.T) {
	home, away := machineOf(0), machineOf(0)
	away.NICs[0].Link = nil
	s := start(t, claimOn("c", publish.NICPool(node), home.NICs[0].Name))
	s.SetSnapshot(away)
	answer := make(chan *drapbv1.NodePrepareResourceResponse, 1)
	go func() { answer <- s.prepare(t, "uid-c", "c") }()
	select {
	case got := <-answer:
		t.Fatalf("answer %v while the NIC is away", got)
	case <-time.After(100 * time.Millisecond): // long enough for a refusal
	}
	s.SetSnapshot(home)
	if got := <-answer; got.Error != "" {
		t.Errorf("answer %q after the NIC was seen at home", got.Error)
	}
}

// A claim that came and went between two looks at the ledger had its NIC all the same.
func TestNICThatWasHeldForAMoment(t *testing.T) {
	home, away := machineOf(0), machineOf(0)
	away.NICs[0].Link = nil
	name := home.NICs[0].Name
	s := start(t, claimOn("old", publish.NICPool(node), name), claimOn("new", publish.NICPool(node), name))
	s.SetSnapshot(home)
	if got := s.prepare(t, "uid-old", "old"); got.Error != "" {
		t.Fatal(got.Error)
	}
	if _, err := drapbv1.NewDRAPluginClient(s.conn).NodeUnprepareResources(context.Background(), &drapbv1.NodeUnprepareResourcesRequest{
		Claims: []*drapbv1.Claim{{Namespace: "team", Name: "old", Uid: "uid-old"}},
	}); err != nil {
		t.Fatal(err)
	}
	s.SetSnapshot(away) // as discovery saw it in the old pod
	if got := s.prepare(t, "uid-new", "new"); got.Error != "" {
		t.Errorf("answer %q for a NIC that a claim has just given back", got.Error)
	}
}

func TestNICOnItsWayHome(t *testing.T) {
	home, away := machineOf(0), machineOf(0)
	away.NICs[0].Link = nil
	name := home.NICs[0].Name
	ledger := map[string]topology.NIC{name: home.NICs[0]}
	begin := time.Unix(1000, 0)
	for _, test := range []struct {
		name     string
		snapshot *topology.Snapshot
		after    time.Duration
		held     bool
	}{
		{"given back, and not seen at home yet", away, time.Second, true},
		{"given back, and seen", home, time.Second, false},
		{"never seen again", away, time.Minute, false},
	} {
		m := &machine{changed: make(chan struct{}), snapshot: away}
		if m.held(ledger, begin); len(m.held(ledger, begin)) != 1 {
			t.Errorf("%s: not held while a claim holds it", test.name)
		}
		m.held(nil, begin)
		m.snapshot = test.snapshot
		if got := m.held(nil, begin.Add(test.after)); (len(got) == 1) != test.held {
			t.Errorf("%s: held %v", test.name, got)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	for name, test := range map[string]struct {
		node, want string
	}{
		"a node name that is no DNS name": {"Node_A", `node name "Node_A"`},
		"a node name that is too long":    {strings.Repeat("a", 60) + strings.Repeat("."+strings.Repeat("b", 60), 3) + ".ccccccccccc", "253"},
	} {
		_, err := New(Config{NodeName: test.node})
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %q", name, err, test.want)
		}
	}
}

func TestRegistered(t *testing.T) {
	s := start(t)
	if err := s.front.Registered(); err == nil || !strings.Contains(err.Error(), s.paths.KubeletRegistry) {
		t.Errorf("before the kubelet came: %v; want its directory named", err)
	}
	conn, err := grpc.NewClient("unix://"+filepath.Join(s.paths.KubeletRegistry, Name+"-reg.sock"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	kubelet := registerapi.NewRegistrationClient(conn)
	info, err := kubelet.GetInfo(t.Context(), &registerapi.InfoRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(info.SupportedVersions, " "); !strings.Contains(got, "v1.DRAPlugin v1beta1.DRAPlugin") || !strings.Contains(got, "v1.DRAResourceHealth") {
		t.Errorf("the kubelet is offered %q", got)
	}
	if _, err := kubelet.NotifyRegistrationStatus(t.Context(), &registerapi.RegistrationStatus{Error: "too old"}); err == nil {
		t.Error("a refusal was taken for an acceptance")
	}
	if err := s.front.Registered(); err == nil || !strings.Contains(err.Error(), "too old") {
		t.Errorf("after the kubelet refused: %v", err)
	}
	if _, err := kubelet.NotifyRegistrationStatus(t.Context(), &registerapi.RegistrationStatus{PluginRegistered: true}); err != nil {
		t.Fatal(err)
	}
	if err := s.front.Registered(); err != nil {
		t.Errorf("after the kubelet accepted: %v", err)
	}
}

func TestOnlyReturnedNICsAreLookedFor(t *testing.T) {
	d, _ := newDriver(t, fake.NewClientset(), pathsIn(t))
	rescans := 0
	d.cfg.Rescan = func() { rescans++ }
	d.SetSnapshot(machineOf(1))
	for _, step := range []struct {
		claim *resourceapi.ResourceClaim
		want  int
	}{
		{claimOn("gpu", publish.GPUPool(node), d.machine.now().GPUs[0].Name), 0},
		{claimOn("nic", publish.NICPool(node), d.machine.now().NICs[0].Name), 1},
	} {
		results, err := d.PrepareResourceClaims(t.Context(), []*resourceapi.ResourceClaim{step.claim})
		if err = errors.Join(err, results[step.claim.UID].Err); err != nil {
			t.Fatal(err)
		}
		undone, err := d.UnprepareResourceClaims(t.Context(), []kubeletplugin.NamespacedObject{{UID: step.claim.UID}})
		if err = errors.Join(err, undone[step.claim.UID]); err != nil {
			t.Fatal(err)
		}
		if rescans != step.want {
			t.Errorf("after a claim on a %s the machine was read %d times, want %d", step.claim.Name, rescans, step.want)
		}
	}
}

// The kubelet prepares a claim for each pod that uses it, and unprepares it once, after the last.
func TestClaimSharedByPodsIsPreparedOnce(t *testing.T) {
	c := claimOn("a", publish.GPUPool(node), "gpu-0000-20-00-0")
	c.Status.Allocation.Devices.Results[0].ShareID = new(types.UID("a671734a-e8e5-11e4-8fde-42010af09327"))
	s := start(t, c)
	s.SetSnapshot(machineOf(1))
	first := s.prepare(t, c.UID, c.Name)
	raw, err := os.ReadFile(s.directory.File(c.UID))
	if err != nil || first.Error != "" || len(first.Devices) != 1 || *first.Devices[0].ShareId != string(*c.Status.Allocation.Devices.Results[0].ShareID) {
		t.Fatalf("answer %v, %v", first, err)
	}
	c = c.DeepCopy()
	c.Status.ReservedFor = append(c.Status.ReservedFor, resourceapi.ResourceClaimConsumerReference{Resource: "pods", Name: "second", UID: "pod-second"})
	if err := s.client.Tracker().Update(resourceapi.SchemeGroupVersion.WithResource("resourceclaims"), c, c.Namespace); err != nil {
		t.Fatal(err)
	}
	second := s.prepare(t, c.UID, c.Name)
	if second.String() != first.String() {
		t.Errorf("the second pod gets %v, the first got %v", second, first)
	}
	entry := s.cfg.Journal.Entry(c.UID)
	if len(entry.Pods) != 2 || len(s.cfg.Journal.Entries()) != 1 {
		t.Errorf("the journal has pods %v", entry.Pods)
	}
	now, err := os.ReadFile(s.directory.File(c.UID))
	if devices := func(spec []byte) string { _, after, _ := strings.Cut(string(spec), `"devices":[`); return after }; err != nil || devices(now) != devices(raw) || devices(now) == "" {
		t.Errorf("the containers of the first pod would get something else now: %s, %v", now, err)
	}
	if err := unprepareOnly(s.Driver, c); err != nil || len(s.cfg.Journal.Entries()) != 0 {
		t.Errorf("%v, %d entries", err, len(s.cfg.Journal.Entries()))
	}
}
