package main

// Two agents on one node, as processes, with a kubelet of the test's own and an API
// server that answers when the test says so.

import (
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	drapbv1 "k8s.io/kubelet/pkg/apis/dra/v1"
	registerapi "k8s.io/kubelet/pkg/apis/pluginregistration/v1"

	"github.com/hostler-dev/hostler/test/machine"
)

// slowServer knows of nothing, and says so of claims only once it is let go.
type slowServer struct {
	url   string
	asked chan struct{}
	let   chan struct{}
	once  sync.Once
}

func (s *slowServer) letGo() { s.once.Do(func() { close(s.let) }) }

func startSlowServer(t *testing.T) *slowServer {
	s := &slowServer{asked: make(chan struct{}, 10), let: make(chan struct{})}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/resourceclaims/slow") {
			s.asked <- struct{}{}
			<-s.let
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusNotFound)
		_, _ = w.Write([]byte(`{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"NotFound","message":"there is no such thing","code":404}`))
	}))
	t.Cleanup(server.Close)
	t.Cleanup(s.letGo)
	s.url = server.URL
	return s
}

// pod starts an agent as a DaemonSet's pod does.
func (n *node) pod(t *testing.T, uid string, server *slowServer) *started {
	t.Helper()
	return n.startWith(t, []string{"POD_UID=" + uid}, "agent", n.flags("--kubeconfig="+n.kubeconfig(t, server.url))...)
}

// register does what the kubelet does when it finds the socket.
func (n *node) register(t *testing.T, uid string, agent *started) drapbv1.DRAPluginClient {
	t.Helper()
	dial := func(socket string) *grpc.ClientConn {
		conn, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		return conn
	}
	kubelet := registerapi.NewRegistrationClient(dial(filepath.Join(n.path("registry"), "hostler.dev-"+uid+"-reg.sock")))
	agent.says(t, "Serving the kubelet")
	info, err := kubelet.GetInfo(t.Context(), &registerapi.InfoRequest{}, grpc.WaitForReady(true))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := kubelet.NotifyRegistrationStatus(t.Context(), &registerapi.RegistrationStatus{PluginRegistered: true}); err != nil {
		t.Fatal(err)
	}
	return drapbv1.NewDRAPluginClient(dial(info.Endpoint))
}

// slowPrepare returns once the call is in flight.
func slowPrepare(t *testing.T, at drapbv1.DRAPluginClient, server *slowServer) <-chan error {
	t.Helper()
	answer := make(chan error, 1)
	go func() {
		_, err := at.NodePrepareResources(context.Background(), &drapbv1.NodePrepareResourcesRequest{
			Claims: []*drapbv1.Claim{{Namespace: "team", Name: "slow", Uid: "uid-slow"}},
		}, grpc.WaitForReady(true))
		answer <- err
	}()
	select {
	case <-server.asked:
	case err := <-answer:
		t.Fatalf("the call ended before its time: %v", err)
	}
	return answer
}

// wholeAnswer is the API server's, which reached the kubelet through the agent.
func wholeAnswer(t *testing.T, answer <-chan error) {
	t.Helper()
	if err := <-answer; err == nil || !strings.Contains(err.Error(), "there is no such thing") {
		t.Errorf("the call that was in flight ended with %v, want its own answer", err)
	}
}

// times waits until the log has said the words so often.
func (s *started) times(t *testing.T, n int, words string) string {
	t.Helper()
	for {
		if found := s.errs.with(words); len(found) >= n {
			return found[n-1]
		}
		select {
		case <-s.ended:
			t.Fatalf("it ended without saying %q %d times:\n%s", words, n, s.errs.String())
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func httpAddress(line string) string {
	return regexp.MustCompile(`address="([^"]+)"`).FindStringSubmatch(line)[1]
}

func TestSuccessorTakesOverAndBack(t *testing.T) {
	n, server := newNode(t, machine.RenderOptions{NoDriver: true}), startSlowServer(t)
	old := n.pod(t, "pod-1", server)
	page := "http://" + httpAddress(old.says(t, "Serving metrics and health")) + "/readyz"
	inFlight := slowPrepare(t, n.register(t, "pod-1", old), server)

	successor := n.pod(t, "pod-2", server)
	successor.says(t, "Another agent serves the node")
	plugin := n.register(t, "pod-2", successor)
	early := make(chan error, 1)
	go func() {
		_, err := plugin.NodeUnprepareResources(context.Background(), &drapbv1.NodeUnprepareResourcesRequest{
			Claims: []*drapbv1.Claim{{Namespace: "team", Name: "early", Uid: "uid-early"}},
		})
		early <- err
	}()
	old.says(t, "A successor is registered with the kubelet")
	if status, body := get(t, page); status == http.StatusOK || !strings.Contains(body, "[-]successor failed") {
		t.Errorf("with a successor waiting, readiness answers %d:\n%s", status, body)
	}
	select {
	case err := <-early:
		t.Fatalf("a call at the successor was answered before its turn: %v", err)
	default:
	}

	server.letGo()
	wholeAnswer(t, inFlight)
	old.says(t, "Retired")
	successor.says(t, "Serving metrics and health")
	if err := <-early; err != nil {
		t.Errorf("the call that waited at the successor: %v", err)
	}
	if said := successor.errs.with("Serving the kubelet"); len(said) != 1 {
		t.Errorf("the successor opened its sockets %d times, want once:\n%s", len(said), successor.errs.String())
	}
	if release := n.start(t, "release", n.flags()...); release.exit(t) == 0 || len(release.errs.with("in use")) == 0 {
		t.Errorf("hostler release beside two agents: %s%s", release.out.String(), release.errs.String())
	}

	if err := successor.command.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-successor.ended
	old.times(t, 2, "Serving metrics and health")
	n.register(t, "pod-1", old)
	if left, err := filepath.Glob(n.path("registry/*")); err != nil || len(left) != 1 {
		t.Errorf("the registration sockets of the killed one are left: %v, %v", left, err)
	}

	// A downgrade is the same: the older version comes as the successor.
	back := n.pod(t, "pod-3", server)
	n.register(t, "pod-3", back)
	back.says(t, "Serving metrics and health")
	old.times(t, 2, "Retired")
	for _, agent := range []*started{old, back} { // the retired one, then the active one
		if err := agent.command.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		if status := agent.exit(t); status != 0 || len(agent.errs.with("Stopped")) != 1 {
			t.Errorf("told to stop, it ends with %d:\n%s", status, agent.errs.String())
		}
	}
	if left, err := filepath.Glob(n.path("plugins/hostler.dev/*.sock")); err != nil || len(left) != 0 {
		t.Errorf("sockets are left: %v, %v", left, err)
	}
}

func TestSuccessorThatDiesBeforeItsTurnChangesNothing(t *testing.T) {
	n, server := newNode(t, machine.RenderOptions{NoDriver: true}), startSlowServer(t)
	old := n.pod(t, "pod-1", server)
	old.says(t, "Serving metrics and health")
	inFlight := slowPrepare(t, n.register(t, "pod-1", old), server)
	successor := n.pod(t, "pod-2", server)
	n.register(t, "pod-2", successor)
	old.says(t, "A successor is registered with the kubelet")
	if err := successor.command.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	old.says(t, "The successor is gone")
	server.letGo()
	wholeAnswer(t, inFlight)
	if said := old.errs.with("Retired"); len(said) != 0 {
		t.Errorf("it ended its turn for a dead successor: %s", said)
	}
}

func TestStoppedAgentAnswersItsCallsFirst(t *testing.T) {
	n, server := newNode(t, machine.RenderOptions{NoDriver: true}), startSlowServer(t)
	agent := n.pod(t, "pod-1", server)
	agent.says(t, "Serving metrics and health")
	inFlight := slowPrepare(t, n.register(t, "pod-1", agent), server)
	if err := agent.command.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	agent.says(t, "Told to stop")
	server.letGo()
	wholeAnswer(t, inFlight)
	if status := agent.exit(t); status != 0 {
		t.Errorf("exit status %d:\n%s", status, agent.errs.String())
	}
}

// Without a pod's UID an agent does not ask: it waits for the other one's end.
func TestSecondAgentOutsideOfPodsWaits(t *testing.T) {
	n, server := newNode(t, machine.RenderOptions{NoDriver: true}), startSlowServer(t)
	first := n.pod(t, "", server)
	first.says(t, "Serving metrics and health")
	second := n.pod(t, "", server)
	second.says(t, "Another agent serves the node")
	if _, err := os.Lstat(n.path("plugins/hostler.dev/dra.sock")); err != nil {
		t.Error(err)
	}
	if err := first.command.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if status := first.exit(t); status != 0 {
		t.Errorf("exit status %d:\n%s", status, first.errs.String())
	}
	second.says(t, "Serving metrics and health")
}
