package attach

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/types"
	"pgregory.net/rapid"

	"github.com/hostler-dev/hostler/netattach"
)

// A claim of pod-1 and pod-2 is deleted with force. Whether its devices can be
// given away depends on what is on record and on what the runtime says.
func TestInUse(t *testing.T) {
	pod := netattach.PodReference{UID: "pod-1", Namespace: "ns", Name: "p"}
	onHost := &Record{State: StateAttached, SandboxID: "s", Pod: pod}
	own := func(path string) *Record {
		return &Record{State: StateAttached, SandboxID: "s", Pod: pod, NetNS: path, NetNSInode: inode(t, "/proc/self/ns/net")}
	}
	disconnected := func(l *Living) { l.Began(Sandbox{ID: "s", Pod: pod}) }
	says := func(sandboxes ...Sandbox) func(*Living) { return func(l *Living) { l.Are(sandboxes) } }
	first, second, other := Sandbox{ID: "s", Pod: pod}, Sandbox{ID: "t", Pod: netattach.PodReference{UID: "pod-2"}}, Sandbox{ID: "u", Pod: netattach.PodReference{UID: "pod-3"}}
	runs := func(pods ...types.UID) func() (Running, error) {
		return func() (Running, error) { return func(pod types.UID) bool { return slices.Contains(pods, pod) }, nil }
	}
	joined := *onHost
	joined.Pod.UID = "pod-3"
	for _, test := range []struct {
		name   string
		record *Record
		// runtime is nil where nobody speaks for one.
		runtime func(*Living)
		want    string
		// processes is what is known of the node's, nothing if nil.
		processes func() (Running, error)
	}{
		{"a pod on the host's network, with the runtime connected", onHost, says(first, other), "in use", nil},
		{"its sandbox has ended", onHost, says(other), "free", nil},
		{"nothing was heard of the runtime since the agent's start", onHost, func(*Living) {}, "unknown", nil},
		{"the runtime has been disconnected", onHost, disconnected, "unknown", nil},
		{"the runtime came back without it", onHost, func(l *Living) { disconnected(l); l.Forget(); l.Are(nil) }, "free", nil},
		{"nobody speaks for a runtime, as for `hostler release`", onHost, nil, "free", nil},
		{"a pod with a namespace of its own", own("/proc/self/ns/net"), says(first), "in use", nil},
		{"that the runtime does not know", own("/proc/self/ns/net"), says(), "in use", nil},
		{"whose namespace is gone", own("/proc/self/ns/gone"), says(), "free", nil},
		{"whose namespace is gone, with the runtime disconnected", own("/proc/self/ns/gone"), disconnected, "free", nil},
		{"a pod that no container of passed the gate", nil, disconnected, "free", nil},
		{"a pod that no container of passed the gate yet", nil, says(second), "in use", nil},
		{"a pod that joined the claim later", &joined, says(other), "in use", nil},
		{"without the runtime, a process of the pod runs", onHost, disconnected, "in use", runs("pod-1", "pod-9")},
		{"without the runtime, none does", onHost, disconnected, "free", runs("pod-9")},
		{"without the runtime, of a pod that joined later one does", &joined, disconnected, "in use", runs("pod-3")},
		{"without the runtime, the agent does not see the node's processes", onHost, disconnected, "unknown", func() (Running, error) { return nil, errors.New("hostPID") }},
		{"the runtime's word counts before that of processes", onHost, says(other), "free", runs("pod-1")},
	} {
		cfg := Config{Intents: journal{"claim-1": {ClaimUID: "claim-1", ClaimNamespace: "ns", ClaimName: "c", Pods: []netattach.PodReference{pod, {UID: "pod-2"}}}}, Run: t.TempDir(), Running: test.processes}
		if test.runtime != nil {
			cfg.Living = &Living{}
			test.runtime(cfg.Living)
		}
		attacher, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		if test.record != nil {
			record := *test.record
			record.Intent.ClaimUID, record.Intent.ClaimName = "claim-1", "c"
			if err := attacher.records.write(record); err != nil {
				t.Fatal(err)
			}
		}
		inUse, err := attacher.InUse("claim-1")
		got := map[bool]string{true: "in use", false: "free"}[inUse]
		if err != nil {
			if got = "unknown"; inUse || !strings.Contains(err.Error(), "NRI") || !strings.Contains(err.Error(), "ns/p") {
				t.Errorf("%s: %v", test.name, err)
			}
		}
		if got != test.want {
			t.Errorf("%s: %s, want %s", test.name, got, test.want)
		}
		if err := attacher.Close(); err != nil {
			t.Error(err)
		}
	}
}

func inode(t *testing.T, path string) uint64 {
	t.Helper()
	n, err := openNamespace(path)
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	return n.inode
}

// The sandbox of a pod on the host's network ended while no agent heard of it.
func TestRecordOfAnEndedPodOnTheHostsNetworkGoes(t *testing.T) {
	living := &Living{}
	var processes []types.UID
	blind := errors.New("the agent does not see the node's processes")
	attacher, err := New(Config{Intents: journal{}, Run: t.TempDir(), Living: living, Running: func() (Running, error) {
		return func(pod types.UID) bool { return slices.Contains(processes, pod) }, blind
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer attacher.Close()
	record := Record{State: StateAttached, SandboxID: "s", Pod: netattach.PodReference{UID: "pod-1"}, Intent: netattach.Intent{ClaimUID: "claim-1"}}
	if err := attacher.records.write(record); err != nil {
		t.Fatal(err)
	}
	for _, moment := range []struct {
		name   string
		happen func()
		left   int
	}{
		{"the runtime is not connected", func() {}, 1},
		{"it says that the pod lives", func() { living.Are([]Sandbox{{ID: "s", Pod: record.Pod}}) }, 1},
		{"it goes away", living.Forget, 1},
		{"it says that the pod does not", func() { living.Are(nil) }, 0},
		{"it goes away, and a process of the pod runs", func() {
			living.Forget()
			if err := attacher.records.write(record); err != nil {
				t.Fatal(err)
			}
			blind, processes = nil, []types.UID{"pod-1"}
		}, 1},
		{"no process of it runs", func() { processes = []types.UID{"pod-2"} }, 0},
	} {
		moment.happen()
		if err := attacher.Reconcile(context.Background()); err != nil {
			t.Fatal(err)
		}
		if left, err := attacher.records.list(); err != nil || len(left) != moment.left {
			t.Errorf("%s: %d records (%v)", moment.name, len(left), err)
		}
	}
}

// Whatever the order of a runtime's words, a pod lives as long as one of its
// sandboxes does, and nothing is known between two connections.
func TestLivingFollowsTheRuntime(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		living, known, model := &Living{}, false, map[Sandbox]bool{}
		sandbox := func() Sandbox {
			pod := rapid.SampledFrom([]string{"a", "b"}).Draw(t, "pod")
			return Sandbox{ID: pod + rapid.SampledFrom([]string{"1", "2"}).Draw(t, "sandbox"), Pod: netattach.PodReference{UID: types.UID(pod)}}
		}
		t.Repeat(map[string]func(*rapid.T){
			"began": func(*rapid.T) { s := sandbox(); living.Began(s); model[s] = true },
			"ended": func(*rapid.T) { s := sandbox(); living.Ended(s); delete(model, s) },
			"lost":  func(*rapid.T) { living.Forget(); known = false },
			"listed": func(*rapid.T) {
				list := []Sandbox{sandbox(), sandbox()}
				living.Are(list)
				known, model = true, map[Sandbox]bool{list[0]: true, list[1]: true}
			},
			"": func(t *rapid.T) {
				for _, pods := range [][]string{{"a"}, {"b"}, {"a", "b"}, {}} {
					var references []netattach.PodReference
					want := false
					for _, pod := range pods {
						references = append(references, netattach.PodReference{UID: types.UID(pod)})
						for s := range model {
							want = want || s.Pod.UID == types.UID(pod)
						}
					}
					if lives, isKnown := living.any(references); lives != want || isKnown != known {
						t.Fatalf("%v: lives %v, known %v; want %v, %v", pods, lives, isKnown, want, known)
					}
				}
			},
		})
	})
}

// A container that passes the gate lives, whether or not the runtime's word of its
// sandbox came through.
func TestGateCountsAsWordOfLife(t *testing.T) {
	living := &Living{}
	living.Are(nil)
	sandbox := Sandbox{ID: "s", Pod: netattach.PodReference{UID: "pod-1", Namespace: "ns", Name: "p"}}
	attacher, err := New(Config{Run: t.TempDir(), Living: living,
		Intents: journal{"claim-1": {ClaimUID: "claim-1", Pods: []netattach.PodReference{sandbox.Pod}}}})
	if err != nil {
		t.Fatal(err)
	}
	defer attacher.Close()
	host, err := os.Open("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	defer host.Close()
	if err := attacher.Admit(context.Background(), Container{Sandbox: sandbox, Claim: "claim-1"}, int(host.Fd())); err != nil {
		t.Fatal(err)
	}
	records, err := attacher.records.list()
	if err != nil || !slices.ContainsFunc(records, func(r Record) bool { return r.NetNS == "" && r.Pod == sandbox.Pod }) {
		t.Fatalf("records %+v (%v)", records, err)
	}
	if inUse, err := attacher.InUse("claim-1"); err != nil || !inUse {
		t.Errorf("in use %v (%v)", inUse, err)
	}
	living.Ended(sandbox)
	if inUse, err := attacher.InUse("claim-1"); err != nil || inUse {
		t.Errorf("after its end: in use %v (%v)", inUse, err)
	}
}

func TestWhoWaitsForAnEndIsTold(t *testing.T) {
	told, lives := 0, true
	living := &Living{}
	sandbox := Sandbox{ID: "s", Pod: netattach.PodReference{UID: "pod-1"}}
	living.Left = func() {
		told++
		lives, _ = living.any([]netattach.PodReference{sandbox.Pod})
	}
	living.Began(sandbox)
	living.Ended(sandbox)
	if told != 1 || lives {
		t.Errorf("told %d times, and the sandbox lives: %v", told, lives)
	}
	living.Began(sandbox)
	living.Forget()
	living.Are(nil)
	if told != 2 || lives {
		t.Errorf("told %d times, and after a list without it the sandbox lives: %v", told, lives)
	}
}
