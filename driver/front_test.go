package driver

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"
	drapbv1 "k8s.io/kubelet/pkg/apis/dra/v1"
	registerapi "k8s.io/kubelet/pkg/apis/pluginregistration/v1"

	"github.com/hostler-dev/hostler/api/v1alpha1"
	"github.com/hostler-dev/hostler/driver/publish"
)

func dial(t *testing.T, socket string) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// register does the kubelet's part and returns a connection to the plugin.
func register(t *testing.T, paths v1alpha1.PathsConfig, pod types.UID) *grpc.ClientConn {
	t.Helper()
	kubelet := registerapi.NewRegistrationClient(dial(t, filepath.Join(paths.KubeletRegistry, Name+"-"+string(pod)+"-reg.sock")))
	info, err := kubelet.GetInfo(t.Context(), &registerapi.InfoRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := kubelet.NotifyRegistrationStatus(t.Context(), &registerapi.RegistrationStatus{PluginRegistered: true}); err != nil {
		t.Fatal(err)
	}
	return dial(t, info.Endpoint)
}

func call(conn *grpc.ClientConn, name string) <-chan error {
	answer := make(chan error, 1)
	go func() {
		got, err := drapbv1.NewDRAPluginClient(conn).NodePrepareResources(context.Background(), &drapbv1.NodePrepareResourcesRequest{
			Claims: []*drapbv1.Claim{{Namespace: "team", Name: name, Uid: "uid-" + name}},
		}, grpc.WaitForReady(true))
		if err == nil && got.Claims["uid-"+name].Error != "" {
			err = errors.New(got.Claims["uid-"+name].Error)
		}
		answer <- err
	}()
	return answer
}

// inFlight waits until the front has so many calls.
func inFlight(t *testing.T, f *Front, n int) {
	t.Helper()
	eventually(t, "the calls are in flight", func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		return f.calls == n
	})
}

// Two agents on a node: the kubelet calls both, and no call is lost or cut off.
func TestSuccessorIsRegisteredBesideTheActiveAgent(t *testing.T) {
	client, paths := fake.NewClientset(), pathsIn(t)
	for name, gpu := range map[string]string{"a": "gpu-0000-20-00-0", "b": "gpu-0000-21-00-0"} {
		must(t, client.Tracker().Add(claimOn(name, publish.GPUPool(node), gpu)))
	}
	oldFront := openFront(t, client, paths, "pod-1")
	oldDriver, _ := newDriver(t, client, paths, func(cfg *Config) { cfg.Front = oldFront })
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- oldDriver.Run(ctx) }()
	atOld := call(register(t, paths, "pod-1"), "a") // waits for the first snapshot
	inFlight(t, oldFront, 1)

	newFront := openFront(t, client, paths, "pod-2")
	if err := newFront.Registered(); err == nil || !strings.Contains(err.Error(), paths.KubeletRegistry) {
		t.Errorf("before the kubelet came: %v", err)
	}
	atNew := call(register(t, paths, "pod-2"), "b")
	if err := newFront.Registered(); err != nil {
		t.Errorf("after the kubelet came: %v", err)
	}
	inFlight(t, newFront, 1)
	link := filepath.Join(paths.KubeletPlugins, Name, "dra.sock")
	if target, err := os.Readlink(link); err != nil || target != socketName("pod-1") {
		t.Errorf("while the first one is active, the known name leads to %q, %v", target, err)
	}

	impatient, giveUp := context.WithCancel(t.Context())
	giveUp()
	if err := oldFront.Quiet(impatient); !errors.Is(err, context.Canceled) {
		t.Errorf("with a call in flight: %v", err)
	}
	oldDriver.SetSnapshot(machineOf(2))
	must(t, oldFront.Quiet(t.Context()))
	stop()
	must(t, <-ended)
	if err := <-atOld; err != nil {
		t.Errorf("the call in flight at the first one: %v", err)
	}

	// Opened after that, the journal knows what the first one prepared.
	newDriver, _ := newDriver(t, client, paths, func(cfg *Config) { cfg.Front = newFront })
	newDriver.SetSnapshot(machineOf(2))
	ctx, stop = context.WithCancel(t.Context())
	go func() { ended <- newDriver.Run(ctx) }()
	if err := <-atNew; err != nil {
		t.Errorf("the call that came before the second one's turn: %v", err)
	}
	if target, err := os.Readlink(link); err != nil || target != socketName("pod-2") {
		t.Errorf("in the second one's turn the known name leads to %q, %v", target, err)
	}
	for _, name := range []types.UID{"uid-a", "uid-b"} {
		if newDriver.cfg.Journal.Entry(name) == nil {
			t.Errorf("%s is lost", name)
		}
	}
	stop()
	must(t, <-ended)
	for _, directory := range []string{filepath.Dir(link), paths.KubeletRegistry} {
		if left, err := filepath.Glob(filepath.Join(directory, "*.sock")); err != nil || len(left) != 0 {
			t.Errorf("left in %s: %v, %v", directory, left, err)
		}
	}
}

func TestCallThatWaitsTooLongSaysWhatFor(t *testing.T) {
	client, paths := fake.NewClientset(), pathsIn(t)
	must(t, os.MkdirAll(paths.State, 0o750))
	front, err := OpenFront(t.Context(), FrontConfig{NodeName: node, KubeClient: client, Paths: paths, PodUID: "pod-2", Patience: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	defer front.Close()
	err = <-call(register(t, paths, "pod-2"), "a")
	if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "waits for its turn") || !strings.Contains(err.Error(), "the kubelet tries again") {
		t.Errorf("got %v", err)
	}
}

func TestSocketsOfTheDeadAreRemoved(t *testing.T) {
	paths := pathsIn(t)
	plugins := filepath.Join(paths.KubeletPlugins, Name)
	must(t, os.MkdirAll(plugins, 0o750))
	listen := func(path string) *net.UnixListener {
		listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
		if err != nil {
			t.Fatal(err)
		}
		return listener
	}
	dead := []string{"plugins/" + Name + "/dra.sock", "plugins/" + Name + "/dra-1.sock", "registry/" + Name + "-reg.sock", "registry/" + Name + "-pod-1-reg.sock"}
	alive := []string{"plugins/" + Name + "/dra-2.sock", "registry/" + Name + "-pod-2-reg.sock", "registry/example.com-reg.sock"}
	at := func(name string) string { return filepath.Join(filepath.Dir(paths.KubeletPlugins), name) }
	for _, name := range dead {
		listener := listen(at(name))
		listener.SetUnlinkOnClose(false)
		must(t, listener.Close())
	}
	for _, name := range alive {
		listener := listen(at(name))
		defer listener.Close()
	}
	anothers := listen(at("registry/example.org-reg.sock"))
	anothers.SetUnlinkOnClose(false)
	must(t, anothers.Close())

	front := openFront(t, fake.NewClientset(), paths, "pod-3")
	for _, name := range dead {
		if _, err := os.Lstat(at(name)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is left: %v", name, err)
		}
	}
	for _, name := range append(alive, "registry/example.org-reg.sock") {
		if _, err := os.Lstat(at(name)); err != nil {
			t.Errorf("%s is gone: %v", name, err)
		}
	}
	if front.Registered() == nil {
		t.Error("it is registered without a kubelet")
	}
}

func TestSocketPathThatIsTooLongIsRefused(t *testing.T) {
	paths := pathsIn(t)
	paths.KubeletPlugins = "/" + strings.Repeat("p", 100)
	_, err := OpenFront(t.Context(), FrontConfig{NodeName: node, KubeClient: fake.NewClientset(), Paths: paths})
	if err == nil || !strings.Contains(err.Error(), "107 characters") {
		t.Errorf("got %v", err)
	}
}
