package attach

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"k8s.io/apimachinery/pkg/types"

	"github.com/hostler-dev/hostler/api/v1alpha1"
	"github.com/hostler-dev/hostler/netattach"
	"github.com/hostler-dev/hostler/netattach/egress"
	"github.com/hostler-dev/hostler/netattach/internal/nettest"
)

// journal is a fake IntentSource.
type journal map[types.UID]netattach.Intent

func (j journal) Intent(claim types.UID) (netattach.Intent, bool) {
	intent, ok := j[claim]
	return intent, ok
}

func (j journal) IntentsForPod(uid types.UID, _, _ string) (list []netattach.Intent) {
	for _, claim := range []types.UID{"claim-1", "claim-2", "claim-3"} {
		for _, pod := range j[claim].Pods {
			if pod.UID == uid {
				list = append(list, j[claim])
			}
		}
	}
	return list
}

// node is a host with NICs rail0 and rail1 that lead to a peer, and a pod.
type node struct {
	host, peer, pod *nettest.Namespace
	run, bin, mac   string
	intents         journal
	sandbox         Sandbox
	now             time.Time
	attacher        *Attacher
	// watched: the host is compared with what it was before devices left it. Lost
	// devices cannot come home.
	watched, lost bool
}

func newNode(t *testing.T) *node {
	nettest.NeedBPF(t)
	n := &node{host: nettest.New(t), peer: nettest.New(t), pod: nettest.New(t), run: t.TempDir(), intents: journal{}, now: time.Now()}
	for i, name := range []string{"rail0", "rail1"} {
		nettest.Join(t, n.host, name, n.peer, "to-"+name)
		n.host.Up(t, name)
		n.peer.Up(t, "to-"+name, []string{"10.1.0.1/24", "10.2.0.1/24"}[i])
	}
	// A path that can vanish while the namespace itself is kept for inspection.
	path := filepath.Join(t.TempDir(), "netns")
	if err := os.Symlink(n.pod.Path, path); err != nil {
		t.Fatal(err)
	}
	n.sandbox = Sandbox{ID: "sandbox-1", NetNS: path, Pod: netattach.PodReference{UID: "pod-1", Namespace: "ns", Name: "p"}}
	n.restart(t)
	return n
}

// restart replaces the agent, as a kill would: nothing but the run directory stays.
func (n *node) restart(t *testing.T) {
	t.Helper()
	attacher, err := New(Config{Intents: n.intents, Run: n.run, HostNamespace: &n.host.FD, CNIBin: n.bin, CNICache: filepath.Join(n.run, "cni"),
		Now: func() time.Time { return n.now }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { attacher.Close() })
	n.attacher = attacher
}

func (n *node) device(t *testing.T, host, pod, address string) netattach.DeviceIntent {
	attrs := n.host.Link(t, host).Attrs()
	return netattach.DeviceIntent{Device: "nic-" + host, HostName: host, PodName: pod, HostMAC: attrs.HardwareAddr.String(),
		Addresses: []netip.Prefix{netip.MustParsePrefix(address)}}
}

func (n *node) claim(uid types.UID, scope *v1alpha1.EgressConfig, devices ...netattach.DeviceIntent) {
	intent := netattach.Intent{ClaimUID: uid, ClaimNamespace: "ns", ClaimName: string(uid), Devices: devices, Pods: []netattach.PodReference{n.sandbox.Pod}}
	if scope != nil {
		v1alpha1.SetDefaults_EgressConfig(scope)
		intent.Egress = &netattach.EgressIntent{Config: *scope}
	}
	n.intents[uid] = intent
}

func scope(cidr string, port int32) *v1alpha1.EgressConfig {
	return &v1alpha1.EgressConfig{Allow: []v1alpha1.EgressRule{{Name: "peer", To: []v1alpha1.EgressPeer{{CIDR: &v1alpha1.CIDRPeer{CIDR: cidr}}}, Ports: []v1alpha1.EgressPort{{Port: port}}}}}
}

// attach also has every test end with all claims released and the host as it was.
func (n *node) attach(t *testing.T) {
	t.Helper()
	if !n.watched {
		n.watched = true
		n.host.AsBefore(t, func() bool { n.release(t); return !n.lost })
	}
	if err := n.attacher.Attach(context.Background(), n.sandbox); err != nil {
		t.Fatal(err)
	}
}

func (n *node) release(t *testing.T) {
	t.Helper()
	records, err := n.attacher.records.list()
	if err != nil {
		t.Fatal(err)
	}
	for _, record := range records {
		if err := n.attacher.Release(context.Background(), record.Intent.ClaimUID); err != nil {
			t.Errorf("release of %s: %v", record.Intent.ClaimUID, err)
		}
	}
}

func (n *node) recordCount(t *testing.T) int {
	t.Helper()
	records, err := n.attacher.records.list()
	if err != nil {
		t.Fatal(err)
	}
	return len(records)
}

// dial from the pod.
func (n *node) dial(t *testing.T, address string) error {
	t.Helper()
	var err error
	n.pod.Do(t, func() {
		var conn net.Conn
		if conn, err = net.DialTimeout("tcp", address, 5*time.Second); err == nil {
			conn.Close()
		}
	})
	return err
}

// A claim may be prepared while its NIC is on its way home from another pod. What
// is restored is therefore the state at the move, not that at the prepare.
func TestDeviceComesHomeAsItWasWhenItLeft(t *testing.T) {
	n := newNode(t)
	n.claim("claim-1", nil, n.device(t, "rail0", "net1", "10.1.0.5/24"))
	n.host.Up(t, "rail0", "192.0.2.7/24")
	if err := n.host.Handle.LinkSetMTU(n.host.Link(t, "rail0"), 1400); err != nil {
		t.Fatal(err)
	}
	n.attach(t)
	n.restart(t) // killed; the next agent knows only the record
	n.attach(t)
	if err := n.attacher.DetachSandbox(context.Background(), "pod-1", "sandbox-1"); err != nil {
		t.Fatal(err)
	}
	home := n.host.Link(t, "rail0")
	addresses, err := n.host.Handle.AddrList(home, netlink.FAMILY_V4)
	if err != nil {
		t.Fatal(err)
	}
	if attrs := home.Attrs(); attrs.MTU != 1400 || attrs.RawFlags&unix.IFF_UP == 0 || len(addresses) != 1 || addresses[0].IPNet.String() != "192.0.2.7/24" {
		t.Errorf("home with MTU %d, flags %v, addresses %v; want 1400, up, 192.0.2.7/24", attrs.MTU, attrs.Flags, addresses)
	}
}

func TestAttachMovesLocksAndRecords(t *testing.T) {
	n := newNode(t)
	n.peer.ServeTCP(t, 80)
	n.peer.ServeTCP(t, 81)
	n.claim("claim-1", scope("10.1.0.0/24", 80), n.device(t, "rail0", "net1", "10.1.0.5/24"))
	n.claim("claim-2", nil, n.device(t, "rail1", "net2", "10.2.0.5/24"))
	for range 2 { // the second call finds everything done
		n.attach(t)
	}
	if err := n.dial(t, "10.1.0.1:80"); err != nil {
		t.Errorf("allowed over the claimed NIC: %v", err)
	}
	for _, address := range []string{"10.1.0.1:81", "10.2.0.1:80"} {
		if err := n.dial(t, address); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("%s: want a refusal, got %v", address, err)
		}
	}
	for _, claim := range []types.UID{"claim-1", "claim-2"} {
		if err := n.attacher.Check(context.Background(), "pod-1", claim, n.pod.FD); err != nil {
			t.Errorf("%s: %v", claim, err)
		}
		if err := n.attacher.Check(context.Background(), "pod-1", claim, n.peer.FD); err == nil {
			t.Errorf("%s checks out in another namespace", claim)
		}
	}
	if err := n.attacher.DetachSandbox(context.Background(), "pod-1", "an-earlier-sandbox"); err != nil || !n.pod.Has(t, "net1") {
		t.Fatalf("word of an earlier sandbox's end took the device: %v", err)
	}
	if err := n.attacher.DetachSandbox(context.Background(), "pod-1", "sandbox-1"); err != nil {
		t.Fatal(err)
	}
	if !n.host.Has(t, "rail0") || !n.host.Has(t, "rail1") || n.recordCount(t) != 0 {
		t.Errorf("not everything came home, %d records left", n.recordCount(t))
	}
}

func TestPodWithoutClaimsIsLeftAlone(t *testing.T) {
	n := newNode(t)
	n.sandbox.NetNS = "/nowhere"
	n.attach(t)
	if n.recordCount(t) != 0 {
		t.Error("a record was written for nothing")
	}
}

func TestFailureIsUndone(t *testing.T) {
	n := newNode(t)
	gone := n.device(t, "rail1", "net2", "10.2.0.5/24")
	gone.HostMAC = "02:00:00:00:00:99"
	n.claim("claim-1", scope("10.1.0.0/24", 80), n.device(t, "rail0", "net1", "10.1.0.5/24"), gone)
	err := n.attacher.Attach(context.Background(), n.sandbox)
	if err == nil || !strings.Contains(err.Error(), "ns/p") || !strings.Contains(err.Error(), "nic-rail1") {
		t.Fatalf("error does not name pod and device: %v", err)
	}
	if !n.host.Has(t, "rail0") || n.pod.Has(t, "net1") {
		t.Error("the first device did not come home")
	}
	if hash, err := egress.Installed(n.pod.FD); err != nil || hash == "" {
		t.Errorf("the half attached pod is not locked: %q, %v", hash, err)
	}
	if err := n.attacher.Check(context.Background(), "pod-1", "claim-1", n.pod.FD); err == nil {
		t.Error("the half attached pod checks out")
	}
}

func TestHostNetworkIsRefusedUnlessNothingIsAskedOfIt(t *testing.T) {
	n := newNode(t)
	n.sandbox.NetNS = ""
	n.claim("claim-1", nil)
	n.attach(t)
	if n.recordCount(t) != 1 {
		t.Error("a GPU-only claim was not recorded")
	}
	n.claim("claim-2", scope("10.1.0.0/24", 80))
	if err := n.attacher.Attach(context.Background(), n.sandbox); err == nil || !strings.Contains(err.Error(), "uses the host's network") || !strings.Contains(err.Error(), "ns/claim-2") {
		t.Errorf("want a refusal that names the claim, got %v", err)
	}
}

func TestTwoScopesAllowWhatBothAllow(t *testing.T) {
	n := newNode(t)
	n.peer.ServeTCP(t, 80)
	n.peer.ServeTCP(t, 81)
	both := scope("10.1.0.0/24", 80)
	both.Allow[0].Ports = append(both.Allow[0].Ports, v1alpha1.EgressPort{Port: 81})
	n.claim("claim-1", both, n.device(t, "rail0", "net1", "10.1.0.5/24"))
	n.claim("claim-2", scope("10.0.0.0/8", 81))
	n.attach(t)
	if err := n.dial(t, "10.1.0.1:81"); err != nil {
		t.Errorf("allowed by both: %v", err)
	}
	if err := n.dial(t, "10.1.0.1:80"); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("allowed by one only: %v", err)
	}
}

func TestAdmit(t *testing.T) {
	ctx := context.Background()
	n := newNode(t)
	n.claim("claim-1", nil, n.device(t, "rail0", "net1", "10.1.0.5/24"))
	if err := n.attacher.Admit(ctx, Container{Sandbox: n.sandbox, Claim: "claim-1"}, n.pod.FD); err != nil {
		t.Fatalf("a pod that NRI missed: %v", err)
	}
	if !n.pod.Has(t, "net1") {
		t.Error("admitted without its device")
	}
	stranger := n.sandbox
	stranger.Pod = netattach.PodReference{UID: "pod-2", Namespace: "ns", Name: "stranger"}
	if err := n.attacher.Admit(ctx, Container{Sandbox: stranger, Claim: "claim-1"}, n.peer.FD); err == nil || !strings.Contains(err.Error(), "ns/stranger") {
		t.Errorf("another pod's claim: %v", err)
	}
	if err := n.attacher.Admit(ctx, Container{Sandbox: stranger, Claim: "gpu-only"}, n.peer.FD); err == nil || !strings.Contains(err.Error(), "gpu-only of pod ns/stranger is not prepared") {
		t.Errorf("a claim that nobody prepared: %v", err)
	}
	n.claim("gpu-only", nil)
	if err := n.attacher.Admit(ctx, Container{Sandbox: stranger, Claim: "gpu-only"}, n.peer.FD); err != nil {
		t.Errorf("a claim that wants nothing of the network: %v", err)
	}
	if err := n.attacher.Check(ctx, "pod-2", "gpu-only", n.peer.FD); err != nil {
		t.Errorf("it was not recorded: %v", err)
	}
	n.sandbox.Pod.UID = "pod-3"
	n.claim("claim-2", nil, n.device(t, "rail1", "net2", "10.2.0.5/24"))
	if err := n.attacher.Admit(ctx, Container{Sandbox: n.sandbox, Claim: "claim-2"}, n.host.FD); err == nil || !strings.Contains(err.Error(), "uses the host's network") {
		t.Errorf("a container on the host's network: %v", err)
	}
}

// The kubelet prepares a claim once. A pod that uses it later is known to the
// gate alone, and to the records from then on.
func TestPodJoinsAScopePreparedForAnother(t *testing.T) {
	n, ctx := newNode(t), context.Background()
	n.claim("claim-1", scope("10.1.0.0/24", 80))
	later := Sandbox{ID: "sandbox-2", NetNS: n.sandbox.NetNS, Pod: netattach.PodReference{UID: "pod-2", Namespace: "ns", Name: "later"}}
	if err := n.attacher.Admit(ctx, Container{Sandbox: later, Claim: "claim-1"}, n.pod.FD); err != nil {
		t.Fatal(err)
	}
	n.restart(t)
	if err := n.attacher.Check(ctx, "pod-2", "claim-1", n.pod.FD); err != nil {
		t.Errorf("after a restart of the agent: %v", err)
	}
	if err := n.attacher.Reconcile(ctx); err != nil {
		t.Errorf("reconciling it: %v", err)
	}
	if hash, err := egress.Installed(n.pod.FD); err != nil || hash == "" {
		t.Errorf("rules %q, %v; want the scope in force", hash, err)
	}
	if err := n.attacher.Release(ctx, "claim-1"); err != nil || n.recordCount(t) != 0 {
		t.Errorf("release: %v, %d records left", err, n.recordCount(t))
	}
}

// A container that names no claim passes no gate. If the runtime's hook missed
// the pod, the pod is found running and locked then.
func TestRunningPodThatWasMissedIsAttached(t *testing.T) {
	n, ctx := newNode(t), context.Background()
	n.peer.ServeTCP(t, 80)
	nettest.Join(t, n.pod, "eth0", n.peer, "cluster")
	n.pod.Up(t, "eth0", "10.9.0.5/24")
	n.peer.Up(t, "cluster", "10.9.0.1/24")
	n.claim("claim-1", scope("10.1.0.0/24", 80), n.device(t, "rail0", "net1", "10.1.0.5/24"))
	if err := n.dial(t, "10.9.0.1:80"); err != nil {
		t.Fatalf("before: %v", err)
	}
	if err := n.attacher.AttachMissed(ctx, n.sandbox); err != nil {
		t.Fatal(err)
	}
	if err := n.dial(t, "10.9.0.1:80"); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("beyond the scope: want a refusal, got %v", err)
	}
	if err := n.attacher.Check(ctx, "pod-1", "claim-1", n.pod.FD); err != nil {
		t.Error(err)
	}
	ended := n.sandbox
	ended.NetNS += "-gone"
	if err := n.attacher.AttachMissed(ctx, ended); err != nil || !n.pod.Has(t, "net1") {
		t.Errorf("a sandbox that has ended meanwhile: %v", err)
	}
}

// An agent that starts again finds pods whose devices they have changed. Taking
// such a pod apart would make of one fault two.
func TestAttachedPodKeepsItsDevicesWhateverBecameOfOne(t *testing.T) {
	n := newNode(t)
	n.claim("claim-1", nil, n.device(t, "rail0", "net1", "10.1.0.5/24"), n.device(t, "rail1", "net2", "10.2.0.5/24"))
	n.attach(t)
	if err := n.pod.Handle.LinkDel(n.pod.Link(t, "net1")); err != nil {
		t.Fatal(err)
	}
	n.lost = true
	n.restart(t)
	if err := n.attacher.AttachMissed(context.Background(), n.sandbox); err != nil || !n.pod.Has(t, "net2") {
		t.Errorf("%v; want the other device left in the pod", err)
	}
}

func TestDamagedRecordIsNamedAndHidesNoOther(t *testing.T) {
	n := newNode(t)
	n.claim("claim-1", nil, n.device(t, "rail0", "net1", "10.1.0.5/24"))
	n.attach(t)
	damaged := filepath.Join(n.run, "attached", "x-y.json")
	if err := os.WriteFile(damaged, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := n.attacher.Reconcile(context.Background()); err == nil || !strings.Contains(err.Error(), damaged) {
		t.Errorf("the damaged record is not named: %v", err)
	}
	if err := n.attacher.DetachSandbox(context.Background(), "pod-1", "sandbox-1"); err != nil || !n.host.Has(t, "rail0") {
		t.Errorf("the other record was not found: %v", err)
	}
}
