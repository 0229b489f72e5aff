package nic

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// An address is led to by the routes of the longest prefix that holds it, in every table.
func TestTheLongestPrefixOfEveryTableLeadsToAnAddress(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		address := rapid.Custom(func(t *rapid.T) netip.Addr {
			low := rapid.SampledFrom([]byte{0, 1, 2, 0x80}).Draw(t, "low") // few, so that prefixes meet
			if rapid.Bool().Draw(t, "IPv6") {
				return netip.AddrFrom16([16]byte{0x20, 1, 0x0d, 0xb8, 15: low})
			}
			return netip.AddrFrom4([4]byte{10, 0, 0, low})
		})
		n := &namespace{}
		for range rapid.IntRange(0, 12).Draw(t, "routes") {
			a := address.Draw(t, "destination")
			bits := rapid.SampledFrom([]int{0, 1, 24, 31, 32, a.BitLen() - 1, a.BitLen()}).Draw(t, "bits")
			n.routes = append(n.routes, Route{
				Destination: netip.PrefixFrom(a, min(bits, a.BitLen())).Masked(), Links: []int{1},
				Metric: rapid.IntRange(0, 2).Draw(t, "metric"), Table: rapid.SampledFrom([]int{0, 7, 254}).Draw(t, "table"),
			})
		}
		seen, err := observe(n, nil)
		if err != nil {
			t.Fatal(err)
		}
		to := address.Draw(t, "to")
		var want []chosenRoute
		for _, r := range seen.routes {
			isLonger := func(other chosenRoute) bool {
				return other.table() == r.table() && other.Destination.Contains(to) && other.Destination.Bits() > r.Destination.Bits()
			}
			if r.Destination.Contains(to) && !slices.ContainsFunc(seen.routes, isLonger) {
				want = append(want, r)
			}
		}
		same := cmp.Comparer(func(a, b chosenRoute) bool {
			return a.Destination == b.Destination && a.Metric == b.Metric && a.table() == b.table()
		})
		if got := seen.towards(to); !cmp.Equal(want, got, same) && len(want)+len(got) > 0 {
			t.Fatalf("to %s lead %v, want %v", to, got, want)
		}
	})
}

// A node of a cluster of 5,000 with pods behind Calico's tunl0.
func BenchmarkJudgingALargeCluster(b *testing.B) {
	n := ports().route("0.0.0.0/0", 0, "p0").route("10.1.0.0/16", 0, "p1").tunnel("tunl0", "ipip", "", "", "")
	for i := range 20000 {
		high, low := byte(i>>8), byte(i)
		n.route(netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 244, high, low}), 32).String(), 0, "tunl0").by(12)
		n.routed(func(r *Route) { r.Gateways = []netip.Addr{netip.AddrFrom4([4]byte{10, 1, high >> 2, low})} })
	}
	root, tree := hardware(b)
	reader := New(Config{Sys: root, Dev: b.TempDir(), Kernel: n})
	nics := read(b.Context(), reader, tree)
	for b.Loop() {
		if _, err := reader.Uplinks(b.Context(), nics[:1]); err != nil {
			b.Fatal(err)
		}
	}
}
