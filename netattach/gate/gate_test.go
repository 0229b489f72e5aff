package gate_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/hostler-dev/hostler/api/v1alpha1"
	"github.com/hostler-dev/hostler/netattach"
	"github.com/hostler-dev/hostler/netattach/attach"
	"github.com/hostler-dev/hostler/netattach/egress"
	"github.com/hostler-dev/hostler/netattach/gate"
	"github.com/hostler-dev/hostler/netattach/internal/nettest"
)

// hook is the real one, compiled.
var hook string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "hostler-gate")
	if err != nil {
		panic(err)
	}
	hook = filepath.Join(dir, "hostler-gate")
	build := exec.Command("go", "build", "-o", hook, "github.com/hostler-dev/hostler/cmd/hostler-gate")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "cannot build the hook: %v\n%s", err, out)
		os.Exit(1)
	}
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// journal is read by the gate while tests write it.
type journal struct {
	mu      sync.Mutex
	intents map[types.UID]netattach.Intent
}

func (j *journal) put(intent netattach.Intent) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.intents[intent.ClaimUID] = intent
}

func (j *journal) Intent(claim types.UID) (netattach.Intent, bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	intent, ok := j.intents[claim]
	return intent, ok
}

func (j *journal) IntentsForPod(uid types.UID, _, _ string) (list []netattach.Intent) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, intent := range j.intents {
		for _, pod := range intent.Pods {
			if pod.UID == uid {
				list = append(list, intent)
			}
		}
	}
	return list
}

// node runs the agent's side for one pod, whose container is a sleeping process.
type node struct {
	run            string
	host, pod      *nettest.Namespace
	intents        *journal
	attacher       *attach.Attacher
	container      *exec.Cmd
	bundle         string
	stop           func()
	stopped        bool
	podUID, podNet string
	// bounding capabilities of the container.
	bounding []string
}

func newNode(t *testing.T) *node {
	nettest.NeedBPF(t)
	n := &node{run: t.TempDir(), host: nettest.New(t), pod: nettest.New(t), intents: &journal{intents: map[types.UID]netattach.Intent{}}, bundle: t.TempDir(), podUID: "pod-1"}
	peer := nettest.New(t)
	nettest.Join(t, n.host, "rail0", peer, "peer0")
	nettest.Join(t, n.pod, "eth0", peer, "pod0")
	attacher, err := attach.New(attach.Config{Intents: n.intents, Run: n.run, HostNamespace: &n.host.FD})
	if err != nil {
		t.Fatal(err)
	}
	n.attacher = attacher
	n.container = exec.Command("sleep", "600")
	n.pod.Do(t, func() { err = n.container.Start() })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.container.Process.Kill(); n.container.Wait() })
	n.podNet = fmt.Sprintf("/proc/%d/ns/net", n.container.Process.Pid)
	n.writeBundle(t)
	n.start(t)
	return n
}

func (n *node) writeBundle(t *testing.T) {
	t.Helper()
	config := map[string]any{
		// As containerd 2 writes them, internal/cri/annotations.DefaultCRIAnnotations.
		"annotations": map[string]string{"io.kubernetes.cri.sandbox-id": "sandbox-1", "io.kubernetes.cri.sandbox-uid": n.podUID,
			"io.kubernetes.cri.sandbox-namespace": "ns", "io.kubernetes.cri.sandbox-name": "p"},
		"process": map[string]any{"capabilities": map[string][]string{"bounding": n.bounding, "effective": {}}},
		"linux":   map[string]any{"namespaces": []map[string]string{{"type": "pid"}, {"type": "network", "path": n.podNet}}},
	}
	raw, err := json.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(n.bundle, "config.json"), raw, 0o600); err != nil {
		t.Fatal(err)
	}
}

// start brings the gate up, stop kills it and leaves its socket behind.
func (n *node) start(t *testing.T) {
	t.Helper()
	server, err := gate.Listen(gate.Config{Socket: filepath.Join(n.run, "gate.sock"), Admitter: n.attacher})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- server.Run(ctx) }()
	n.stopped = false
	n.stop = func() {
		if n.stopped {
			return
		}
		n.stopped = true
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(n.stop)
}

// startContainer runs the hook as runc would, and returns what it says.
func (n *node) startContainer(t *testing.T, claim string) error {
	t.Helper()
	state, err := json.Marshal(map[string]any{"ociVersion": "1.2.0", "id": "container-1", "status": "created", "pid": n.container.Process.Pid, "bundle": n.bundle})
	if err != nil {
		t.Fatal(err)
	}
	patience := "1m" // a busy machine's agent takes its time
	if n.stopped {
		patience = "500ms"
	}
	call := exec.Command(hook, "--socket", filepath.Join(n.run, "gate.sock"), "--records", filepath.Join(n.run, "attached"), "--claim", claim, "--timeout", patience)
	call.Stdin = bytes.NewReader(state)
	var stderr bytes.Buffer
	call.Stderr = &stderr
	if err := call.Run(); err != nil {
		return fmt.Errorf("%w: %s", err, stderr.String())
	}
	return nil
}

func (n *node) claim(t *testing.T) {
	attrs := n.host.Link(t, "rail0").Attrs()
	config := v1alpha1.EgressConfig{}
	v1alpha1.SetDefaults_EgressConfig(&config)
	n.intents.put(netattach.Intent{ClaimUID: "claim-1", ClaimNamespace: "ns", ClaimName: "c", Pods: []netattach.PodReference{{UID: "pod-1"}},
		Devices: []netattach.DeviceIntent{{Device: "nic-rail0", HostName: "rail0", PodName: "net1", HostMAC: attrs.HardwareAddr.String(), HostMTU: attrs.MTU,
			Addresses: []netip.Prefix{netip.MustParsePrefix("10.1.0.5/24")}}},
		Egress: &netattach.EgressIntent{Config: config}})
}

func TestHookAttachesWhatNRIMissed(t *testing.T) {
	n := newNode(t)
	n.claim(t)
	for range 2 {
		if err := n.startContainer(t, "claim-1"); err != nil {
			t.Fatal(err)
		}
	}
	if !n.pod.Has(t, "net1") {
		t.Error("the container starts without its device")
	}
}

func TestHookRefusesWithTheAgentsReason(t *testing.T) {
	n := newNode(t)
	n.claim(t)
	if err := n.host.Handle.LinkDel(n.host.Link(t, "rail0")); err != nil {
		t.Fatal(err)
	}
	err := n.startContainer(t, "claim-1")
	if err == nil || !strings.Contains(err.Error(), "nic-rail0") || !strings.Contains(err.Error(), "this container may not start") {
		t.Errorf("want a refusal that names the device, got %v", err)
	}
}

func TestHookTellsTheAgentOfTheContainersCapabilities(t *testing.T) {
	n := newNode(t)
	n.claim(t)
	n.bounding = []string{"CAP_CHOWN", "CAP_SYS_ADMIN"}
	n.writeBundle(t)
	if err := n.startContainer(t, "claim-1"); err == nil || !strings.Contains(err.Error(), "it has CAP_SYS_ADMIN") {
		t.Errorf("want a refusal that names the capability, got %v", err)
	}
}

// While the agent is away, the hook lets through what is attached as recorded,
// and nothing else.
func TestHookWithoutTheAgent(t *testing.T) {
	for name, test := range map[string]struct {
		change func(t *testing.T, n *node)
		claim  string
		says   string // "" if the container may start
	}{
		"a container of an attached pod":  {func(*testing.T, *node) {}, "claim-1", ""},
		"a claim without network":         {func(*testing.T, *node) {}, "gpu-only", ""},
		"a claim that was never attached": {func(*testing.T, *node) {}, "claim-9", "was not attached"},
		"another pod": {func(t *testing.T, n *node) {
			n.podUID = "pod-9"
			n.writeBundle(t)
		}, "claim-1", "was not attached"},
		"a container that could undo the rules": {func(t *testing.T, n *node) {
			n.bounding = []string{"CAP_CHOWN", "CAP_NET_ADMIN"}
			n.writeBundle(t)
		}, "claim-1", "it has CAP_NET_ADMIN"},
		"a container of another claim that could undo the rules": {func(t *testing.T, n *node) {
			n.bounding = []string{"CAP_SYS_ADMIN"}
			n.writeBundle(t)
		}, "gpu-only", "it has CAP_SYS_ADMIN"},
		"the device has left": {func(t *testing.T, n *node) {
			if err := n.pod.Handle.LinkDel(n.pod.Link(t, "net1")); err != nil {
				t.Fatal(err)
			}
		}, "claim-1", "nic-rail0 is no longer in the pod"},
		"another device in its place": {func(t *testing.T, n *node) {
			mac := n.pod.Link(t, "net1").Attrs().HardwareAddr
			nettest.Join(t, n.pod, "decoy", n.host, "x")
			if err := errors.Join(n.pod.Handle.LinkDel(n.pod.Link(t, "net1")), n.pod.Handle.LinkSetHardwareAddr(n.pod.Link(t, "decoy"), mac),
				n.pod.Handle.LinkSetName(n.pod.Link(t, "decoy"), "net1")); err != nil {
				t.Fatal(err)
			}
		}, "claim-1", "nic-rail0 is no longer in the pod"},
		"the rules are others": {func(t *testing.T, n *node) {
			if err := egress.Enforce(context.Background(), n.pod.FD, egress.Ruleset{}); err != nil {
				t.Fatal(err)
			}
		}, "claim-1", "rules are no longer in force"},
		"an interface without rules":  {func(t *testing.T, n *node) { nettest.Join(t, n.pod, "net7", n.host, "x") }, "claim-1", "do not cover its interface net7"},
		"an incomplete attachment":    {func(t *testing.T, n *node) { n.edit(t, `"Attached"`, `"Attaching"`) }, "claim-1", "is not complete"},
		"a record of an earlier boot": {func(t *testing.T, n *node) { n.edit(t, `"bootID": "`, `"bootID": "x`) }, "claim-1", "is not complete"},
		"another namespace":           {func(t *testing.T, n *node) { n.edit(t, `"netnsInode": `, `"netnsInode": 9`) }, "claim-1", "earlier network namespace"},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			n.claim(t)
			n.intents.put(netattach.Intent{ClaimUID: "gpu-only", ClaimNamespace: "ns", ClaimName: "g"})
			for _, claim := range []string{"claim-1", "gpu-only"} {
				if err := n.startContainer(t, claim); err != nil {
					t.Fatal(err)
				}
			}
			n.stop()
			test.change(t, n)
			err := n.startContainer(t, test.claim)
			switch {
			case test.says == "" && err != nil:
				t.Errorf("refused: %v", err)
			case test.says != "" && (err == nil || !strings.Contains(err.Error(), test.says)):
				t.Errorf("want a refusal that says %q, got %v", test.says, err)
			}
		})
	}
}

func TestPowerfulContainerWithoutAScopeNeedsNoAgent(t *testing.T) {
	n := newNode(t)
	n.intents.put(netattach.Intent{ClaimUID: "gpu-only", ClaimNamespace: "ns", ClaimName: "g"})
	n.bounding = []string{"CAP_NET_ADMIN", "CAP_SYS_ADMIN"}
	n.writeBundle(t)
	if err := n.startContainer(t, "gpu-only"); err != nil {
		t.Fatal(err)
	}
	n.stop()
	if err := n.startContainer(t, "gpu-only"); err != nil {
		t.Errorf("while the agent is away: %v", err)
	}
}

// Of InfiniBand without IPoIB there is no interface to look for.
func TestContainerWithAnRDMADeviceWithoutNetdevRestartsWithoutTheAgent(t *testing.T) {
	n := newNode(t)
	n.intents.put(netattach.Intent{ClaimUID: "ib", ClaimNamespace: "ns", ClaimName: "ib", Pods: []netattach.PodReference{{UID: "pod-1", Namespace: "ns", Name: "p"}}, RDMA: true,
		Devices: []netattach.DeviceIntent{{Device: "nic-0000-1a-00-0", RDMA: &netattach.RDMAIntent{Device: "mlx5_2", Mode: v1alpha1.RDMAAuto}}}})
	if err := n.startContainer(t, "ib"); err != nil {
		t.Fatal(err)
	}
	n.stop()
	if err := n.startContainer(t, "ib"); err != nil {
		t.Errorf("while the agent is away: %v", err)
	}
}

func (n *node) edit(t *testing.T, from, to string) {
	t.Helper()
	path := filepath.Join(n.run, "attached", "claim-1-pod-1.json")
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	edited := strings.Replace(string(raw), from, to, 1)
	if edited == string(raw) {
		t.Fatalf("no %q in %s", from, raw)
	}
	if err := os.WriteFile(path, []byte(edited), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestServerRefusesWhatIsNoQuestion(t *testing.T) {
	n := newNode(t)
	for name, test := range map[string]struct{ line, says string }{
		"not JSON":      {"hello\n", "not JSON"},
		"no descriptor": {`{"claim":"claim-1","podUID":"pod-1"}` + "\n", "no network namespace"},
		"no end":        {strings.Repeat("x", 20<<10), "not one line"},
	} {
		t.Run(name, func(t *testing.T) {
			conn, err := net.Dial("unix", filepath.Join(n.run, "gate.sock"))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
				t.Fatal(err)
			}
			if _, err := conn.Write([]byte(test.line)); err != nil {
				t.Fatal(err)
			}
			var answer gate.Answer
			if err := json.NewDecoder(conn).Decode(&answer); err != nil {
				t.Fatal(err)
			}
			if answer.OK || !strings.Contains(answer.Reason, test.says) {
				t.Errorf("answer is %+v, want a refusal that says %q", answer, test.says)
			}
		})
	}
}
