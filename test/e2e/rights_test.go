package e2e

// What the chart's policies promise: an agent's token writes to its own node only.

import (
	"fmt"
	"strings"
	"testing"
)

func TestAnAgentWritesItsOwnNodeOnly(t *testing.T) {
	s := newScenario(t)
	condition := `{"apiVersion":"v1","kind":"Node","metadata":{"name":"` + s.node.Name + `"},"status":{"conditions":[{"type":"Example","status":"True"}]}}`
	for _, write := range []struct {
		what, stdin string
		args        []string
	}{
		{"the node", "", []string{"patch", "node", s.node.Name, "--type=merge", `--patch={"metadata":{"annotations":{"example.com/a":"b"}}}`}},
		{"the node's status", condition, []string{"apply", "--server-side", "--subresource=status", "--validate=false", "--filename=-"}},
	} {
		for _, agent := range []struct{ of, refusal string }{
			{s.node.Name, ""},
			{"another", "the agent of node another may only write that node, not " + s.node.Name},
			{"", "the agent's token names no node"},
		} {
			t.Run(fmt.Sprintf("%s by the agent of %q", write.what, agent.of), func(t *testing.T) {
				args := append([]string{"--dry-run=server", "--as=system:serviceaccount:" + agentNamespace + ":hostler"}, write.args...)
				if agent.of != "" {
					args = append(args, "--as-user-extra=authentication.kubernetes.io/node-name="+agent.of)
				}
				_, err := command(s.ctx, write.stdin, "kubectl", args...)
				if refused := err != nil; refused != (agent.refusal != "") || refused && !strings.Contains(err.Error(), agent.refusal) {
					t.Errorf("the answer is %v, want one that says %q", err, agent.refusal)
				}
			})
		}
	}
}
