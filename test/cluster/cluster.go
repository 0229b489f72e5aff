// Package cluster runs a real Kubernetes for tests and for the demo: etcd, the
// control plane, and nodes with kubelet, containerd, runc, kube-proxy and CNI,
// each node in network, mount and UTS namespaces of its own. Only the hardware
// is simulated (test/machine). No packet can leave the machine, and Stop removes
// everything that Start made.
package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/hostler-dev/hostler/test/cluster/binaries"
)

// DefaultName is the cluster of `make cluster-up` and the demo.
const DefaultName = "hostler"

// stateRoot holds one directory per cluster. It is short because unix socket
// paths end at 107 bytes (unix(7)), and outside the tree because a clone may lie anywhere.
const stateRoot = "/var/lib/hostler-testbed"

// Options say which cluster to start. The zero value is one plain node, silently.
type Options struct {
	// Name tells clusters apart that run side by side. Default: DefaultName.
	Name string
	// Dir keeps the cluster's state. Default: a directory under /var/lib/hostler-testbed.
	Dir string
	// Nodes are the worker nodes. Default: one, named "node1".
	Nodes []NodeOptions
	// Progress gets a line per step for people to read; nil says nothing.
	Progress io.Writer
	// Cache is where built programs are kept. Default: hostler/bin in the user's cache directory.
	Cache string
}

// NodeOptions describe one node.
type NodeOptions struct {
	Name string
	// Machine is a profile of test/machine to simulate; empty is a plain node.
	Machine string
}

// Cluster is a running cluster.
type Cluster struct {
	plan     Plan
	progress *progress
}

// ErrNotRunning says that there is no cluster in a directory.
var ErrNotRunning = errors.New("no cluster is running there")

// Start brings the cluster up and returns when its nodes are Ready and its DNS
// answers. A cluster that is up already is returned as it is, with components
// that have died started again; one that never came up is removed first.
func Start(ctx context.Context, options Options) (*Cluster, error) {
	options = options.withDefaults()
	progress := newProgress(options.Progress)
	if err := prepareMachine(ctx, progress); err != nil {
		return nil, err
	}
	tree, err := binaries.Tree()
	if err != nil {
		return nil, err
	}
	bin, err := binaries.Ensure(ctx, tree, options.Cache, progress.took)
	if err != nil {
		return nil, err
	}
	unlock, err := lock(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if running, err := adopt(ctx, options, progress); running != nil || err != nil {
		return running, err
	}
	plan, err := claimPlan(options, bin, tree)
	if err != nil {
		return nil, err
	}
	c := &Cluster{plan: plan, progress: progress}
	if err := c.start(ctx); err != nil {
		return nil, fmt.Errorf("start cluster %s: %w", plan.Name, err)
	}
	return c, nil
}

func (o Options) withDefaults() Options {
	if o.Name == "" {
		o.Name = DefaultName
	}
	if o.Dir == "" {
		o.Dir = StateDir(o.Name)
	}
	if len(o.Nodes) == 0 {
		o.Nodes = []NodeOptions{{Name: "node1"}}
	}
	return o
}

// StateDir is where a cluster of that name keeps its state by default.
func StateDir(name string) string { return filepath.Join(stateRoot, name) }

// adopt returns the cluster in options.Dir if it is up, and clears away one that is not.
func adopt(ctx context.Context, options Options, progress *progress) (*Cluster, error) {
	c, err := Open(options.Dir)
	if errors.Is(err, ErrNotRunning) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	c.progress = progress
	broken := c.Check(ctx)
	if broken == nil {
		if !c.plan.serves(options) {
			return nil, fmt.Errorf("cluster %s is up with other nodes or machines than asked for; take it down first", c.plan.Name)
		}
		progress.say("cluster %s is up (%s)", c.plan.Name, c.plan.Dir)
		return c, nil
	}
	if c.repairable() && c.plan.serves(options) {
		progress.say("cluster %s is not whole (%v); starting what is missing", c.plan.Name, broken)
		return c, c.startComponents(ctx)
	}
	progress.say("cluster %s is not whole (%v); starting it afresh", c.plan.Name, broken)
	return nil, c.remove(ctx)
}

// repairable says whether the cluster was up once and its nodes still have their namespaces.
func (c *Cluster) repairable() bool {
	_, err := os.Stat(c.plan.path("up"))
	for _, n := range c.plan.Nodes {
		if _, alive := c.plan.holder(n).running(); !alive {
			return false
		}
	}
	return err == nil
}

// startComponents starts every component that does not run, in the order that they need each other.
func (c *Cluster) startComponents(ctx context.Context) error {
	if err := c.plan.startControlPlane(ctx); err != nil {
		return err
	}
	for _, n := range c.plan.Nodes {
		if err := c.plan.startRuntime(ctx, n); err != nil {
			return err
		}
		if err := c.plan.startPCIBus(ctx, n); err != nil {
			return err
		}
		if err := c.plan.startKubelet(ctx, n); err != nil {
			return err
		}
	}
	return nil
}

// serves says whether the plan has the nodes that options ask for.
func (p Plan) serves(options Options) bool {
	if len(p.Nodes) != len(options.Nodes) {
		return false
	}
	for i, node := range options.Nodes {
		if p.Nodes[i].Name != node.Name || p.Nodes[i].Machine != node.Machine {
			return false
		}
	}
	return true
}

// start runs the steps; independent ones side by side.
func (c *Cluster) start(ctx context.Context) error {
	began, p := time.Now(), c.plan
	if err := saveSettings(); err != nil {
		return err
	}
	for _, step := range []struct {
		what string
		do   func(context.Context) error
	}{
		{"test images", func(context.Context) error { return p.writeImages() }},
		{"keys, certificates, node directories", func(context.Context) error { return c.writeFiles() }},
		{"namespaces and network", p.createNetwork},
		{"simulated machines", c.createMachines},
		{"control groups", func(context.Context) error { return p.createCgroups() }},
	} {
		done := c.progress.begin(step.what)
		if err := step.do(ctx); err != nil {
			return err
		}
		done()
	}
	group, inner := errgroup.WithContext(ctx)
	group.Go(func() error {
		return c.step("control plane answers", func() error { return p.startControlPlane(inner) })
	})
	group.Go(func() error { return p.buildPCIBus(inner) })
	for _, n := range p.Nodes {
		group.Go(func() error {
			return c.step(n.Name+": container runtime answers", func() error { return p.startRuntime(inner, n) })
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	group, inner = errgroup.WithContext(ctx)
	group.Go(func() error { return c.step("cluster DNS applied", func() error { return c.applyDNS(inner) }) })
	for _, n := range p.Nodes {
		group.Go(func() error { return p.startPCIBus(inner, n) })
		group.Go(func() error {
			return c.step(n.Name+": test images loaded", func() error { return c.loadTestImages(inner, n) })
		})
		group.Go(func() error { return c.step(n.Name+": Ready", func() error { return p.startKubelet(inner, n) }) })
	}
	if err := group.Wait(); err != nil {
		return err
	}
	if err := c.step("cluster DNS answers", func() error { return c.awaitDNS(ctx) }); err != nil {
		return err
	}
	if err := os.WriteFile(p.path("up"), []byte(time.Now().Format(time.RFC3339)+"\n"), 0o644); err != nil {
		return fmt.Errorf("record that the cluster is up: %w", err)
	}
	c.progress.took(fmt.Sprintf("cluster %s is up, %d node(s)", p.Name, len(p.Nodes)), time.Since(began))
	return nil
}

func (c *Cluster) step(what string, do func() error) error {
	done := c.progress.begin(what)
	if err := do(); err != nil {
		return err
	}
	done()
	return nil
}

func (c *Cluster) writeFiles() error {
	for _, dir := range []string{"log", "pid"} {
		if err := os.MkdirAll(c.plan.path(dir), 0o755); err != nil {
			return fmt.Errorf("lay out the cluster's directory: %w", err)
		}
	}
	if err := c.plan.createPKI(); err != nil {
		return err
	}
	for _, n := range c.plan.Nodes {
		if err := c.plan.writeNode(n); err != nil {
			return err
		}
	}
	return nil
}

// Open attaches to the cluster whose state lies in dir, up or half-started.
func Open(dir string) (*Cluster, error) {
	content, err := os.ReadFile(filepath.Join(dir, "cluster.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w", dir, ErrNotRunning)
	}
	if err != nil {
		return nil, fmt.Errorf("read the cluster's plan: %w", err)
	}
	c := &Cluster{progress: newProgress(nil)}
	if err := json.Unmarshal(content, &c.plan); err != nil {
		return nil, fmt.Errorf("read the cluster's plan %s: %w", filepath.Join(dir, "cluster.json"), err)
	}
	return c, nil
}

// Check returns nil if every component runs and the API server answers, else what is wrong.
func (c *Cluster) Check(ctx context.Context) error {
	if _, err := os.Stat(c.plan.path("up")); err != nil {
		return errors.New("it never came up")
	}
	for _, component := range c.plan.components() {
		if _, alive := component.running(); !alive {
			return fmt.Errorf("%s does not run; its log is %s", component.name, component.logPath())
		}
	}
	client, err := c.plan.client()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if err := client.Discovery().RESTClient().Get().AbsPath("/readyz").Do(ctx).Error(); err != nil {
		return fmt.Errorf("the API server at %s is not ready: %w", c.plan.serverURL(), err)
	}
	return nil
}

// components lists what must run in a whole cluster.
func (p Plan) components() []component {
	all := []component{p.etcd(), p.apiServer(), p.controllerManager(), p.scheduler(), p.world()}
	for _, n := range p.Nodes {
		if n.Machine != "" {
			all = append(all, p.fabricWatch(n))
		}
		if n.Machine != "" && p.PCIBus {
			all = append(all, p.pciBus(n, 0))
		}
		all = append(all, p.holder(n), p.inNode(n, 0, "containerd"), p.inNode(n, 0, "kube-proxy"), p.inNode(n, 0, "kubelet"))
	}
	return all
}
