package driver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	v1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/dynamic-resource-allocation/kubeletplugin"
	"k8s.io/dynamic-resource-allocation/resourceslice"
	drahealthv1 "k8s.io/kubelet/pkg/apis/dra-health/v1"
	drapbv1 "k8s.io/kubelet/pkg/apis/dra/v1"
	drapbv1beta1 "k8s.io/kubelet/pkg/apis/dra/v1beta1"

	"github.com/hostler-dev/hostler/api/v1alpha1"
	"github.com/hostler-dev/hostler/driver/publish"
	"github.com/hostler-dev/hostler/netattach"
	"github.com/hostler-dev/hostler/topology"
)

const node = "node-a"

type fakeAttacher struct{}

func (fakeAttacher) Release(context.Context, types.UID) error { return nil }

type fakeNetworks struct{}

func (fakeNetworks) Resolve(context.Context, string, string, string) (netattach.NetworkIntent, error) {
	return netattach.NetworkIntent{}, errors.New("no networks here")
}

// countingRecorder counts observations by result.
type countingRecorder struct {
	mu   sync.Mutex
	seen map[string]int
}

func (r *countingRecorder) count(what string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.seen == nil {
		r.seen = map[string]int{}
	}
	r.seen[fmt.Sprintf("%s ok=%v", what, err == nil)]++
}

func (r *countingRecorder) ObservePrepare(_ time.Duration, err error)   { r.count("prepare", err) }
func (r *countingRecorder) ObserveUnprepare(_ time.Duration, err error) { r.count("unprepare", err) }
func (r *countingRecorder) ObserveReconcile(err error)                  { r.count("reconcile", err) }

// machineOf has n GPUs and one NIC.
func machineOf(n int) *topology.Snapshot {
	s := &topology.Snapshot{BootID: "boot", NICs: []topology.NIC{{
		Name: "nic-0000-18-00-0", Kind: topology.PF, Link: &topology.Link{Name: "eth1"}, Placement: topology.Placement{PCI: "0000:18:00.0"},
	}}}
	for i := range n {
		pci := fmt.Sprintf("0000:%02x:00.0", 0x20+i)
		s.GPUs = append(s.GPUs, topology.GPU{Name: topology.GPUName(pci), Minor: i, UUID: "GPU-" + pci, Placement: topology.Placement{PCI: pci}})
	}
	return s
}

func claimOn(name, pool, device string) *resourceapi.ResourceClaim {
	return &resourceapi.ResourceClaim{
		ObjectMeta: metav1.ObjectMeta{Namespace: "team", Name: name, UID: types.UID("uid-" + name)},
		Status: resourceapi.ResourceClaimStatus{
			ReservedFor: []resourceapi.ResourceClaimConsumerReference{{Resource: "pods", Name: name, UID: types.UID("pod-" + name)}},
			Allocation: &resourceapi.AllocationResult{Devices: resourceapi.DeviceAllocationResult{Results: []resourceapi.DeviceRequestAllocationResult{
				{Request: "r", Driver: Name, Pool: pool, Device: device},
			}}},
		},
	}
}

// started is a driver that serves, and the kubelet's side of its socket.
type started struct {
	*Driver
	client   *fake.Clientset
	recorder *countingRecorder
	paths    v1alpha1.PathsConfig
	conn     *grpc.ClientConn
}

func pathsIn(t testing.TB) v1alpha1.PathsConfig {
	t.Helper()
	// Not t.TempDir: a socket's path is limited to 107 characters.
	directory, err := os.MkdirTemp("", "hostler")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(directory); err != nil {
			t.Error(err)
		}
	})
	in := func(name string) string { return filepath.Join(directory, name) }
	for _, d := range []string{in("dev"), in("registry")} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 8 {
		if err := os.WriteFile(filepath.Join(in("dev"), fmt.Sprintf("nvidia%d", i)), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return v1alpha1.PathsConfig{
		Dev: in("dev"), HostDev: "/dev", DriverRoot: directory, HostDriverRoot: "/", CDI: in("cdi"), State: in("state"), Run: "/run/hostler",
		Gate: "/opt/gate", CDIHook: in("no-hook"), KubeletPlugins: in("plugins"), KubeletRegistry: in("registry"),
	}
}

func newDriver(t testing.TB, client *fake.Clientset, paths v1alpha1.PathsConfig) (*Driver, *countingRecorder) {
	t.Helper()
	journal, err := OpenJournal(context.Background(), paths)
	if err != nil {
		t.Fatal(err)
	}
	recorder := &countingRecorder{}
	d, err := New(Config{
		NodeName: node, KubeClient: client, Paths: paths, BootID: "boot", Journal: journal,
		Attacher: fakeAttacher{}, Networks: fakeNetworks{}, Recorder: recorder, HealthInterval: 50 * time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	return d, recorder
}

func start(t testing.TB, claims ...*resourceapi.ResourceClaim) *started {
	t.Helper()
	s := &started{client: fake.NewClientset(&v1.Node{ObjectMeta: metav1.ObjectMeta{Name: node, UID: "node-uid"}}), paths: pathsIn(t)}
	// The fake does not know generateName, which slices are created with.
	var created atomic.Int64
	s.client.PrependReactor("create", "resourceslices", func(action clienttesting.Action) (bool, runtime.Object, error) {
		slice := action.(clienttesting.CreateAction).GetObject().(*resourceapi.ResourceSlice)
		slice.Name = fmt.Sprintf("%s%d", slice.GenerateName, created.Add(1))
		return false, nil, nil
	})
	for _, c := range claims {
		if err := s.client.Tracker().Add(c); err != nil {
			t.Fatal(err)
		}
	}
	s.Driver, s.recorder = newDriver(t, s.client, s.paths)
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Errorf("Run ended with %v", err)
		}
	})
	socket := filepath.Join(s.paths.KubeletPlugins, Name, "dra.sock")
	eventually(t, "the socket is there", func() bool {
		c, err := net.Dial("unix", socket)
		if err == nil {
			_ = c.Close()
		}
		return err == nil
	})
	var err error
	if s.conn, err = grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials())); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.conn.Close() })
	return s
}

func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !holds(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}

// published are the names of the devices in the API server, with "!" before tainted ones.
func (s *started) published(t testing.TB) string {
	t.Helper()
	list, err := s.client.ResourceV1().ResourceSlices().List(context.Background(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, pool := range []string{"gpu", "nic", "egress"} {
		for _, slice := range list.Items {
			if slice.Spec.Pool.Name != node+"/"+pool {
				continue
			}
			for _, d := range slice.Spec.Devices {
				if len(d.Taints) > 0 {
					d.Name = "!" + d.Name
				}
				names = append(names, d.Name)
			}
		}
	}
	return strings.Join(names, " ")
}

func (s *started) prepare(t testing.TB, uid types.UID, name string) *drapbv1.NodePrepareResourceResponse {
	t.Helper()
	answer, err := drapbv1.NewDRAPluginClient(s.conn).NodePrepareResources(context.Background(), &drapbv1.NodePrepareResourcesRequest{
		Claims: []*drapbv1.Claim{{Namespace: "team", Name: name, Uid: string(uid)}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return answer.Claims[string(uid)]
}

func TestKubeletPreparesAndUnprepares(t *testing.T) {
	s := start(t, claimOn("a", publish.GPUPool(node), "gpu-0000-20-00-0"), claimOn("gone", publish.GPUPool(node), "gpu-0000-99-00-0"))
	s.SetSnapshot(machineOf(2))
	got := s.prepare(t, "uid-a", "a")
	if got.Error != "" || len(got.Devices) != 1 || got.Devices[0].PoolName != "node-a/gpu" || got.Devices[0].RequestNames[0] != "r" ||
		fmt.Sprint(got.Devices[0].CdiDeviceIds) != "[hostler.dev/claim=uid-a-gpu-driver hostler.dev/claim=uid-a-gpu-0000-20-00-0]" {
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
	if got := s.prepare(t, "uid-new", "new"); !strings.Contains(got.Error, "already held by claim team/old") {
		t.Fatalf("answer %q", got.Error)
	}
	eventually(t, "the kubelet's next try succeeds", func() bool { return s.prepare(t, "uid-new", "new").Error == "" })
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
		node, plugins, want string
	}{
		"a node name that is no DNS name": {"Node_A", "/p", `node name "Node_A"`},
		"a node name that is too long":    {strings.Repeat("a", 60) + strings.Repeat("."+strings.Repeat("b", 60), 3) + ".ccccccccccc", "/p", "253"},
		"a socket path that is too long":  {node, "/" + strings.Repeat("p", 100), "107 characters"},
	} {
		_, err := New(Config{NodeName: test.node, Paths: v1alpha1.PathsConfig{KubeletPlugins: test.plugins}})
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %q", name, err, test.want)
		}
	}
}
