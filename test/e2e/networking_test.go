package e2e

// docs/networking.md is what it says: each of its manifests is applied as it stands
// there, and each command that is shown beneath it yields what is shown. A fenced
// block "yaml test=<name>" holds the manifests of a scenario, and "console test=<name>"
// blocks, commands and their output; … in the output stands for anything, a line
// of its own for any lines. "needs=<kind>" names a kind of netdev without which the
// scenario is skipped, "value=<name>=<value>" a value of the chart that it is shown with,
// "with=multus" that a Multus is on the node.

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// documentedScenario is a scenario as a document tells it.
type documentedScenario struct {
	name, manifests string
	// needs is a kind of netdev, "" if any kernel will do; value one of the chart, "" for its
	// defaults; with is "multus" if the node's network is to be that.
	needs, value, with string
	shown              []shown
}

// shown is a command and a pattern for all of its output.
type shown struct {
	command string
	output  *regexp.Regexp
}

func TestNetworkingDocument(t *testing.T) {
	scenarios, err := readScenarios(filepath.Join(repository(), "docs", "networking.md"))
	must(t, err)
	for _, told := range scenarios {
		t.Run(told.name, func(t *testing.T) {
			if told.needs != "" && !kernelHas(told.needs) {
				t.Skipf("this machine's kernel has no netdevs of kind %s; the emulated machine has", told.needs)
			}
			if told.with == "multus" {
				withMultus(t, &node1)
			}
			s := newScenario(t)
			s.installNetworkAttachmentDefinitions()
			if told.value != "" {
				s.publishWith(told.value)
			}
			s.applyDocumented(told.manifests)
			for _, shown := range told.shown {
				s.eventually("what the document shows", func() error { return s.yields(shown) })
			}
		})
	}
}

// applyDocumented waits for the manifests' pods, which get an image that is there. All goes
// at the end, what is of no namespace too.
func (s *scenario) applyDocumented(manifests string) {
	s.Helper()
	manifests = runnable(manifests)
	s.Cleanup(func() {
		if s.Failed() {
			s.explain()
		}
		if _, err := command(context.WithoutCancel(s.ctx), manifests, "kubectl", "-n", s.namespace, "delete", "--ignore-not-found", "-f", "-"); err != nil {
			s.Error(err)
		}
	})
	s.apply(manifests)
	s.awaitReady(strings.Fields(s.kubectl("get", "pods", "-o", "jsonpath={.items[*].metadata.name}"))...)
}

// yields runs the command as a reader would, in the scenario's namespace.
func (s *scenario) yields(shown shown) error {
	ctx, cancel := context.WithTimeout(s.ctx, time.Minute)
	defer cancel()
	kubectl := testbed.Command(ctx, "kubectl")
	script := fmt.Sprintf("kubectl() { %q -n %q \"$@\"; }\n%s", kubectl.Path, s.namespace, shown.command)
	shell := exec.CommandContext(ctx, "sh", "-c", script)
	shell.Env = kubectl.Env
	out, err := shell.CombinedOutput()
	if !shown.output.Match(out) {
		return errors.Join(fmt.Errorf("%s yields\n%s\nwhich %s does not match", shown.command, out, shown.output), err)
	}
	return nil
}

// readScenarios refuses a document whose scenarios show nothing, since they could not fail.
func readScenarios(path string) ([]documentedScenario, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	var scenarios []documentedScenario
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		info, fenced := strings.CutPrefix(lines.Text(), "```")
		if !fenced {
			continue
		}
		var body strings.Builder
		for lines.Scan() && lines.Text() != "```" {
			body.WriteString(lines.Text() + "\n")
		}
		words := strings.Fields(info)
		if len(words) < 2 {
			if strings.Contains(body.String(), "\nkind: Pod\n") {
				return nil, fmt.Errorf("%s shows a pod that no test applies; give its block a test=<name>:\n%s", path, &body)
			}
			continue // a part of a manifest, or a command of another kind
		}
		options := map[string]string{}
		for _, word := range words[1:] {
			key, value, _ := strings.Cut(word, "=")
			options[key] = value
		}
		switch last := len(scenarios) - 1; {
		case words[0] == "yaml":
			scenarios = append(scenarios, documentedScenario{name: options["test"], needs: options["needs"], value: options["value"], with: options["with"], manifests: body.String()})
		case last < 0 || scenarios[last].name != options["test"]:
			return nil, fmt.Errorf("%s: the block %q follows no manifests of that name", path, info)
		default:
			scenarios[last].shown = append(scenarios[last].shown, readShown(body.String())...)
		}
	}
	names := map[string]bool{}
	for _, told := range scenarios {
		if told.name == "" || names[told.name] || len(told.shown) == 0 {
			return nil, fmt.Errorf("%s: the manifests %q have no name of their own, or nothing is shown of them", path, told.name)
		}
		names[told.name] = true
	}
	if len(scenarios) == 0 {
		return nil, fmt.Errorf("%s shows no manifests", path)
	}
	return scenarios, lines.Err()
}

func readShown(block string) []shown {
	var all []shown
	for _, part := range strings.Split("\n"+strings.TrimSpace(block), "\n$ ")[1:] {
		command, output, _ := strings.Cut(part, "\n")
		pattern := `(?m)\A\s*`
		for line := range strings.Lines(output) {
			words := strings.Fields(line)
			if len(words) == 1 && words[0] == "…" {
				pattern += `(?:.*\n)*?`
				continue
			}
			for i, word := range words {
				words[i] = strings.ReplaceAll(regexp.QuoteMeta(word), "…", ".*")
			}
			pattern += `[ \t]*` + strings.Join(words, `[ \t]+`) + `\s*?(?:\n|\z)`
		}
		all = append(all, shown{command, regexp.MustCompile(pattern + `\s*\z`)})
	}
	return all
}

// kernelHas tries to make a netdev of the kind, in a namespace that ends with the try.
func kernelHas(kind string) bool {
	on, with := map[string]string{"ipvlan": "link p0", "macvlan": "link p0"}[kind], map[string]string{"vrf": "table 100"}[kind]
	script := fmt.Sprintf("ip link add p0 type veth && ip link add tried %s type %s %s", on, kind, with)
	return exec.Command("unshare", "--net", "sh", "-c", script).Run() == nil
}
