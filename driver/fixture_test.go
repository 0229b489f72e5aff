package driver

import (
	"context"
	"errors"
	"fmt"
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
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	drapbv1 "k8s.io/kubelet/pkg/apis/dra/v1"

	"github.com/hostler-dev/hostler/api/v1alpha1"
	"github.com/hostler-dev/hostler/netattach"
	"github.com/hostler-dev/hostler/topology"
)

const node = "node-a"

type fakeAttacher struct{}

func (fakeAttacher) InUse(types.UID) (bool, error) { return false, nil }

func (fakeAttacher) InPods(types.UID) ([]netattach.DeviceState, error) { return nil, nil }

func (fakeAttacher) Release(context.Context, types.UID) error { return nil }

type fakeNetworks struct{}

func (fakeNetworks) Resolve(_ context.Context, wanted netattach.NetworkIntent, _ string) (netattach.NetworkIntent, error) {
	return wanted, errors.New("no networks here")
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
func (r *countingRecorder) ObserveStep(step, phase string, _ time.Duration, err error) {
	r.count(step+" "+phase, err)
}
func (r *countingRecorder) CountMended(what string) { r.count("mended "+what, nil) }
func (r *countingRecorder) SetDrift(what string, found int) {
	if found > 0 {
		r.count("drifted "+what, nil)
	}
}
func (r *countingRecorder) ObserveReconcile(_ time.Duration, err error) { r.count("reconcile", err) }
func (r *countingRecorder) ObservePublish(_ time.Duration, err error)   { r.count("publish", err) }

// machineOf has n GPUs and one NIC.
func machineOf(n int) *topology.Snapshot {
	s := &topology.Snapshot{BootID: "boot", Driver: topology.Driver{State: topology.DriverReady}, NICs: []topology.NIC{{
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
	front    *Front
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

func newDriver(t testing.TB, client *fake.Clientset, paths v1alpha1.PathsConfig, changes ...func(*Config)) (*Driver, *countingRecorder) {
	t.Helper()
	journal, err := OpenJournal(context.Background(), paths)
	if err != nil {
		t.Fatal(err)
	}
	recorder := &countingRecorder{}
	cfg := Config{
		NodeName: node, KubeClient: client, Paths: paths, BootID: "boot", Journal: journal,
		Attacher: fakeAttacher{}, Networks: fakeNetworks{}, Recorder: recorder, HealthInterval: 50 * time.Millisecond,
	}
	for _, change := range changes {
		change(&cfg)
	}
	d, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return d, recorder
}

// openFront is the kubelet's side of an agent in a pod of that UID.
func openFront(t testing.TB, client kubernetes.Interface, paths v1alpha1.PathsConfig, pod types.UID) *Front {
	t.Helper()
	if err := os.MkdirAll(paths.State, 0o750); err != nil {
		t.Fatal(err)
	}
	front, err := OpenFront(context.Background(), FrontConfig{NodeName: node, KubeClient: client, Paths: paths, PodUID: pod})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := front.Close(); err != nil {
			t.Error(err)
		}
	})
	return front
}

func start(t testing.TB, claims ...*resourceapi.ResourceClaim) *started {
	t.Helper()
	return startWith(t, func(*Config) {}, claims...)
}

// startWith starts a driver whose config is changed before.
func startWith(t testing.TB, change func(*Config), claims ...*resourceapi.ResourceClaim) *started {
	t.Helper()
	s := &started{client: fake.NewClientset(&v1.Node{ObjectMeta: metav1.ObjectMeta{Name: node, UID: "node-uid"}}), paths: pathsIn(t)}
	// The fake does not know generateName, which slices are created with, nor
	// resource versions, by which the library tells its own newest write from an
	// older one that the informer brings.
	var version atomic.Int64
	s.client.PrependReactor("create", "resourceslices", func(action clienttesting.Action) (bool, runtime.Object, error) {
		slice := action.(clienttesting.CreateAction).GetObject().(*resourceapi.ResourceSlice)
		slice.Name = fmt.Sprintf("%s%d", slice.GenerateName, version.Add(1))
		slice.ResourceVersion = fmt.Sprint(version.Load())
		return false, nil, nil
	})
	s.client.PrependReactor("update", "resourceslices", func(action clienttesting.Action) (bool, runtime.Object, error) {
		slice := action.(clienttesting.UpdateAction).GetObject().(*resourceapi.ResourceSlice)
		slice.ResourceVersion = fmt.Sprint(version.Add(1))
		return false, nil, nil
	})
	for _, c := range claims {
		if err := s.client.Tracker().Add(c); err != nil {
			t.Fatal(err)
		}
	}
	s.Driver, s.recorder = newDriver(t, s.client, s.paths, change, func(cfg *Config) {
		s.front = openFront(t, cfg.KubeClient, s.paths, "")
		cfg.Front = s.front
	})
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Errorf("Run ended with %v", err)
		}
	})
	<-s.front.served
	socket := filepath.Join(s.paths.KubeletPlugins, Name, "dra.sock")
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
