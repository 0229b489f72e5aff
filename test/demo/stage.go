package main

// Before the curtain: the image is built, the cluster started, the chart
// installed, and what an earlier run left is cleared away, so that the story
// begins the same way each time.

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/hostler-dev/hostler/test/cluster"
	"github.com/hostler-dev/hostler/test/cluster/binaries"
	"github.com/hostler-dev/hostler/test/machine"
	"github.com/hostler-dev/hostler/test/nvmlsim"
)

const (
	nodeName    = "node1"
	machineName = "dgx-h100"
	namespace   = "demo"
	imageName   = "localhost/hostler-dev/hostler:dev"
)

// Paths in the tree. Commands run at its root, so they are shown as they are.
var (
	envFile    = filepath.Join(".run", "env")
	drawing    = filepath.Join(".run", "topology.svg")
	archive    = filepath.Join("bin", "hostler-image.tar")
	manifests  = filepath.Join("test", "demo", "manifests")
	deviceList = filepath.Join("test", "demo", "devices.gotmpl")
)

// stage is what a story is played on.
type stage struct {
	tree    string
	cluster *cluster.Cluster
	node    cluster.Node
	client  kubernetes.Interface
	profile *machine.Profile
	nvml    nvmlsim.Control
}

// set brings everything up and in order.
func (s *story) set(ctx context.Context) error {
	for _, step := range []func(context.Context) error{s.buildImage, s.startCluster, s.install, s.clear} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (s *story) buildImage(ctx context.Context) error {
	var err error
	if s.tree, err = binaries.Tree(); err != nil {
		return err
	}
	return s.step("Hostler's image", func() error {
		cmd := exec.CommandContext(ctx, "go", "run", "./deploy/image", "-output", archive, "-bin", "bin", "-tag", imageName)
		cmd.Dir = s.tree
		cmd.Stdout, cmd.Stderr = s.out, os.Stderr
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("building the image: %w", err)
		}
		return nil
	})
}

func (s *story) startCluster(ctx context.Context) error {
	var err error
	if s.profile, err = machine.Load(machineName); err != nil {
		return err
	}
	if s.cluster, err = cluster.Start(ctx, cluster.Options{
		Nodes:    []cluster.NodeOptions{{Name: nodeName, Machine: machineName}},
		Progress: s.out,
	}); err != nil {
		return err
	}
	if s.node, err = s.cluster.Node(nodeName); err != nil {
		return err
	}
	s.nvml = nvmlsim.Control{Dir: filepath.Join(s.node.MachineRoot, "driver", "nvmlsim")}
	config, err := clientcmd.BuildConfigFromFlags("", s.cluster.Kubeconfig())
	if err != nil {
		return fmt.Errorf("read the cluster's kubeconfig: %w", err)
	}
	if s.client, err = kubernetes.NewForConfig(config); err != nil {
		return fmt.Errorf("make a client for the cluster: %w", err)
	}
	return s.cluster.WriteEnv(filepath.Join(s.tree, envFile))
}

func (s *story) install(ctx context.Context) error {
	return s.step("Hostler installed with its Helm chart", func() error {
		if err := s.cluster.Deploy(ctx, cluster.DeployOptions{Image: filepath.Join(s.tree, archive)}); err != nil {
			return err
		}
		// Right after an upgrade, Helm can take the old pods for the new ones.
		return s.quietly(ctx, "kubectl -n "+cluster.AgentNamespace+" rollout status ds/hostler --timeout=60s")
	})
}

// clear heals the machine and removes the pods of an earlier run.
func (s *story) clear(ctx context.Context) error {
	healed := []error{s.nvml.ClearAll(), s.nvml.ReviveDriver()}
	for gpu := range s.profile.GPUs {
		healed = append(healed, s.nvml.SetLost(gpu, false), s.nvml.SetRecoveryAction(gpu, nvmlsim.RecoveryNone), s.nvml.SetUtilization(gpu, 0))
	}
	if err := errors.Join(healed...); err != nil {
		return err
	}
	return s.step("an empty namespace, a healthy machine", func() error {
		if err := s.quietly(ctx, "kubectl delete namespace "+namespace+" --ignore-not-found --timeout=120s && kubectl create namespace "+namespace); err != nil {
			return err
		}
		wait, cancel := context.WithTimeout(ctx, patience)
		defer cancel()
		_, err := s.awaitSlices(wait, fmt.Sprintf("all %d GPUs are published without a fault", len(s.profile.GPUs)), func(devices published) bool {
			return len(devices.healthyGPUs()) == len(s.profile.GPUs)
		})
		return err
	})
}

// step reports in the form of the cluster's own progress.
func (s *story) step(what string, do func() error) error {
	began := time.Now()
	if err := do(); err != nil {
		return err
	}
	fmt.Fprintf(s.out, "  ✓ %-58s %6.1fs\n", what, time.Since(began).Seconds())
	return nil
}
