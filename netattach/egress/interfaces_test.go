package egress

// Interfaces that come, go and come back while a scope is in force.

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"github.com/hostler-dev/hostler/api/v1alpha1"
	"github.com/hostler-dev/hostler/netattach/internal/nettest"
)

func enforcer(t testing.TB, pod *nettest.Namespace, rules Ruleset) *Enforcer {
	t.Helper()
	e, err := NewEnforcer(pod.FD, rules)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	return e
}

// Both ways to get there: one Enforcer that knows what it did, and a new one.
func TestAnInterfaceAddedLaterGetsItsChainAndNothingElseChanges(t *testing.T) {
	rules := compiled(t, v1alpha1.EgressConfig{Allow: []v1alpha1.EgressRule{
		allow("udp", "198.51.100.0/24", v1alpha1.EgressPort{Protocol: v1alpha1.ProtocolUDP, Port: 9})}})
	for name, ways := range map[string]func(t *testing.T, pod *nettest.Namespace) (again func(context.Context) error){
		"by the Enforcer that wrote the rules": func(t *testing.T, pod *nettest.Namespace) func(context.Context) error {
			return enforcer(t, pod, rules).Enforce
		},
		"by another": func(_ *testing.T, pod *nettest.Namespace) func(context.Context) error {
			return func(ctx context.Context) error { return Enforce(ctx, pod.FD, rules) }
		},
	} {
		t.Run(name, func(t *testing.T) {
			ctx := context.Background()
			pod, outside := podAndOutside(t)
			outside.ListenUDP(t, 9)
			again := ways(t, pod)
			if err := again(ctx); err != nil {
				t.Fatal(err)
			}
			if err := sendPacket(t, pod, Packet{Destination: rules.Allow[0].To[0].First, Protocol: UDP, Port: 9}); err != nil {
				t.Fatal(err)
			}
			for _, added := range []string{"net1", "net2"} {
				before := strings.Fields(handles(t, pod))
				nettest.Join(t, pod, added, outside, "to-"+added)
				if err := again(ctx); err != nil {
					t.Fatal(err)
				}
				if err := Verify(ctx, pod.FD, rules); err != nil {
					t.Fatal(err)
				}
				after := strings.Fields(handles(t, pod))
				var fresh []string
				for _, handle := range after {
					if len(before) > 0 && handle == before[0] {
						before = before[1:]
					} else {
						fresh = append(fresh, handle)
					}
				}
				if len(before) > 0 || len(fresh) != 4 || !strings.HasPrefix(fresh[0], "egress-"+added) {
					t.Errorf("%s: want only its four rules to be new, got new %v, lost %v", added, fresh, before)
				}
			}
			counters, err := Counters(pod.FD)
			if err != nil {
				t.Fatal(err)
			}
			if counters["allow udp"].Packets != 1 {
				t.Errorf("the counters did not stay: %v", counters)
			}
		})
	}
}

// A process of the pod writes raw frames to an interface from before it is there.
func TestNoRawFramePassesWhileAnInterfaceIsAdded(t *testing.T) {
	pod, outside := podAndOutside(t)
	ctx := context.Background()
	e := enforcer(t, pod, compiled(t, v1alpha1.EgressConfig{}))
	if err := e.Enforce(ctx); err != nil {
		t.Fatal(err)
	}
	onOld, onNew := pod.Flood(t, "eth0"), pod.Flood(t, "net1")
	sniffedOld := outside.Sniff(t, "pod")
	nettest.Join(t, pod, "net1", outside, "to-net1")
	outside.Up(t, "to-net1")
	sniffedNew := outside.Sniff(t, "to-net1")
	if err := e.Enforce(ctx); err != nil {
		t.Fatal(err)
	}
	pod.Up(t, "net1")
	for start := onNew.Load(); onNew.Load() < start+1000; {
	}
	for link, sniffed := range map[string]<-chan string{"eth0": sniffedOld, "net1": sniffedNew} {
		// Frames of one veth keep their order, so one of the flood would come first.
		pod.Solicit(t, link)
		if got := <-sniffed; got != nettest.Solicitation {
			t.Errorf("%s: %q got out after %d and %d tries", link, got, onOld.Load(), onNew.Load())
		}
	}
	counters, err := Counters(pod.FD)
	if err != nil {
		t.Fatal(err)
	}
	if counters[RuleRaw].Packets < 1000 {
		t.Errorf("only %d frames came to the rules, the test shows nothing", counters[RuleRaw].Packets)
	}
	e.socket.DelTable(&nftables.Table{Name: tableName, Family: nftables.TableFamilyNetdev})
	if err := e.socket.Flush(); err != nil {
		t.Fatal(err)
	}
	got := <-sniffedNew
	for got == nettest.Solicitation { // the kernel asks again
		got = <-sniffedNew
	}
	if got != "flood" {
		t.Errorf("without the chain: %q, want the flood", got)
	}
}

func TestAnInterfaceThatCameBackIsCovered(t *testing.T) {
	pod, outside := podAndOutside(t)
	ctx := context.Background()
	rules := compiled(t, v1alpha1.EgressConfig{})
	e := enforcer(t, pod, rules)
	for _, peer := range []string{"first", "second"} {
		nettest.Join(t, pod, "net1", outside, peer)
		if err := e.Enforce(ctx); err != nil {
			t.Fatal(err)
		}
		if err := Verify(ctx, pod.FD, rules); err != nil {
			t.Fatal(err)
		}
		outside.Up(t, peer)
		sniffed := outside.Sniff(t, peer)
		pod.Up(t, "net1")
		tried := pod.Flood(t, "net1")
		for tried.Load() < 100 {
		}
		pod.Solicit(t, "net1")
		if got := <-sniffed; got != nettest.Solicitation {
			t.Errorf("through the %s net1: %q got out", peer, got)
		}
		if err := pod.Handle.LinkDel(pod.Link(t, "net1")); err != nil {
			t.Fatal(err)
		}
	}
}

// What the kernel refuses is named, however long the message was, and what is
// there stays.
func TestARefusedTransactionChangesNothing(t *testing.T) {
	pod, _ := podAndOutside(t)
	rules := compiled(t, v1alpha1.EgressConfig{Never: []string{"2001:db8::/32"}})
	enforce(t, pod, rules)
	before := handles(t, pod)
	socket, err := connect(pod.FD)
	if err != nil {
		t.Fatal(err)
	}
	defer socket.CloseLasting()
	var many []AddressRange
	for i := range 1000 {
		many = append(many, rangeOf(netip.MustParsePrefix(fmt.Sprintf("2001:db8:%x::/64", i))))
	}
	overlap := AddressRange{First: many[0].First.Next(), Last: many[0].Last}
	f := inetForm(rules, rules.Hash(), marks{1, 2})
	f.sets[0].elements = intervals(slices.Insert(many, 1, overlap))
	if err := socket.write(f); !errors.Is(err, unix.EEXIST) || !strings.Contains(err.Error(), "elements of set never-ip6") {
		t.Errorf("want the name of the set, got %v", err)
	}
	if after := handles(t, pod); after != before {
		t.Errorf("the refused transaction left\n%s\nof\n%s", after, before)
	}
}

// Enforcing again is what attaching a device does between its steps. It must
// cost next to nothing.
func BenchmarkEnforceAgain(b *testing.B) {
	pod := nettest.New(b)
	e := enforcer(b, pod, compiled(b, v1alpha1.EgressConfig{Allow: []v1alpha1.EgressRule{thousandPrefixes()}}))
	for b.Loop() {
		if err := e.Enforce(context.Background()); err != nil {
			b.Fatal(err)
		}
	}
}
