package apiserver

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"

	"github.com/hostler-dev/hostler/driver/apiserver"
	"github.com/hostler-dev/hostler/driver/publish"
)

const (
	draGates = "DRADeviceTaints=true,DRAPartitionableDevices=true,DRAConsumableCapacity=true"
	gatesOff = "DRADeviceTaints=false,DRADeviceTaintRules=false,DRAPartitionableDevices=false,DRAConsumableCapacity=false"
)

// releases are the API servers of the tests, and what each must be found able to do.
var releases = []struct {
	name, release, gates string
	want                 publish.Features
}{
	{name: "1.34 as it comes", release: "1.34", want: publish.Features{}},
	// Shared counters of 1.34 are in the same slice as the devices: another form.
	{name: "1.34 with the gates on", release: "1.34", gates: draGates, want: publish.Features{Taints: true, FewTaints: true, SharedDevices: true}},
	{name: "1.35 as it comes", release: "1.35", want: publish.Features{}},
	{name: "1.35 with the gates on", release: "1.35", gates: draGates, want: publish.Features{Taints: true, Counters: true, SharedDevices: true}},
	{name: "1.36 as it comes", release: "1.36", want: publish.Features{Taints: true, Counters: true, SharedDevices: true}},
	{name: "1.36 with lists", release: "1.36", gates: "DRAListTypeAttributes=true", want: publish.Features{Taints: true, Counters: true, SharedDevices: true, ListAttributes: true}},
	{name: "1.37 as it comes", release: "1.37", want: publish.Features{Taints: true, Counters: true, SharedDevices: true}},
	{name: "1.37 with lists", release: "1.37", gates: "DRAListTypeAttributes=true", want: publish.Features{Taints: true, Counters: true, SharedDevices: true, ListAttributes: true}},
	{name: "1.37 with taints alone", release: "1.37", gates: "DRAPartitionableDevices=false,DRAConsumableCapacity=false", want: publish.Features{Taints: true}},
	{name: "1.37 with counters alone", release: "1.37", gates: "DRADeviceTaints=false,DRADeviceTaintRules=false,DRAConsumableCapacity=false", want: publish.Features{Counters: true}},
}

func gatesArgument(gates string) []string {
	if gates == "" {
		return nil
	}
	return []string{"--feature-gates=" + gates}
}

// TestReleases goes through the API servers.
func TestReleases(t *testing.T) {
	for _, r := range releases {
		t.Run(r.name, func(t *testing.T) {
			t.Parallel()
			s := startServer(t, r.release, gatesArgument(r.gates)...)
			agent := installAgent(t, s)
			t.Run("the probe finds what the server can do", func(t *testing.T) {
				// A field that is unknown to a server gets lost in another way in each encoding.
				config := s.config(adminToken)
				config.ContentType = runtime.ContentTypeProtobuf
				protobuf, err := kubernetes.NewForConfig(config)
				if err != nil {
					t.Fatal(err)
				}
				for encoding, client := range map[string]kubernetes.Interface{"JSON": agent, "protobuf": protobuf} {
					got, err := apiserver.Probe(t.Context(), client, nodeName)
					if err != nil {
						t.Fatal(err)
					}
					if got != r.want {
						t.Errorf("features are %+v in %s, want %+v", got, encoding, r.want)
					}
				}
				stored, err := agent.ResourceV1().ResourceSlices().List(t.Context(), metav1.ListOptions{})
				if err != nil {
					t.Fatal(err)
				}
				if len(stored.Items) != 0 {
					t.Errorf("probing stored %d slices, want none", len(stored.Items))
				}
			})
			t.Run("largest machines", func(t *testing.T) { testLargest(t, agent, r.want) })
			t.Run("changes", func(t *testing.T) { testChanges(t, agent, r.want) })
		})
	}
}

// TestNoAnswer has a server that cannot or will not tell: never may that look
// like a server without features.
func TestNoAnswer(t *testing.T) {
	t.Parallel()
	s := startServer(t, "1.37")
	agent := installAgent(t, s)
	admin := s.client(t, adminToken)
	expect := func(t *testing.T, err error, words ...string) {
		t.Helper()
		if err == nil {
			t.Fatal("the probe answered")
		}
		for _, word := range words {
			if !strings.Contains(err.Error(), word) {
				t.Errorf("the error does not mention %q: %v", word, err)
			}
		}
	}
	t.Run("no rights", func(t *testing.T) {
		if _, err := admin.CoreV1().ServiceAccounts(metav1.NamespaceDefault).Create(t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "nobody"}}, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		_, err := apiserver.Probe(t.Context(), s.client(t, token(t, admin, metav1.NamespaceDefault, "nobody", nil)), nodeName)
		expect(t, err, "forbids", "ClusterRole", "resourceslices")
	})
	t.Run("an admission policy that refuses the node", func(t *testing.T) {
		_, err := apiserver.Probe(t.Context(), agent, otherNode)
		expect(t, err, "even a plain ResourceSlice of node node2", "may only write ResourceSlices of that node")
	})
	t.Run("an API that is not served", func(t *testing.T) {
		s.process.kill()
		s.start(t, "--runtime-config=resource.k8s.io/v1=false")
		_, err := apiserver.Probe(t.Context(), agent, nodeName)
		expect(t, err, "1.34 or newer", "--runtime-config")
	})
	t.Run("a server without its database", func(t *testing.T) {
		s.process.kill()
		s.start(t)
		s.etcdProcess.kill()
		_, err := apiserver.Probe(t.Context(), agent, nodeName)
		expect(t, err)
	})
	t.Run("no server", func(t *testing.T) {
		s.process.kill()
		_, err := apiserver.Probe(t.Context(), agent, nodeName)
		expect(t, err, "connection refused")
	})
}

// TestUpgrade restarts a server with more features, and then with fewer, under a running prober.
func TestUpgrade(t *testing.T) {
	t.Parallel()
	s := startServer(t, "1.37", gatesArgument(gatesOff)...)
	agent := installAgent(t, s)
	changed := make(chan publish.Features, 10)
	prober := apiserver.NewProber(apiserver.ProberConfig{Client: agent, NodeName: nodeName, Changed: func(f publish.Features) { changed <- f }})
	if _, known := prober.Features(); known {
		t.Error("features are known before the first probe")
	}
	go prober.Run(t.Context())
	next := func(why string, want publish.Features) {
		t.Helper()
		select {
		case got := <-changed:
			if now, known := prober.Features(); got != want || now != want || !known {
				t.Fatalf("%s: features became %+v and are %+v (known: %v), want %+v", why, got, now, known, want)
			}
		case <-t.Context().Done():
			t.Fatal("the test ended while waiting for the prober")
		}
	}
	all := publish.Features{Taints: true, Counters: true, SharedDevices: true}
	next("at start", publish.Features{})
	s.process.kill()
	s.start(t)
	prober.Again()
	next("after the upgrade", all)
	s.process.kill()
	s.start(t, gatesArgument(gatesOff)...)
	prober.Again()
	next("after the way back", publish.Features{})
}
