package nri

import (
	"context"
	"errors"
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/nri/pkg/adaptation"
	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/types"

	"github.com/hostler-dev/hostler/netattach"
	"github.com/hostler-dev/hostler/netattach/attach"
)

// recorder is a fake Attacher that tells what it was asked.
type recorder struct {
	calls chan string
	fails error
	slow  bool
	// hold keeps AttachMissed until it is closed, or its context ends.
	hold chan struct{}
}

func (r *recorder) Attach(ctx context.Context, s attach.Sandbox) error {
	if r.slow {
		<-ctx.Done()
		return context.Cause(ctx)
	}
	r.calls <- "attach " + s.ID + " " + s.NetNS + " " + string(s.Pod.UID) + " " + s.Pod.Namespace + "/" + s.Pod.Name
	return r.fails
}

func (r *recorder) AttachMissed(ctx context.Context, s attach.Sandbox) error {
	if r.hold != nil {
		select {
		case <-r.hold:
		case <-ctx.Done():
			r.calls <- "missed " + s.ID + ": " + context.Cause(ctx).Error()
			return context.Cause(ctx)
		}
	}
	r.calls <- "missed " + s.ID + " " + s.NetNS
	return r.fails
}

func (r *recorder) DetachSandbox(_ context.Context, pod types.UID, sandbox string) error {
	r.calls <- "detach " + sandbox + " " + string(pod)
	return nil
}

func (r *recorder) Reconcile(context.Context) error {
	r.calls <- "reconcile"
	return nil
}

// startRuntime is NRI's own runtime side, as containerd embeds it.
func startRuntime(t *testing.T, socket string, living ...*adaptation.PodSandbox) *adaptation.Adaptation {
	t.Helper()
	return startRuntimeWith(t, socket, living, nil)
}

func startRuntimeWith(t *testing.T, socket string, living []*adaptation.PodSandbox, containers []*adaptation.Container) *adaptation.Adaptation {
	t.Helper()
	runtime, err := adaptation.New("test", "2.4",
		func(ctx context.Context, sync adaptation.SyncCB) error {
			_, err := sync(ctx, living, containers)
			return err
		},
		func(context.Context, []*adaptation.ContainerUpdate) ([]*adaptation.ContainerUpdate, error) {
			return nil, nil
		},
		adaptation.WithSocketPath(socket), adaptation.WithPluginPath(t.TempDir()), adaptation.WithPluginConfigPath(t.TempDir()))
	if err != nil {
		t.Fatal(err)
	}
	if err := runtime.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(runtime.Stop)
	return runtime
}

func startPlugin(t *testing.T, socket string, r *recorder, living ...*attach.Living) <-chan bool {
	t.Helper()
	ready := make(chan bool, 64)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		cfg := Config{Socket: socket, Attacher: r, Ready: func(yes bool) { ready <- yes }}
		for _, set := range living {
			cfg.Living = set
		}
		done <- Run(ctx, cfg)
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return ready
}

func next[T any](t *testing.T, from <-chan T) (value T) {
	t.Helper()
	select {
	case value = <-from:
	case <-time.After(20 * time.Second):
		t.Fatal("nothing happened in 20 s")
	}
	return value
}

func await(t *testing.T, ready <-chan bool, want bool) {
	t.Helper()
	for next(t, ready) != want {
	}
}

// awaitHooks returns once the runtime calls the plugin: the synchronization in
// which the plugin said that it is ready has ended.
func awaitHooks(t *testing.T, ready <-chan bool, runtime *adaptation.Adaptation) {
	t.Helper()
	await(t, ready, true)
	runtime.BlockPluginSync().Unblock()
}

func pod() *adaptation.PodSandbox {
	return &adaptation.PodSandbox{Id: "sandbox-1", Uid: "pod-1", Namespace: "ns", Name: "p",
		Linux: &adaptation.LinuxPodSandbox{Namespaces: []*adaptation.LinuxNamespace{{Type: "pid"}, {Type: "network", Path: "/run/netns/x"}}}}
}

func TestHooksReachTheAttacher(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "nri.sock")
	runtime := startRuntime(t, socket)
	r := &recorder{calls: make(chan string, 16)}
	awaitHooks(t, startPlugin(t, socket, r), runtime)
	ctx := context.Background()
	got := []string{next(t, r.calls)} // in the background
	if err := runtime.RunPodSandbox(ctx, &adaptation.RunPodSandboxRequest{Pod: pod()}); err != nil {
		t.Fatal(err)
	}
	if err := runtime.StopPodSandbox(ctx, &adaptation.StopPodSandboxRequest{Pod: pod()}); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		got = append(got, next(t, r.calls))
	}
	want := []string{"reconcile", "attach sandbox-1 /run/netns/x pod-1 ns/p", "detach sandbox-1 pod-1"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("calls (-want +got):\n%s", diff)
	}
}

func named(id string) *adaptation.PodSandbox {
	p := pod()
	p.Id, p.Uid = id, "pod-of-"+id
	return p
}

// Pods that started while no plugin was connected are attached, whatever
// becomes of one, and the runtime does not wait for that.
func TestLivingSandboxesAreAttachedInTheBackground(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "nri.sock")
	onHost := named("on-host")
	onHost.Linux.Namespaces = nil
	twin := named("twin")
	twin.Uid = "pod-of-first-twin"
	runtime := startRuntime(t, socket, named("a"), onHost, named("first-twin"), twin, named("b"))
	r := &recorder{calls: make(chan string, 16), fails: errors.New("no luck"), hold: make(chan struct{})}
	awaitHooks(t, startPlugin(t, socket, r), runtime) // it is connected while the first is held
	close(r.hold)
	for _, want := range []string{"reconcile", "missed a /run/netns/x", "missed b /run/netns/x"} {
		if got := next(t, r.calls); got != want {
			t.Errorf("called %q, want %q", got, want)
		}
	}
}

// A sandbox may end, or be replaced, between the list and its turn.
func TestSandboxThatAHookToldOfIsNotAttachedFromTheList(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "nri.sock")
	runtime := startRuntime(t, socket, named("a"), named("stopped"), named("replaced"), named("b"))
	r := &recorder{calls: make(chan string, 16), hold: make(chan struct{})}
	awaitHooks(t, startPlugin(t, socket, r), runtime)
	replacement := named("replacement")
	replacement.Uid = "pod-of-replaced"
	if err := runtime.StopPodSandbox(context.Background(), &adaptation.StopPodSandboxRequest{Pod: named("stopped")}); err != nil {
		t.Fatal(err)
	}
	if err := runtime.RunPodSandbox(context.Background(), &adaptation.RunPodSandboxRequest{Pod: replacement}); err != nil {
		t.Fatal(err)
	}
	close(r.hold)
	for _, want := range []string{"reconcile", "detach stopped", "attach replacement", "missed a", "missed b"} {
		if got := next(t, r.calls); !strings.HasPrefix(got, want) {
			t.Errorf("called %q, want %q", got, want)
		}
	}
}

func TestFailureFailsTheSandbox(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "nri.sock")
	runtime := startRuntime(t, socket)
	awaitHooks(t, startPlugin(t, socket, &recorder{calls: make(chan string, 16), fails: errors.New("nic-0000-18-00-0 is gone")}), runtime)
	err := runtime.RunPodSandbox(context.Background(), &adaptation.RunPodSandboxRequest{Pod: pod()})
	if err == nil || !strings.Contains(err.Error(), "hostler: nic-0000-18-00-0 is gone") {
		t.Errorf("want the attacher's words, got %v", err)
	}
}

// A hook that is too slow answers with an error before the runtime skips it,
// which would start the pod without its devices.
func TestSlowAttachFailsBeforeTheRuntimeGivesUp(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "nri.sock")
	runtime := startRuntime(t, socket)
	awaitHooks(t, startPlugin(t, socket, &recorder{calls: make(chan string, 16), slow: true}), runtime)
	err := runtime.RunPodSandbox(context.Background(), &adaptation.RunPodSandboxRequest{Pod: pod()})
	if err == nil || !strings.Contains(err.Error(), "timeout is near") {
		t.Errorf("want an error in time, got %v", err)
	}
}

// The runtime's end cuts its connections, which NRI's own Stop does not do, so
// the plugin is connected through a wire that can be cut.
func TestPluginComesBackAfterTheRuntime(t *testing.T) {
	dir := t.TempDir()
	r := &recorder{calls: make(chan string, 16)}
	ready := startPlugin(t, filepath.Join(dir, "wire.sock"), r)
	await(t, ready, false) // there is no runtime yet
	first := startRuntime(t, filepath.Join(dir, "first.sock"))
	cut := wire(t, filepath.Join(dir, "wire.sock"), filepath.Join(dir, "first.sock"))
	awaitHooks(t, ready, first)
	cut()
	await(t, ready, false)
	second := startRuntime(t, filepath.Join(dir, "second.sock"))
	wire(t, filepath.Join(dir, "wire.sock"), filepath.Join(dir, "second.sock"))
	awaitHooks(t, ready, second)
	if err := second.RunPodSandbox(context.Background(), &adaptation.RunPodSandboxRequest{Pod: pod()}); err != nil {
		t.Fatal(err)
	}
	for call := range r.calls {
		if strings.HasPrefix(call, "attach") {
			return
		}
	}
}

// wire forwards one connection from a socket to another until it is cut.
func wire(t *testing.T, from, to string) (cut func()) {
	t.Helper()
	listener, err := net.Listen("unix", from)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	cut = sync.OnceFunc(func() { close(ended); listener.Close() })
	t.Cleanup(cut)
	go func() {
		plugin, err := listener.Accept()
		if err != nil {
			return
		}
		defer plugin.Close()
		runtime, err := net.Dial("unix", to)
		if err != nil {
			t.Error(err)
			return
		}
		defer runtime.Close()
		go io.Copy(plugin, runtime)
		go io.Copy(runtime, plugin)
		<-ended
	}()
	return cut
}

// Of a sandbox that ends containerd may tell no namespaces, which are gone by then.
// What is where is on record.
func TestEndOfASandboxIsPassedOnWithoutItsNamespace(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "nri.sock")
	runtime := startRuntime(t, socket)
	r := &recorder{calls: make(chan string, 16)}
	awaitHooks(t, startPlugin(t, socket, r), runtime)
	bare := pod()
	bare.Linux = nil
	if err := runtime.StopPodSandbox(context.Background(), &adaptation.StopPodSandboxRequest{Pod: bare}); err != nil {
		t.Fatal(err)
	}
	if err := runtime.RemovePodSandbox(context.Background(), &adaptation.RemovePodSandboxRequest{Pod: bare}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"reconcile", "detach sandbox-1 pod-1", "detach sandbox-1 pod-1"} {
		if got := next(t, r.calls); got != want {
			t.Errorf("called %q, want %q", got, want)
		}
	}
}

func TestPodOnTheHostsNetworkHasNoNamespace(t *testing.T) {
	p := pod()
	p.Linux.Namespaces = p.Linux.Namespaces[:1]
	want := attach.Sandbox{ID: "sandbox-1", Pod: netattach.PodReference{UID: "pod-1", Namespace: "ns", Name: "p"}}
	if got := sandboxOf(p); got != want {
		t.Errorf("got %+v", got)
	}
}

// Which pods live the runtime says in its list, in its hooks, and, while it is
// away, not at all.
func TestRuntimeTellsWhoLives(t *testing.T) {
	dir := t.TempDir()
	ended, noPid := named("ended"), named("no-pid")
	living := named("living")
	living.Pid = 4711
	living.Linux.Namespaces = nil // on the host's network
	first := startRuntimeWith(t, filepath.Join(dir, "first.sock"), []*adaptation.PodSandbox{living, ended, noPid}, []*adaptation.Container{{Id: "c", PodSandboxId: "no-pid"}})
	cut := wire(t, filepath.Join(dir, "wire.sock"), filepath.Join(dir, "first.sock"))
	set := &attach.Living{}
	ready := startPlugin(t, filepath.Join(dir, "wire.sock"), &recorder{calls: make(chan string, 64)}, set)
	awaitHooks(t, ready, first)
	expect := func(moment, want string) {
		t.Helper()
		if diff := cmp.Diff(want, set.String()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", moment, diff)
		}
	}
	expect("listed", "pod-of-living pod-of-no-pid")
	if err := first.RunPodSandbox(context.Background(), &adaptation.RunPodSandboxRequest{Pod: pod()}); err != nil {
		t.Fatal(err)
	}
	expect("begun", "pod-1 pod-of-living pod-of-no-pid")
	if err := first.StopPodSandbox(context.Background(), &adaptation.StopPodSandboxRequest{Pod: living}); err != nil {
		t.Fatal(err)
	}
	if err := first.RemovePodSandbox(context.Background(), &adaptation.RemovePodSandboxRequest{Pod: noPid}); err != nil {
		t.Fatal(err)
	}
	expect("ended", "pod-1")
	cut()
	await(t, ready, false)
	expect("disconnected", "unknown")
	second := startRuntimeWith(t, filepath.Join(dir, "second.sock"), []*adaptation.PodSandbox{living}, nil)
	wire(t, filepath.Join(dir, "wire.sock"), filepath.Join(dir, "second.sock"))
	awaitHooks(t, ready, second)
	expect("connected again", "pod-of-living")
}
