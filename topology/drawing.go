// What drawings show beside the machine: who holds a device and what is wrong
// with it. Such words come from clusters, firmware and users, so every drawing takes
// them through plain first: then no terminal, table or document can be upset by them.

package topology

import (
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// DrawOptions add what a snapshot does not know. The zero value adds nothing.
type DrawOptions struct {
	// Title above a picture, the node's name for instance; "" leaves it out.
	Title string
	// Holders by name of a GPU, partition, NIC or pair.
	Holders map[string][]Holder
	// Faults by name of a GPU, partition, NIC or pair: what is wrong, in a few words each.
	Faults map[string][]string
	// VFs one by one in matrix and tree, instead of a count at their PF.
	VFs bool
	// IOMMUGroups of the devices in the tree.
	IOMMUGroups bool
}

// Holder is a claim that holds a device, with the pods that use it.
type Holder struct {
	// Claim is "namespace/name".
	Claim string
	// Pods are "namespace/name" each; none between allocation and the pod's start.
	Pods []string
}

// words say who holds a device: the pods, or the claim while there is no pod.
func (h Holder) words() string {
	switch len(h.Pods) {
	case 0:
		return "claim " + h.Claim
	case 1:
		return h.Pods[0]
	}
	return fmt.Sprintf("%s +%d", h.Pods[0], len(h.Pods)-1)
}

// sentence is the whole of it, for tooltips and text.
func (h Holder) sentence() string {
	if len(h.Pods) == 0 {
		return "held by claim " + h.Claim
	}
	return fmt.Sprintf("held by pod %s through claim %s", strings.Join(h.Pods, ", "), h.Claim)
}

// faultsOf are the device's faults; a GPU that fell off the bus has one without anyone's saying so.
func (o DrawOptions) faultsOf(s *Snapshot, name string) []string {
	faults := slices.Clone(o.Faults[name])
	if gpu := s.GPU(name); gpu != nil && gpu.Lost && len(faults) == 0 {
		faults = append(faults, "lost")
	}
	return faults
}

// withPairs tells GPUs and NICs what is known of the pairs that they are half of.
func (o DrawOptions) withPairs(s *Snapshot) DrawOptions {
	holders, faults := map[string][]Holder{}, map[string][]string{}
	half := map[string][]string{}
	for _, pair := range Pairs(s) {
		half[pair.Name] = []string{pair.GPU, pair.NIC}
	}
	for name, list := range o.Holders {
		for _, device := range append([]string{name}, half[name]...) {
			holders[device] = append(holders[device], list...)
		}
	}
	for name, list := range o.Faults {
		for _, device := range append([]string{name}, half[name]...) {
			faults[device] = append(faults[device], list...)
		}
	}
	for name, list := range holders { // maps have no order, drawings have
		slices.SortFunc(list, func(a, b Holder) int { return strings.Compare(a.sentence(), b.sentence()) })
		holders[name] = slices.CompactFunc(list, func(a, b Holder) bool { return a.sentence() == b.sentence() })
	}
	for name, list := range faults {
		slices.Sort(list)
		faults[name] = slices.Compact(list)
	}
	o.Holders, o.Faults = holders, faults
	return o
}

// marks are a device's faults and holders in words, for text.
func (o DrawOptions) marks(s *Snapshot, name string) string {
	var words []string
	for _, fault := range o.faultsOf(s, name) {
		words = append(words, "FAULT "+fault)
	}
	for _, holder := range o.Holders[name] {
		words = append(words, holder.sentence())
	}
	return strings.Join(words, ", ")
}

// longest text that a drawing takes from elsewhere, in characters.
const longest = 1000

// plain makes one harmless line of any text: no control characters (terminal escapes,
// tabs, line ends), no invisible ones that turn the writing direction, valid UTF-8.
func plain(text string) string {
	text = strings.Map(func(r rune) rune {
		switch {
		case unicode.IsSpace(r):
			return ' '
		case r == utf8.RuneError, unicode.IsControl(r), unicode.Is(unicode.Cf, r), unicode.Is(unicode.Co, r), !unicode.IsPrint(r) && !unicode.IsMark(r):
			return -1
		}
		return r
	}, text)
	if utf8.RuneCountInString(text) > longest {
		text = string([]rune(text)[:longest-1]) + "…"
	}
	return text
}
