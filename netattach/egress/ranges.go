package egress

// Address arithmetic: prefixes with holes become disjoint, sorted, merged
// ranges, which is also what the kernel's interval sets want to be fed.

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/hostler-dev/hostler/api/v1alpha1"
)

func prefixRanges(prefixes []string) ([]AddressRange, error) {
	var ranges []AddressRange
	for _, text := range prefixes {
		prefix, err := netip.ParsePrefix(text)
		if err != nil {
			return nil, fmt.Errorf("%q is not a prefix: %w", text, err)
		}
		ranges = append(ranges, rangeOf(prefix))
	}
	return merge(ranges), nil
}

// peerRanges is the prefix less its holes.
func peerRanges(peer v1alpha1.CIDRPeer) ([]AddressRange, error) {
	whole, err := prefixRanges([]string{peer.CIDR})
	if err != nil {
		return nil, err
	}
	holes, err := prefixRanges(peer.Except)
	if err != nil {
		return nil, err
	}
	rest := whole
	for _, hole := range holes {
		rest = subtract(rest, hole)
	}
	return rest, nil
}

func rangeOf(prefix netip.Prefix) AddressRange {
	prefix = prefix.Masked()
	last := prefix.Addr().AsSlice()
	for bit := prefix.Bits(); bit < len(last)*8; bit++ {
		last[bit/8] |= 0x80 >> (bit % 8)
	}
	end, _ := netip.AddrFromSlice(last) // as long as the address that it was made of
	return AddressRange{prefix.Addr(), end}
}

func subtract(ranges []AddressRange, hole AddressRange) []AddressRange {
	var rest []AddressRange
	for _, r := range ranges {
		if r.First.BitLen() != hole.First.BitLen() || hole.Last.Less(r.First) || r.Last.Less(hole.First) {
			rest = append(rest, r)
			continue
		}
		if r.First.Less(hole.First) {
			rest = append(rest, AddressRange{r.First, hole.First.Prev()})
		}
		if hole.Last.Less(r.Last) {
			rest = append(rest, AddressRange{hole.Last.Next(), r.Last})
		}
	}
	return rest
}

// merge sorts, IPv4 first, and joins what overlaps or touches.
func merge(ranges []AddressRange) []AddressRange {
	sorted := slices.Clone(ranges)
	slices.SortFunc(sorted, func(a, b AddressRange) int { return a.First.Compare(b.First) })
	merged := sorted[:0] // never ahead of what is read
	for _, next := range sorted {
		if n := len(merged); n > 0 && touches(merged[n-1], next) {
			if merged[n-1].Last.Less(next.Last) {
				merged[n-1].Last = next.Last
			}
			continue
		}
		merged = append(merged, next)
	}
	return merged
}

// touches says whether next, which does not start before r, starts inside r or
// right behind it. Next returns the zero Addr at the end of the address space.
func touches(r, next AddressRange) bool {
	if r.First.BitLen() != next.First.BitLen() {
		return false
	}
	behind := r.Last.Next()
	return !r.Last.Less(next.First) || behind.IsValid() && behind == next.First
}

// ofFamily picks the ranges of one address family.
func ofFamily(ranges []AddressRange, ipv4 bool) []AddressRange {
	picked := make([]AddressRange, 0, len(ranges))
	for _, r := range ranges {
		if r.First.Is4() == ipv4 {
			picked = append(picked, r)
		}
	}
	return picked
}

func contains(ranges []AddressRange, addr netip.Addr) bool {
	return slices.ContainsFunc(ranges, func(r AddressRange) bool {
		return r.First.BitLen() == addr.BitLen() && !addr.Less(r.First) && !r.Last.Less(addr)
	})
}
