// Stacks: links of the node that lie over each other, over the links of NICs, laid
// out like blocks.

package topology

import (
	"cmp"
	"maps"
	"slices"
)

// stack is a set of links that lie over each other, over the links of NICs.
type stack struct {
	bases  []string // names of netdevs, in the order of their NICs
	blocks []block
	hidden int // links that found no room
}

// block is a stacked link over the bases first to last, row rows above them.
type block struct {
	link        *StackedLink
	first, last int
	row         int
}

// stacksOf sorts the stacked links into stacks that have nothing to do with each other.
func stacksOf(s *Snapshot) []*stack {
	links := map[string]*StackedLink{}
	for i := range s.StackedLinks {
		links[s.StackedLinks[i].Name] = &s.StackedLinks[i]
	}
	order := map[string]int{} // unknown bases first
	for i, nic := range s.NICs {
		if nic.Link != nil {
			order[nic.Link.Name] = i + 1
		}
	}
	bases := map[string][]string{}
	depth := map[string]int{}
	for name := range links {
		found := map[string]bool{}
		depth[name] = basesOf(links, name, map[string]bool{}, found)
		bases[name] = slices.Collect(maps.Keys(found))
	}
	names := slices.SortedFunc(maps.Keys(links), func(a, b string) int {
		return cmp.Or(cmp.Compare(depth[a], depth[b]), cmp.Compare(links[b].Uplink, links[a].Uplink), cmp.Compare(a, b))
	})
	var stacks []*stack
	for _, group := range connected(names, bases) {
		st := &stack{bases: group.bases}
		slices.SortFunc(st.bases, func(a, b string) int { return cmp.Or(cmp.Compare(order[a], order[b]), cmp.Compare(a, b)) })
		for _, name := range group.links {
			st.put(links[name], bases[name], depth[name])
		}
		stacks = append(stacks, st)
	}
	slices.SortFunc(stacks, func(a, b *stack) int {
		return cmp.Or(cmp.Compare(order[a.bases[0]], order[b.bases[0]]), cmp.Compare(a.bases[0], b.bases[0]))
	})
	return stacks
}

// basesOf finds the links at the bottom of a link and returns how many levels
// it is above them. The kernel allows no circles, but a snapshot might hold one.
func basesOf(links map[string]*StackedLink, name string, seen, found map[string]bool) int {
	link := links[name]
	if link == nil || seen[name] || len(link.Lower) == 0 {
		found[name] = true
		return 0
	}
	seen[name] = true
	depth := 0
	for _, lower := range link.Lower {
		depth = max(depth, basesOf(links, lower, seen, found))
	}
	delete(seen, name)
	return depth + 1
}

type linkGroup struct{ links, bases []string }

// connected groups links that share a base.
func connected(names []string, bases map[string][]string) []*linkGroup {
	var groups []*linkGroup
	for _, name := range names {
		joint := &linkGroup{links: []string{name}, bases: slices.Clone(bases[name])}
		groups = slices.DeleteFunc(groups, func(g *linkGroup) bool {
			if !slices.ContainsFunc(g.bases, func(base string) bool { return slices.Contains(bases[name], base) }) {
				return false
			}
			joint.links = append(slices.Clone(g.links), joint.links...)
			joint.bases = append(joint.bases, g.bases...)
			return true
		})
		slices.Sort(joint.bases)
		joint.bases = slices.Compact(joint.bases)
		groups = append(groups, joint)
	}
	return groups
}

// put lays a link on its stack, on the first row from its depth on that has room.
func (st *stack) put(link *StackedLink, bases []string, depth int) {
	b := block{link: link, first: len(st.bases), last: -1, row: max(1, depth)}
	for _, base := range bases {
		at := slices.Index(st.bases, base)
		b.first, b.last = min(b.first, at), max(b.last, at)
	}
	for slices.ContainsFunc(st.blocks, func(o block) bool { return o.row == b.row && o.first <= b.last && b.first <= o.last }) {
		b.row++
	}
	if b.row > mostBlocks {
		st.hidden++
		return
	}
	st.blocks = append(st.blocks, b)
}

func (st *stack) rows() int {
	rows := 0
	for _, b := range st.blocks {
		rows = max(rows, b.row)
	}
	return rows
}
