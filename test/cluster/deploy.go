package cluster

// Deploying the product the way a user does: its image into every node's
// container store, its chart with Helm. Only the chart's hostPaths differ from a
// real installation where a machine is simulated.

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// AgentNamespace is where Deploy installs the chart.
const AgentNamespace = "hostler-system"

// machineMount is where a node sees its simulated machine.
const machineMount = "/run/machine"

// DeployOptions say what to install.
type DeployOptions struct {
	// Image is an archive to load first; "" leaves the nodes' images as they are.
	Image string
	// Chart is a directory, "" for this tree's chart.
	Chart string
	// Values are further values for the chart, in the form of helm's --set.
	Values []string
}

// Deploy installs, upgrades or downgrades the product and returns when its pods are ready.
func (c *Cluster) Deploy(ctx context.Context, options DeployOptions) error {
	if options.Image != "" {
		if err := c.LoadImage(ctx, options.Image); err != nil {
			return err
		}
	}
	// "upgrade --install" is a no-op for an unchanged chart, also when the image
	// behind the unchanged tag is another: the annotation makes new pods.
	stamp, err := imageStamp(options.Image)
	if err != nil {
		return err
	}
	chart := options.Chart
	if chart == "" {
		chart = filepath.Join(c.plan.Tree, "deploy", "chart")
	}
	args := []string{"upgrade", "--install", "hostler", chart,
		"--namespace", AgentNamespace, "--create-namespace", "--wait", "--timeout", "90s",
		"--set", "image.pullPolicy=Never", "--set-string", "podAnnotations.hostler\\.dev/image=" + stamp}
	if c.Nodes()[0].MachineRoot != "" {
		for value, path := range map[string]string{"sys": "sys", "dev": "dev", "driverRoot": "driver"} {
			args = append(args, "--set", fmt.Sprintf("hostPaths.%s=%s/%s", value, machineMount, path))
		}
	}
	for _, value := range options.Values {
		args = append(args, "--set", value)
	}
	if out, err := c.Command(ctx, "helm", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("installing the chart: %w: %s%s", err, out, c.agentLog(ctx))
	}
	// Helm takes a DaemonSet that has not made its pods yet for a ready one.
	if out, err := c.Command(ctx, "kubectl", "-n", AgentNamespace, "rollout", "status", "ds/hostler", "--timeout=90s").CombinedOutput(); err != nil {
		return fmt.Errorf("waiting for the agents: %w: %s%s", err, out, c.agentLog(ctx))
	}
	return nil
}

// Command is one of the cluster's tools (kubectl, helm, ctr) with the cluster's environment.
func (c *Cluster) Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(c.plan.Binaries, name), args...)
	cmd.Env = append(os.Environ(), c.Env()...)
	return cmd
}

func imageStamp(path string) (string, error) {
	if path == "" {
		return "", nil
	}
	info, err := os.Stat(path)
	if err != nil {
		return "", fmt.Errorf("the image's archive: %w", err)
	}
	return fmt.Sprintf("%x", info.ModTime().UnixNano()), nil
}

// agentLog is the end of the agents' logs, for the error of a failed installation.
func (c *Cluster) agentLog(ctx context.Context) string {
	out, err := c.Command(ctx, "kubectl", "-n", AgentNamespace, "logs", "ds/hostler", "--tail=15").CombinedOutput()
	if err != nil {
		out, _ = c.Command(ctx, "kubectl", "-n", AgentNamespace, "describe", "pods").CombinedOutput()
	}
	return "\n" + strings.TrimSpace(string(out))
}
