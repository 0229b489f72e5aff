package conformance

// What differs between two texts of slices, by device and word: lines are long, and
// what a slice's devices have in common moves when one of them changes.

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/google/go-cmp/cmp"
)

// difference is "" for equal texts.
func difference(before, after string) string {
	if before == after {
		return ""
	}
	was, is := wordsByLine(before), wordsByLine(after)
	all := maps.Clone(was)
	maps.Copy(all, is)
	var b strings.Builder
	for _, line := range slices.Sorted(maps.Keys(all)) {
		switch {
		case is[line] == nil:
			fmt.Fprintf(&b, "%s is gone\n", line)
		case was[line] == nil:
			fmt.Fprintf(&b, "%s is new: %s\n", line, strings.Join(is[line], " "))
		default:
			gone, came := without(was[line], is[line]), without(is[line], was[line])
			if len(gone)+len(came) > 0 {
				fmt.Fprintf(&b, "%s was %q and is %q\n", line, strings.Join(gone, " "), strings.Join(came, " "))
			}
		}
	}
	if b.Len() == 0 { // the order of lines or words
		return cmp.Diff(strings.Split(before, "\n"), strings.Split(after, "\n"))
	}
	return b.String()
}

// wordsByLine has all words of each device and counter set, by pool, slice and name.
func wordsByLine(text string) map[string][]string {
	lines := map[string][]string{}
	var pool, kind string
	var common []string
	slice := -1
	for line := range strings.Lines(text) {
		key, rest, _ := strings.Cut(strings.TrimSpace(line), ":")
		switch {
		case strings.HasPrefix(line, "    ") && key == "all":
			common = strings.Fields(rest)
		case strings.HasPrefix(line, "    "):
			name := fmt.Sprintf("%s, slice %d, %s %s", pool, slice, kind, key)
			lines[name] = slices.Concat([]string{}, strings.Fields(rest), common)
		case strings.HasPrefix(line, "- {"):
			slice++
			lines[fmt.Sprintf("%s, slice %d", pool, slice)] = []string{strings.TrimSpace(line)}
		case strings.HasPrefix(line, "- "):
			slice++
			kind, common = key[len("- "):], nil
		case strings.HasPrefix(line, "  "):
			kind, common = key, nil
		default:
			pool, slice = key, -1
			lines[key] = append([]string{}, strings.Fields(rest)...)
		}
	}
	return lines
}

func without(words, others []string) []string {
	return slices.DeleteFunc(slices.Clone(words), func(word string) bool { return slices.Contains(others, word) })
}
