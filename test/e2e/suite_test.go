package e2e

// One cluster serves all scenarios: it is started once, the image is loaded and
// the chart installed with Helm as a user would. It has two nodes. Scenarios have the
// first to themselves; the second, whose GPUs are in MIG mode, is kept apart by a
// taint that only pods for partitions tolerate.

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hostler-dev/hostler/test/cluster"
)

const (
	clusterName    = "e2e"
	agentNamespace = cluster.AgentNamespace
	// migTaint keeps pods off the second node.
	migTaint = "test.hostler.dev/mig"
	// patience is how long a scenario waits for what should take a second or two.
	patience = 90 * time.Second
)

var (
	testbed *cluster.Cluster
	// node1 is where scenarios run, node2 where those about partitions do.
	node1 = bed{machine: "dgx-h100"}
	node2 = bed{machine: "hgx-a100-mig", index: 1}
)

func TestMain(m *testing.M) {
	if os.Getenv("HOSTLER_E2E") == "" {
		fmt.Println("skipping the scenarios in the real cluster: run them with `make test-e2e`")
		os.Exit(0)
	}
	code, err := runSuite(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		code = 1
	}
	os.Exit(code)
}

func runSuite(m *testing.M) (code int, err error) {
	ctx, cancel := context.WithCancel(context.Background()) // go test's -timeout is the limit
	defer cancel()
	started := time.Now()
	if testbed, err = cluster.Start(ctx, cluster.Options{
		Name:     clusterName,
		Nodes:    []cluster.NodeOptions{{Name: "node1", Machine: node1.machine}, {Name: "node2", Machine: node2.machine}},
		Progress: os.Stdout,
	}); err != nil {
		return 1, err
	}
	if os.Getenv("HOSTLER_E2E_KEEP") == "" {
		defer func() {
			stopCtx, stop := context.WithTimeout(context.Background(), time.Minute)
			defer stop()
			if stopErr := testbed.Stop(stopCtx); stopErr != nil {
				code, err = 1, fmt.Errorf("taking the cluster down: %w", stopErr)
			}
		}()
	}
	nodes := testbed.Nodes()
	node1.Node, node2.Node = nodes[0], nodes[1]
	if _, err := command(ctx, "", "kubectl", "taint", "node", node2.Name, "--overwrite", migTaint+"=:NoSchedule"); err != nil {
		return 1, err
	}
	if err := install(ctx); err != nil {
		return 1, err
	}
	fmt.Printf("cluster with agent ready after %.0f s\n", time.Since(started).Seconds())
	code = m.Run()
	if races := agentRaces(ctx); races != "" {
		return 1, fmt.Errorf("the race detector spoke up in the agent:\n%s", races)
	}
	return code, nil
}

func repository() string {
	dir, err := filepath.Abs(filepath.Join("..", ".."))
	if err != nil {
		panic(err)
	}
	return dir
}

// command runs one of the cluster's tools (kubectl, helm, ctr) with its environment.
func command(ctx context.Context, stdin string, name string, args ...string) (string, error) {
	cmd := testbed.Command(ctx, name, args...)
	cmd.Stdin = strings.NewReader(stdin)
	var stdout, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return stdout.String(), nil
}
