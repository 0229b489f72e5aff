package metrics

import (
	"context"
	"net"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"k8s.io/utils/clock"

	podresources "k8s.io/kubelet/pkg/apis/podresources/v1"
)

// fakeKubelet serves the pod-resources API on a unix socket.
type fakeKubelet struct {
	podresources.UnimplementedPodResourcesListerServer
	response atomic.Pointer[podresources.ListPodResourcesResponse]
	calls    atomic.Int64
}

func (f *fakeKubelet) List(context.Context, *podresources.ListPodResourcesRequest) (*podresources.ListPodResourcesResponse, error) {
	f.calls.Add(1)
	return f.response.Load(), nil
}

func serveKubelet(t *testing.T, response *podresources.ListPodResourcesResponse) (*fakeKubelet, string) {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "kubelet.sock")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	fake := &fakeKubelet{}
	fake.response.Store(response)
	server := grpc.NewServer()
	podresources.RegisterPodResourcesListerServer(server, fake)
	go func() { _ = server.Serve(listener) }() // ends with Stop
	t.Cleanup(server.Stop)
	return fake, socket
}

func podWith(namespace, name string, containers ...*podresources.ContainerResources) *podresources.PodResources {
	return &podresources.PodResources{Namespace: namespace, Name: name, Containers: containers}
}

func containerWith(name, driver, claim, device string) *podresources.ContainerResources {
	return &podresources.ContainerResources{Name: name, DynamicResources: []*podresources.DynamicResource{{
		ClaimNamespace: "team-a", ClaimName: claim,
		ClaimResources: []*podresources.ClaimResource{{DriverName: driver, PoolName: "node1/gpu", DeviceName: device}},
	}}}
}

func TestContainersOf(t *testing.T) {
	got := containersOf(&podresources.ListPodResourcesResponse{PodResources: []*podresources.PodResources{
		podWith("team-a", "train-0",
			containerWith("sidecar", "hostler.dev", "claim", "gpu-0"), containerWith("main", "hostler.dev", "claim", "gpu-0"),
			containerWith("stranger", "gpu.example.com", "claim", "gpu-0")),
		podWith("team-a", "train-1", containerWith("main", "hostler.dev", "claim", "gpu-0")),
	}}, "hostler.dev")
	want := Containers{
		{"team-a", "train-0", "team-a", "claim", "node1/gpu", "gpu-0"}: {"main", "sidecar"},
		{"team-a", "train-1", "team-a", "claim", "node1/gpu", "gpu-0"}: {"main"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("containers (-want +got):\n%s", diff)
	}
}

// More than gRPC's default limit of 4 MiB, as on a node with very many pods.
func TestKubeletWithALongAnswer(t *testing.T) {
	padding := strings.Repeat("x", 5<<20)
	_, socket := serveKubelet(t, &podresources.ListPodResourcesResponse{PodResources: []*podresources.PodResources{
		podWith("team-a", padding), podWith("team-a", "train-0", containerWith("main", "hostler.dev", "claim", "gpu-0")),
	}})
	answered := make(chan struct{}, 1)
	k := &kubelet{socket: socket, driverName: "hostler.dev", clock: clock.RealClock{}, ask: make(chan struct{}, 1), answered: func() { signal(answered) }}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- k.run(ctx) }()
	select {
	case <-answered:
	case <-time.After(20 * time.Second):
		t.Error("no answer within 20 s")
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if got := k.containers().of(Pod{Namespace: "team-a", Name: "train-0"}, Holder{ClaimNamespace: "team-a", ClaimName: "claim", Pool: "node1/gpu", Device: "gpu-0"}); len(got) != 1 {
		t.Errorf("containers: %v", got)
	}
}

func TestLedgerChangeHasTheKubeletAskedAgainAndAScrapeDoesNot(t *testing.T) {
	fake, socket := serveKubelet(t, &podresources.ListPodResourcesResponse{})
	b := newBench(t)
	b.kubelet.socket, b.cfg.PodResources = socket, socket
	b.kubelet.interval = time.Hour // simulated time runs away from a busy machine
	b.run(t)
	b.pass(t, "the kubelet is asked once", func(*View) bool { return b.kubelet.containers() != nil })
	calls := fake.calls.Load()
	for range 10 {
		scrape(t, b, "")
	}
	if got := fake.calls.Load(); got != calls {
		t.Errorf("ten scrapes asked the kubelet %d times", got-calls)
	}
	fake.response.Store(&podresources.ListPodResourcesResponse{PodResources: []*podresources.PodResources{
		podWith("team-a", "train-0", containerWith("main", "hostler.dev", "claim", "gpu-0")),
	}})
	b.ledger.set(b.ledger.Holders()...)
	b.pass(t, "the new container is known", func(v *View) bool { return len(v.Containers) == 1 })
}

func TestKubeletThatIsAwayCostsTheContainerNamesOnly(t *testing.T) {
	b := newBench(t)
	b.kubelet.socket, b.cfg.PodResources = filepath.Join(t.TempDir(), "absent.sock"), "set"
	b.ledger.holders = holders()
	b.run(t)
	v := b.pass(t, "every device is sampled", allSampled)
	if text := string(appendFamilies(nil, specification(), v)); !strings.Contains(text, `pod="train-0",namespace="team-a",pod_uid="pod-uid-1",container="",allocated_device="gpu-0000-17-00-0",gpu="gpu-0000-17-00-0"} 1`) {
		t.Errorf("the claim is not attributed to its pod:\n%s", text)
	}
}
