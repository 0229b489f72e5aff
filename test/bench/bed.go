package main

// The bed that everything is measured in: a cluster of one node, with the agent
// installed by its chart as a user would, and the agent's process as the
// machine sees it.

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/hostler-dev/hostler/test/cluster"
)

const (
	clusterName = "bench"
	nodeName    = "node1"
	machineName = "dgx-h100"
	driverName  = "hostler.dev"
	// namespace of the bench's own claims and pods.
	namespace = "bench"
)

type bed struct {
	say     func(format string, args ...any)
	cluster *cluster.Cluster
	node    cluster.Node
	client  kubernetes.Interface
	// accounts are where the time of what was measured went.
	accounts []account
}

// up starts the cluster and installs the agent, with its defaults except for
// the hold-down of recovered faults, which would make the fault figure take an hour.
func (b *bed) up(ctx context.Context, image string) error {
	b.say("starting the cluster")
	var err error
	if b.cluster, err = cluster.Start(ctx, cluster.Options{
		Name: clusterName, Nodes: []cluster.NodeOptions{{Name: nodeName, Machine: machineName}},
	}); err != nil {
		return err
	}
	if b.node, err = b.cluster.Node(nodeName); err != nil {
		return err
	}
	config, err := clientcmd.BuildConfigFromFlags("", b.cluster.Kubeconfig())
	if err != nil {
		return fmt.Errorf("read the cluster's kubeconfig: %w", err)
	}
	config.QPS, config.Burst = -1, -1
	if b.client, err = kubernetes.NewForConfig(config); err != nil {
		return fmt.Errorf("make a client for the cluster: %w", err)
	}
	b.say("installing the agent")
	if err := b.cluster.Deploy(ctx, cluster.DeployOptions{Image: image, Values: []string{"config.health.recoveryHoldDown=1s"}}); err != nil {
		return err
	}
	_, err = b.client.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("make the namespace %s: %w", namespace, err)
	}
	if err := b.clear(ctx); err != nil {
		return err
	}
	return b.agentReady(ctx)
}

// clear removes what an interrupted run left in a cluster that was kept.
func (b *bed) clear(ctx context.Context) error {
	// Pods get their time to end, and with it their claims are unprepared.
	one, all := metav1.DeleteOptions{}, metav1.ListOptions{}
	if err := errors.Join(
		b.client.CoreV1().Pods(namespace).DeleteCollection(ctx, one, all),
		b.client.ResourceV1().ResourceClaimTemplates(namespace).DeleteCollection(ctx, one, all),
		b.client.ResourceV1().ResourceClaims(namespace).DeleteCollection(ctx, one, all),
		b.placeAgent(ctx, present),
	); err != nil {
		return fmt.Errorf("clear what an earlier run left: %w", err)
	}
	return eventually(ctx, "what an earlier run left is gone", func() (bool, error) {
		pods, err := b.client.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{})
		if err != nil {
			return false, fmt.Errorf("list pods: %w", err)
		}
		claims, err := b.client.ResourceV1().ResourceClaims(namespace).List(ctx, metav1.ListOptions{})
		if err != nil {
			return false, fmt.Errorf("list claims: %w", err)
		}
		return len(pods.Items)+len(claims.Items) == 0, nil
	})
}

// agentReady waits until the newest agent is: right after an installation Helm
// takes a DaemonSet whose pods are not counted yet for a finished one.
func (b *bed) agentReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	return eventually(ctx, "the agent is ready", func() (bool, error) {
		set, err := b.client.AppsV1().DaemonSets(cluster.AgentNamespace).Get(ctx, "hostler", metav1.GetOptions{})
		if err != nil {
			return false, fmt.Errorf("look at the agent's DaemonSet: %w", err)
		}
		s := set.Status
		return s.ObservedGeneration == set.Generation && s.UpdatedNumberScheduled == 1 && s.NumberReady == 1, nil
	})
}

func (b *bed) down() error {
	b.say("taking the cluster down")
	// Also after an interrupt, and whatever is left of a start that failed.
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	return cluster.Down(ctx, cluster.StateDir(clusterName))
}

// environment returns a variable that the cluster offers to scripts.
func (b *bed) environment(name string) (string, error) {
	for _, variable := range b.cluster.Env() {
		if value, found := strings.CutPrefix(variable, name+"="); found {
			return value, nil
		}
	}
	return "", fmt.Errorf("the cluster does not say %s", name)
}

// machinePath is where the simulated machine lies as the node sees it.
const machinePath = "/run/machine"

// nodePath is a path of the machine for one under the node's /run or /var/lib.
func (b *bed) nodePath(path string) string {
	if rest, found := strings.CutPrefix(path, "/var/"); found {
		return filepath.Join(b.node.Root, rest)
	}
	return filepath.Join(b.node.Root, path)
}

// agent returns the process ID of the node's agent.
func (b *bed) agent() (int, error) {
	network, err := os.Stat(b.node.NetNS)
	if err != nil {
		return 0, fmt.Errorf("the node's network namespace: %w", err)
	}
	names, err := filepath.Glob("/proc/[0-9]*/comm")
	if err != nil {
		return 0, err
	}
	var found []int
	for _, name := range names {
		comm, err := os.ReadFile(name)
		if err != nil || strings.TrimSpace(string(comm)) != "hostler" {
			continue // other programs, and processes that ended meanwhile
		}
		theirs, err := os.Stat(filepath.Join(filepath.Dir(name), "ns/net"))
		if err != nil || !os.SameFile(network, theirs) {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(name)))
		if err != nil {
			return 0, err
		}
		found = append(found, pid)
	}
	if len(found) != 1 {
		return 0, fmt.Errorf("the node runs %d agents, not one: %v", len(found), found)
	}
	return found[0], nil
}

// eventually waits for what is not announced.
func eventually(ctx context.Context, what string, holds func() (bool, error)) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		ok, err := holds()
		if ok && err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("waiting until %s: %w", what, context.Cause(ctx)), err)
		case <-tick.C:
		}
	}
}
