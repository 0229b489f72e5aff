package vm

// Where Debian's backports come from is derived from the machine's own apt
// sources, so that a mirror, a proxy or a signing key that the administrator
// chose is used here too and no host is named in this project. Both formats of
// sources.list(5) are read; deb822 is written.

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// source is one enabled stanza or line for binary packages.
type source struct {
	uris, suites, components []string
	// options are deb822 fields by lower-case name, such as "signed-by" (apt does
	// not mind the case). A key written in place keeps its lines.
	options map[string]string
}

// parseStanzas reads a .sources file.
func parseStanzas(text string) []source {
	var found []source
	for _, fields := range stanzas(text) {
		s := source{options: map[string]string{}}
		var types []string
		enabled := true
		for name, value := range fields {
			switch name {
			case "types":
				types = strings.Fields(value)
			case "uris":
				s.uris = strings.Fields(value)
			case "suites":
				s.suites = strings.Fields(value)
			case "components":
				s.components = strings.Fields(value)
			case "enabled":
				enabled = !slices.Contains([]string{"no", "false", "without", "off", "disable"}, strings.ToLower(value))
			default:
				s.options[name] = value
			}
		}
		if enabled && slices.Contains(types, "deb") && len(s.uris) > 0 && len(s.suites) > 0 {
			found = append(found, s)
		}
	}
	return found
}

// stanzas splits deb822 text into fields. Comment lines vanish, continuation lines are kept as they are.
func stanzas(text string) []map[string]string {
	var all []map[string]string
	fields, last := map[string]string{}, ""
	for _, line := range append(strings.Split(text, "\n"), "") {
		switch {
		case strings.HasPrefix(line, "#"):
		case strings.TrimSpace(line) == "":
			if len(fields) > 0 {
				all = append(all, fields)
			}
			fields, last = map[string]string{}, ""
		case line[0] == ' ' || line[0] == '\t':
			if last != "" {
				fields[last] += "\n" + strings.TrimRight(line, " \t\r")
			}
		default:
			if name, value, ok := strings.Cut(line, ":"); ok {
				last = strings.ToLower(strings.TrimSpace(name))
				fields[last] = strings.TrimSpace(value)
			}
		}
	}
	return all
}

// oneLineNames are the options of one-line sources whose deb822 field has another name.
var oneLineNames = map[string]string{"arch": "architectures", "lang": "languages", "target": "targets"}

// parseLines reads a sources.list or .list file.
func parseLines(text string) []source {
	var found []source
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		words := strings.Fields(line)
		if len(words) == 0 || words[0] != "deb" {
			continue
		}
		s := source{options: map[string]string{}}
		rest := strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(line), "deb"))
		if strings.HasPrefix(rest, "[") {
			var options string
			options, rest, _ = strings.Cut(rest[1:], "]")
			for _, option := range strings.Fields(options) {
				s.setOption(option)
			}
		}
		if words = strings.Fields(rest); len(words) < 2 {
			continue
		}
		s.uris, s.suites, s.components = words[:1], words[1:2], words[2:]
		found = append(found, s)
	}
	return found
}

// setOption takes an option as in "[arch=amd64,i386 lang+=de]".
func (s *source) setOption(option string) {
	name, value, _ := strings.Cut(option, "=")
	name, add := strings.CutSuffix(name, "+")
	name, remove := strings.CutSuffix(name, "-")
	name = strings.ToLower(name)
	if long, ok := oneLineNames[name]; ok {
		name = long
	}
	switch {
	case add:
		name += "-add"
	case remove:
		name += "-remove"
	}
	s.options[name] = strings.ReplaceAll(value, ",", " ")
}

// withBackports returns the sources of the release and, unless the machine has
// it already, its backports suite on the mirror that serves the release itself.
// Other vendors' sources are left out: nothing is wanted from them.
func withBackports(sources []source, codename string) ([]source, error) {
	backports := codename + "-backports"
	var wanted []source
	var release *source
	present := false
	for _, s := range sources {
		ours := func(suite string) bool {
			return suite == codename || strings.HasPrefix(suite, codename+"-") || strings.HasPrefix(suite, codename+"/")
		}
		if !slices.ContainsFunc(s.suites, ours) || strings.HasPrefix(s.uris[0], "cdrom:") {
			continue
		}
		wanted = append(wanted, s)
		present = present || slices.Contains(s.suites, backports)
		if release == nil && slices.Contains(s.suites, codename) {
			release = &s
		}
	}
	if release == nil {
		return nil, fmt.Errorf("no apt source on this machine serves the suite %q, so there is no mirror to take %q from; add one to /etc/apt/sources.list.d", codename, backports)
	}
	if !present {
		wanted = append(wanted, source{release.uris, []string{backports}, []string{"main"}, release.options})
	}
	return wanted, nil
}

// format writes sources as deb822 stanzas.
func format(sources []source) string {
	var b strings.Builder
	for _, s := range sources {
		fmt.Fprintf(&b, "Types: deb\nURIs: %s\nSuites: %s\n", strings.Join(s.uris, " "), strings.Join(s.suites, " "))
		if len(s.components) > 0 {
			fmt.Fprintf(&b, "Components: %s\n", strings.Join(s.components, " "))
		}
		for _, name := range slices.Sorted(maps.Keys(s.options)) {
			fmt.Fprintf(&b, "%s: %s\n", name, s.options[name])
		}
		b.WriteString("\n")
	}
	return b.String()
}
