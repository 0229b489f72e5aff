package main

// From the start of the agent's process to all its slices in the API server.
// The container is taken away and the same program is executed in the node's
// namespaces with the chart's config, so that the clock starts exactly at exec
// and runs can be repeated without the kubelet's back-off. Slices are removed
// before each start; the program's pages and the node's journal are warm.

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	resourceapi "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/hostler-dev/hostler/test/cluster"
)

const starts = 7

// absent is a node selector that no node satisfies; null takes it back.
const absent, present = `{"bench.hostler.dev/absent": "true"}`, `{"bench.hostler.dev/absent": null}`

func measureStart(ctx context.Context, b *bed, results []*Result) (err error) {
	watch, err := b.watchSlices(ctx, driverName)
	if err != nil {
		return err
	}
	defer watch.stop()
	offered := devices(watch.slices)
	if offered == 0 {
		return errors.New("the agent has published nothing")
	}
	program, err := b.copyAgent(ctx)
	if err != nil {
		return err
	}
	if err := b.placeAgent(ctx, absent); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.placeAgent(context.WithoutCancel(ctx), present)) }()
	if err := eventually(ctx, "the agent's container is gone", func() (bool, error) {
		_, err := b.agent()
		return err != nil, nil
	}); err != nil {
		return err
	}
	var seen samples
	for range starts {
		took, err := b.startOnce(ctx, watch, program, offered)
		if err != nil {
			return err
		}
		seen.add(took)
	}
	results[0].Set(seen.p50(), len(seen))
	results[0].Note = fmt.Sprintf("p50, slowest %s ms; exec of the agent to all %d devices (8 GPUs, 10 NICs, egress)", number(new(seen.percentile(1))), offered)
	return nil
}

func (b *bed) placeAgent(ctx context.Context, selector string) error {
	patch := fmt.Sprintf(`{"spec": {"template": {"spec": {"nodeSelector": %s}}}}`, selector)
	if _, err := b.client.AppsV1().DaemonSets(cluster.AgentNamespace).Patch(ctx, "hostler", types.StrategicMergePatchType, []byte(patch), metav1.PatchOptions{}); err != nil {
		return fmt.Errorf("change where the agent's DaemonSet runs: %w", err)
	}
	return nil
}

// copyAgent puts the running agent's program, the chart's config and a
// kubeconfig where the node sees them, and returns the command line.
func (b *bed) copyAgent(ctx context.Context) ([]string, error) {
	const directory = "/run/bench"
	pid, err := b.agent()
	if err != nil {
		return nil, err
	}
	config, err := b.client.CoreV1().ConfigMaps(cluster.AgentNamespace).Get(ctx, "hostler-config", metav1.GetOptions{})
	if err != nil {
		return nil, fmt.Errorf("the agent's config: %w", err)
	}
	on := b.nodePath(directory)
	if err := os.MkdirAll(on, 0o755); err != nil {
		return nil, err
	}
	// The agent installs its hooks from beside itself.
	for _, name := range []string{"hostler", "hostler-gate", "nvidia-cdi-hook"} {
		if err := copyFile(fmt.Sprintf("/proc/%d/root/usr/bin/%s", pid, name), filepath.Join(on, name), 0o755); err != nil {
			return nil, err
		}
	}
	if err := copyFile(b.cluster.Kubeconfig(), filepath.Join(on, "kubeconfig"), 0o600); err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(on, "config.yaml"), []byte(config.Data["config.yaml"]), 0o644); err != nil {
		return nil, err
	}
	in := func(name string) string { return directory + "/" + name }
	return []string{in("hostler"), "agent", "--config=" + in("config.yaml"), "--kubeconfig=" + in("kubeconfig"), "--node-name=" + nodeName,
		"--paths-sys=" + machinePath + "/sys", "--paths-dev=" + machinePath + "/dev", "--paths-driver-root=" + machinePath + "/driver"}, nil
}

func copyFile(from, to string, mode os.FileMode) (err error) {
	source, err := os.Open(from)
	if err != nil {
		return err
	}
	defer source.Close()
	target, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, mode)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, target.Close()) }()
	_, err = io.Copy(target, source)
	return err
}

// startOnce removes the slices, starts the agent, waits for its slices and stops it.
func (b *bed) startOnce(ctx context.Context, watch *sliceWatch, program []string, offered int) (took time.Duration, err error) {
	if err := b.client.ResourceV1().ResourceSlices().DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{FieldSelector: "spec.driver=" + driverName}); err != nil {
		return 0, fmt.Errorf("remove the slices: %w", err)
	}
	if _, err := watch.await(ctx, "the slices are gone", func(s map[string]*resourceapi.ResourceSlice) bool { return len(s) == 0 }); err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	var log strings.Builder
	command := exec.CommandContext(ctx, "nsenter", append([]string{fmt.Sprintf("--target=%d", b.node.PID), "--net", "--mount", "--uts", "--"}, program...)...)
	command.Stdout, command.Stderr = &log, &log
	// nsenter becomes the agent, so this is the agent's own exec but for a millisecond.
	began := time.Now()
	if err := command.Start(); err != nil {
		return 0, fmt.Errorf("start the agent: %w", err)
	}
	defer func() {
		stopped := errors.Join(command.Process.Signal(syscall.SIGTERM), command.Wait())
		if err = errors.Join(err, stopped); err != nil {
			err = fmt.Errorf("%w; the agent's log ends with: %s", err, tail(log.String()))
		}
	}()
	at, err := watch.await(ctx, "the slices are back", func(s map[string]*resourceapi.ResourceSlice) bool { return devices(s) == offered })
	if err != nil {
		return 0, err
	}
	return at.Sub(began), nil
}

func tail(log string) string { return strings.TrimSpace(log[max(0, len(log)-500):]) }
