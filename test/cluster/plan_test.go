package cluster

import (
	"net/netip"
	"os"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestPlansOfTwoClustersNeverOverlap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		index := rapid.Permutation([]int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}).Draw(t, "index")
		nodes := []NodeOptions{{Name: "node1"}, {Name: "node2"}}
		a, errA := newPlan(Options{Name: "a", Nodes: nodes}, "/a", index[0])
		b, errB := newPlan(Options{Name: "b", Nodes: nodes}, "/b", index[1])
		if errA != nil || errB != nil {
			t.Fatal(errA, errB)
		}
		var prefixes []netip.Prefix
		for _, p := range []Plan{a, b} {
			prefixes = append(prefixes, netip.MustParsePrefix(p.serverAddress()+"/24").Masked(), netip.MustParsePrefix(p.worldAddress6()+"/64").Masked())
			for subnet := range strings.SplitSeq(p.serviceSubnets()+","+p.podSubnets(), ",") {
				prefixes = append(prefixes, netip.MustParsePrefix(subnet))
			}
		}
		for i, one := range prefixes {
			for _, other := range prefixes[:i] {
				if one.Overlaps(other) {
					t.Fatalf("%s overlaps %s", one, other)
				}
			}
		}
		if a.rootLink() == b.rootLink() || a.netNS("net") == b.netNS("net") || a.etcdURL() == b.etcdPeerURL() {
			t.Fatal("two clusters share a link, a namespace or a port")
		}
	})
}

func TestNodesLieWithinTheirClustersSubnets(t *testing.T) {
	plan, err := newPlan(Options{Name: "c", Nodes: []NodeOptions{{Name: "node1"}, {Name: "node2"}}}, "/c", 3)
	if err != nil {
		t.Fatal(err)
	}
	pods := strings.Split(plan.podSubnets(), ",")
	for _, n := range plan.Nodes {
		for i, subnet := range []string{plan.podSubnet(n), plan.podSubnet6(n)} {
			if !netip.MustParsePrefix(pods[i]).Contains(netip.MustParsePrefix(subnet).Addr()) {
				t.Errorf("pods of %s: %s is not in %s", n.Name, subnet, pods[i])
			}
		}
	}
}

func TestNamesThatCannotBeAreRefused(t *testing.T) {
	rows := map[string]Options{
		"empty cluster name":               {Name: ""},
		"capital letters":                  {Name: "Cluster"},
		"a path":                           {Name: "../etc"},
		"too long for a link or a socket":  {Name: strings.Repeat("a", 16)},
		"a node twice":                     {Name: "a", Nodes: []NodeOptions{{Name: "n"}, {Name: "n"}}},
		"a node named as the outside":      {Name: "a", Nodes: []NodeOptions{{Name: "world"}}},
		"a node name that is a shell word": {Name: "a", Nodes: []NodeOptions{{Name: "$(reboot)"}}},
	}
	for what, options := range rows {
		t.Run(what, func(t *testing.T) {
			if plan, err := newPlan(options, "/x", 0); err == nil {
				t.Errorf("planned %+v", plan)
			}
		})
	}
}

func TestSocketPathsFitTheKernelsLimit(t *testing.T) {
	longest := strings.Repeat("n", 15)
	plan, err := newPlan(Options{Name: longest, Nodes: []NodeOptions{{Name: longest}}}, StateDir(longest), 0)
	if err != nil {
		t.Fatal(err)
	}
	node := plan.Nodes[0]
	for _, socket := range []string{plan.containerdSocket(node), plan.nodePath(node, "lib/kubelet/plugins/hostler.dev/dra-01234567.sock")} {
		if len(socket) > 107 {
			t.Errorf("%s has %d bytes, more than sun_path holds", socket, len(socket))
		}
	}
}

func TestProcessRecordsOutliveReusedPids(t *testing.T) {
	plan := Plan{Name: "a", Dir: t.TempDir(), Binaries: "/"}
	for _, dir := range []string{"log", "pid"} {
		if err := os.Mkdir(plan.path(dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	c := component{plan: plan, name: "sleeper", argv: []string{"sleep", "60"}}
	p, err := c.start()
	if err != nil {
		t.Fatal(err)
	}
	pid, alive := c.running()
	if !alive {
		t.Fatal("it does not run")
	}
	if err := killAll(t.Context(), func() []int { return []int{pid} }); err != nil {
		t.Fatal(err)
	}
	<-p.exited
	if _, alive := c.running(); alive {
		t.Error("it was killed and still counts as running")
	}
	// Pid 1 lives, but is not what was recorded.
	if err := os.WriteFile(c.pidPath(), []byte("1 12345678901\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, alive := c.running(); alive {
		t.Error("another process under a reused pid counts as ours")
	}
}
