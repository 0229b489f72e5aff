package guest

// RDMA devices and network namespaces, with the kernel's own soft RoCE. Its devices
// cannot be moved (rdma_rxe has no disassociate_ucontext), so an exclusive node is
// seen here up to that answer, and what is sent for it is compared with what iproute2 sends.

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
	"k8s.io/apimachinery/pkg/types"

	"github.com/hostler-dev/hostler/api/v1alpha1"
	"github.com/hostler-dev/hostler/netattach"
	"github.com/hostler-dev/hostler/netattach/attach"
	netrdma "github.com/hostler-dev/hostler/netattach/rdma"
	"github.com/hostler-dev/hostler/topology"
)

// said is what a command prints.
func said(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v: %s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// carrier is what of a netdev, and of the port of its RDMA device, follows the carrier,
// which comes and goes a while after whatever was done to a PF. A snapshot has none of it,
// nor the address that the kernel makes for the link.
var carrier = regexp.MustCompile(`NO-CARRIER,|,LOWER_UP| state \S+( physical_state \S+)?|(?m:^fe80::.*\n)`)

// asBefore fails the test at its end unless the machine's RDMA devices, their nodes,
// netdevs, whether these are set up, their addresses, rules and namespaces are as they are now.
func asBefore(t *testing.T) {
	t.Helper()
	needMachine(t)
	snapshot := func() string {
		nodes, err := filepath.Glob("/dev/infiniband/*")
		if err != nil {
			t.Fatal(err)
		}
		names, err := filepath.Glob("/sys/class/net/*")
		if err != nil {
			t.Fatal(err)
		}
		for i, name := range names {
			// One that goes meanwhile has none, and its name is missing at the next look.
			flags, _ := os.ReadFile(name + "/flags")
			names[i] += " " + strings.TrimSpace(string(flags))
		}
		return strings.Join([]string{
			said(t, "/opt/rdma", "system"), carrier.ReplaceAllString(inOrder(said(t, "/opt/rdma", "link")), ""), strings.Join(nodes, "\n"), strings.Join(names, "\n"),
			said(t, "/opt/ip", "-oneline", "address", "show", "scope", "global"), said(t, "/opt/ip", "rule"), said(t, "/opt/ip", "route"), said(t, "/opt/ip", "netns"),
		}, "\n")
	}
	before := snapshot()
	t.Cleanup(func() {
		var diff string
		eventually(t, func() string {
			diff = cmp.Diff(before, snapshot())
			return diff
		})
	})
}

// inOrder has the lines in an order that does not tell which came first.
func inOrder(lines string) string {
	return strings.Join(slices.Sorted(strings.Lines(lines)), "")
}

// namespace makes one that lasts as long as the test, and opens it.
func namespace(t *testing.T, name string) int {
	t.Helper()
	ip(t, "netns add "+name)
	f, err := os.Open("/run/netns/" + name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close(); ip(t, "netns delete "+name) })
	return int(f.Fd())
}

// exclusive has the node run RDMA exclusively until the test ends. The kernel takes
// that only while there is no other namespace, and takes one apart in its own time.
func exclusive(t *testing.T) {
	t.Helper()
	set := func(mode string) {
		eventually(t, func() string {
			if out, err := exec.Command("/opt/rdma", "system", "set", "netns", mode).CombinedOutput(); err != nil {
				return fmt.Sprintf("%v: %s", err, out)
			}
			return ""
		})
	}
	set("exclusive")
	t.Cleanup(func() { set("shared") })
}

// inNamespace runs f on a thread that is in the namespace meanwhile. It must not stay
// there: the process's first thread would for ever, and hold the namespace.
func inNamespace(t *testing.T, namespace int, f func() error) error {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	own, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	if err := unix.Setns(namespace, unix.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Setns(int(own.Fd()), unix.CLONE_NEWNET); err != nil {
			panic(err)
		}
	}()
	return f()
}

// uverbs is the node of an RDMA device by which programs use it.
func uverbs(t *testing.T, device *topology.RDMADevice) string {
	t.Helper()
	for _, path := range device.CharDevices {
		if strings.HasPrefix(filepath.Base(path), "uverbs") {
			return path
		}
	}
	t.Fatalf("%s has no uverbs node, only %v", device.Name, device.CharDevices)
	return ""
}

func TestTheKernelSaysWhichRDMADevicesANamespaceHas(t *testing.T) {
	needMachine(t)
	asBefore(t)
	own, err := os.Open("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	kernel, host := netrdma.Netlink{}, int(own.Fd())
	var want []string
	for _, nic := range discover(t, noUplink).NICs {
		if nic.RDMA != nil {
			want = append(want, nic.RDMA.Name+" "+nic.RDMA.NodeGUID)
		}
	}
	check := func(namespace int, mode netrdma.Mode, want []string) {
		t.Helper()
		devices, err := kernel.Devices(namespace)
		var got []string
		for _, device := range devices {
			got = append(got, device.Name+" "+device.NodeGUID)
		}
		if now, asked := kernel.Mode(namespace); now != mode || asked != nil {
			t.Errorf("mode %s, %v; want %s", now, asked, mode)
		}
		for _, list := range [][]string{got, want} {
			for i := range list {
				if strings.HasSuffix(list[i], " ") {
					t.Errorf("%s has no node GUID", list[i])
				}
			}
		}
		if !sameMembers(got, want) || err != nil {
			t.Errorf("%s: devices %q, %v; want those of sysfs, %q", mode, got, err, want)
		}
	}
	check(host, netrdma.Shared, want)
	t.Run("exclusive", func(t *testing.T) {
		exclusive(t)
		check(host, netrdma.Exclusive, want)
		check(namespace(t, "pod"), netrdma.Exclusive, nil)
	})
	t.Run("shared", func(t *testing.T) { check(namespace(t, "pod"), netrdma.Shared, want) })
}

func sameMembers(a, b []string) bool {
	count := map[string]int{}
	for _, s := range a {
		count[s]++
	}
	for _, s := range b {
		count[s]--
	}
	for _, n := range count {
		if n != 0 {
			return false
		}
	}
	return true
}

// A kernel that would move the device would have to take our request for iproute2's.
func TestTheRequestsAreIproute2s(t *testing.T) {
	needMachine(t)
	if os.Getenv("HOSTLER_RDMA_REQUEST") != "" {
		sendRequest(t)
		return
	}
	asBefore(t)
	exclusive(t)
	namespace(t, "pod")
	device := find(t, discover(t, noUplink), pf0).RDMA.Name
	for name, test := range map[string]struct {
		theirs []string
		// tail is how many bytes at the end are a descriptor, which is each one's own.
		tail int
	}{
		"move":   {[]string{"dev", "set", device, "netns", "pod"}, 4},
		"rename": {[]string{"dev", "set", device, "name", device}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			theirs := changesSentBy(t, exec.Command("/opt/rdma", test.theirs...))
			ours := exec.Command("/proc/self/exe", "-test.run=^TestTheRequestsAreIproute2s$", "-test.v")
			ours.Env = append(os.Environ(), "HOSTLER_RDMA_REQUEST="+name, "HOSTLER_RDMA_DEVICE="+device)
			sent := changesSentBy(t, ours)
			if len(theirs) != 1 || len(sent) != 1 {
				t.Fatalf("iproute2 sends %d changes and the agent %d, want one each", len(theirs), len(sent))
			}
			for _, message := range [][]byte{theirs[0], sent[0]} {
				copy(message[8:16], make([]byte, 8)) // sequence and port
				copy(message[len(message)-test.tail:], make([]byte, test.tail))
			}
			t.Logf("iproute2: %s", hex.EncodeToString(theirs[0]))
			if !bytes.Equal(theirs[0], sent[0]) {
				t.Errorf("the agent sends %s, iproute2 %s", hex.EncodeToString(sent[0]), hex.EncodeToString(theirs[0]))
			}
		})
	}
}

// sendRequest is the agent's side, in a process of its own.
func sendRequest(t *testing.T) {
	own, err := os.Open("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	pod, err := os.Open("/run/netns/pod")
	if err != nil {
		t.Fatal(err)
	}
	kernel := netrdma.Netlink{}
	devices, err := kernel.Devices(int(own.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	for _, device := range devices {
		if device.Name != os.Getenv("HOSTLER_RDMA_DEVICE") {
			continue
		}
		switch os.Getenv("HOSTLER_RDMA_REQUEST") {
		case "move":
			err = kernel.Move(int(own.Fd()), device.Index, int(pod.Fd()))
		case "rename":
			err = kernel.Rename(int(own.Fd()), device.Index, device.Name)
		}
		t.Logf("the kernel answers %v", err)
	}
}

// Two pods' programs ping each other by verbs over the wire between the PFs, whose
// devices are the node's: that is what sharing is.
func TestSharedDevicesAreUsedFromTwoNamespaces(t *testing.T) {
	needMachine(t)
	asBefore(t)
	s := discover(t, noUplink)
	hosts := newWire(t, s)
	for _, name := range []string{"pod-a", "pod-b"} {
		namespace(t, name)
	}
	// What the two need to find each other.
	ip(t, "link add veth-a netns pod-a type veth peer name veth-b netns pod-b")
	for i, name := range []string{"a", "b"} {
		ip(t, fmt.Sprintf("-n pod-%s address add 192.0.2.%d/24 dev veth-%s", name, i+1, name))
		ip(t, fmt.Sprintf("-n pod-%s link set veth-%s up", name, name))
		ip(t, fmt.Sprintf("-n pod-%s link set lo up", name))
	}
	ping := func(pod string, end wireEnd, peer ...string) *exec.Cmd {
		args := []string{"netns", "exec", pod, "/opt/ibv_rc_pingpong", "--chk", "-d", end.rdma, "-g", fmt.Sprint(end.gid), "-n", "20", "-s", "256"}
		return exec.Command("/opt/ip", append(args, peer...)...)
	}
	server := ping("pod-a", hosts[0])
	var heard bytes.Buffer
	server.Stdout, server.Stderr = &heard, &heard
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Wait() }()
	eventually(t, func() string {
		if listening := said(t, "/opt/ip", "netns", "exec", "pod-a", "netstat", "-ltn"); !strings.Contains(listening, ":18515") {
			return "the server does not listen: " + heard.String()
		}
		return ""
	})
	out, err := ping("pod-b", hosts[1], "192.0.2.1").CombinedOutput()
	if err != nil {
		killed := server.Process.Kill()
		t.Fatalf("%v: %s\nthe server, killed (%v, %v): %s", err, out, killed, <-ended, heard.String())
	}
	if err := <-ended; err != nil {
		t.Errorf("the server: %v: %s", err, heard.String())
	}
	if !strings.Contains(string(out), "20 iters in") {
		t.Errorf("the client says %s", out)
	}
	t.Logf("%s", out)
}

// wireEnd is a PF with an address.
type wireEnd struct {
	netdev, rdma, address, mac string
	// gid is the index of the address among the port's.
	gid int
}

// newWire gives both PFs an address and has the kernel send what goes from one to the
// other over the wire, though both are its own.
func newWire(t *testing.T, s *topology.Snapshot) []wireEnd {
	t.Helper()
	var ends []wireEnd
	for i, pf := range []string{pf0, pf1} {
		nic := find(t, s, pf)
		ends = append(ends, wireEnd{netdev: nic.Link.Name, rdma: nic.RDMA.Name, mac: nic.Link.MAC, address: fmt.Sprintf("198.51.100.%d", i+1)})
	}
	// Rules come before the kernel's own addresses only if that rule is put behind them.
	ip(t, "rule add pref 100 lookup local")
	t.Cleanup(func() { ip(t, "rule delete pref 100") })
	ip(t, "rule delete pref 0")
	t.Cleanup(func() { ip(t, "rule add pref 0 lookup local") })
	for i, end := range ends {
		for name, value := range map[string]string{"accept_local": "1", "rp_filter": "0"} {
			path := "/proc/sys/net/ipv4/conf/" + end.netdev + "/" + name
			before, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			write(t, path, value)
			t.Cleanup(func() { write(t, path, string(before)) })
		}
		other := ends[1-i]
		undone := func(what, how string) {
			ip(t, strings.Replace(what, "DO", how, 1))
			t.Cleanup(func() { ip(t, strings.Replace(what, "DO", "delete", 1)) })
		}
		undone(fmt.Sprintf("address DO %s/32 dev %s", end.address, end.netdev), "add")
		undone(fmt.Sprintf("route DO %s/32 dev %s table %d", other.address, end.netdev, 200+i), "add")
		undone(fmt.Sprintf("rule DO pref %d oif %s to %s lookup %d", 10+i, end.netdev, other.address, 200+i), "add")
		undone(fmt.Sprintf("neighbour DO %s lladdr %s dev %s", other.address, other.mac, end.netdev), "add")
		ends[i].gid = gidOf(t, end)
	}
	return ends
}

// gidOf waits until the port has a GID (for RoCE v2) of the address.
func gidOf(t *testing.T, end wireEnd) (index int) {
	t.Helper()
	var a, b, c, d int
	if _, err := fmt.Sscanf(end.address, "%d.%d.%d.%d", &a, &b, &c, &d); err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf("0000:0000:0000:0000:0000:ffff:%02x%02x:%02x%02x", a, b, c, d)
	eventually(t, func() string {
		for index = range 16 {
			text, err := os.ReadFile(fmt.Sprintf("/sys/class/infiniband/%s/ports/1/gids/%d", end.rdma, index))
			if err == nil && strings.TrimSpace(string(text)) == want {
				return ""
			}
		}
		return end.rdma + " has no GID for " + end.address
	})
	return index
}

// journal is what one claim intends.
type journal struct{ intent netattach.Intent }

func (j journal) IntentsForPod(types.UID, string, string) []netattach.Intent {
	return []netattach.Intent{j.intent}
}
func (j journal) Intent(types.UID) (netattach.Intent, bool) { return j.intent, true }

// attachPod attaches a pod whose claim has the RDMA device.
func attachPod(t *testing.T, device netattach.DeviceIntent) (*attach.Attacher, error) {
	t.Helper()
	pod := netattach.PodReference{UID: "pod", Namespace: "ns", Name: "p"}
	attacher, err := attach.New(attach.Config{
		Intents: journal{netattach.Intent{ClaimUID: "claim", ClaimNamespace: "ns", ClaimName: "c", Pods: []netattach.PodReference{pod}, Devices: []netattach.DeviceIntent{device}}},
		Run:     t.TempDir(), CNICache: t.TempDir(),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(attacher.DetachSandbox(context.Background(), "pod", "sandbox"), attacher.Close()); err != nil {
			t.Error(err)
		}
	})
	return attacher, attacher.Attach(t.Context(), attach.Sandbox{ID: "sandbox", NetNS: "/run/netns/pod", Pod: pod})
}

func stateInPod(t *testing.T, attacher *attach.Attacher) netattach.RDMAState {
	t.Helper()
	states, err := attacher.InPods("claim")
	if err != nil || len(states) != 1 || states[0].RDMA == nil {
		t.Fatalf("%v; in the pod: %+v", err, states)
	}
	return *states[0].RDMA
}

func TestARefusedMoveIsToldAndThePodCannotUseTheDevice(t *testing.T) {
	needMachine(t)
	asBefore(t)
	device := find(t, discover(t, noUplink), pf0).RDMA
	exclusive(t)
	pod := namespace(t, "pod")
	t.Run("Exclusive", func(t *testing.T) {
		_, err := attachPod(t, netattach.DeviceIntent{Device: "nic", RDMA: &netattach.RDMAIntent{Device: device.Name, NodeGUID: device.NodeGUID, Mode: v1alpha1.RDMAExclusive}})
		if !errors.Is(err, unix.EOPNOTSUPP) || !strings.Contains(err.Error(), device.Name) {
			t.Errorf("error %v, want the kernel's answer and %s named", err, device.Name)
		}
		t.Log(err)
	})
	t.Run("Shared", func(t *testing.T) {
		if _, err := attachPod(t, netattach.DeviceIntent{Device: "nic", RDMA: &netattach.RDMAIntent{Device: device.Name, Mode: v1alpha1.RDMAShared}}); err == nil || !strings.Contains(err.Error(), "cannot be opened in a pod") {
			t.Errorf("error %v", err)
		}
	})
	t.Run("Auto", func(t *testing.T) {
		attacher, err := attachPod(t, netattach.DeviceIntent{Device: "nic", RDMA: &netattach.RDMAIntent{Device: device.Name, NodeGUID: device.NodeGUID, Mode: v1alpha1.RDMAAuto}})
		if err != nil {
			t.Fatal(err)
		}
		if state := stateInPod(t, attacher); state.Exclusive || !strings.Contains(state.Fallback, "operation not supported") {
			t.Errorf("told as %+v", state)
		}
		if err := attacher.Check(t.Context(), "pod", "claim", pod); err != nil {
			t.Errorf("Check: %v", err)
		}
	})
	// What the condition says: from the pod's namespace nobody opens it.
	path := uverbs(t, device)
	if err := inNamespace(t, pod, func() error { return opened(path) }); !errors.Is(err, unix.EPERM) {
		t.Errorf("in the pod %s opens with %v, want EPERM", path, err)
	}
	if err := opened(path); err != nil {
		t.Errorf("on the host %s opens with %v", path, err)
	}
}

func opened(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return f.Close()
}

// rdma_rxe takes its device down when the netdev changes namespace, and nothing
// brings it back: a pod that was promised RDMA must not start without a word of it.
func TestADeviceThatGoesWithItsNetdevIsMissed(t *testing.T) {
	needMachine(t)
	asBefore(t)
	nic := find(t, discover(t, noUplink), "0000:21:10.0")
	intent := func(mode v1alpha1.RDMAMode) netattach.DeviceIntent {
		return netattach.DeviceIntent{Device: nic.Name, PCI: nic.Placement.PCI, HostName: nic.Link.Name, PodName: "net1", HostMAC: nic.Link.MAC,
			RDMA: &netattach.RDMAIntent{Device: nic.RDMA.Name, NodeGUID: nic.RDMA.NodeGUID, Mode: mode}}
	}
	for _, mode := range []v1alpha1.RDMAMode{v1alpha1.RDMAAuto, v1alpha1.RDMAShared} {
		t.Run(string(mode), func(t *testing.T) {
			namespace(t, "pod")
			t.Cleanup(func() { rdmaAgain(t, nic) })
			attacher, err := attachPod(t, intent(mode))
			if mode == v1alpha1.RDMAShared {
				if err == nil || !strings.Contains(err.Error(), "went away") {
					t.Errorf("error %v, want it to say that the device went away", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if state := stateInPod(t, attacher); !strings.Contains(state.Fallback, "went away") {
				t.Errorf("told as %+v", state)
			}
		})
	}
}

// rdmaAgain makes the VF's device anew, if it is gone.
func rdmaAgain(t *testing.T, nic *topology.NIC) {
	t.Helper()
	eventually(t, func() string {
		if strings.Contains(said(t, "/opt/rdma", "link"), nic.RDMA.Name+"/") {
			return ""
		}
		if out, err := exec.Command("/opt/rdma", "link", "add", nic.RDMA.Name, "type", "rxe", "netdev", nic.Link.Name).CombinedOutput(); err != nil {
			return fmt.Sprintf("%v: %s", err, out)
		}
		return ""
	})
}
