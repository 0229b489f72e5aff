package cluster

// What runs inside the cluster from the start: the test images on every node
// and CoreDNS as an ordinary Deployment.

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"text/template"
	"time"

	"golang.org/x/sync/errgroup"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/hostler-dev/hostler/test/cluster/images"
)

// writeImages makes the archives that loadTestImages imports.
func (p Plan) writeImages() error {
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		return fmt.Errorf("find busybox for the test image: %w", err)
	}
	if err := images.WriteBusybox(p.path("busybox.tar"), busybox); err != nil {
		return err
	}
	return images.WriteCoreDNS(p.path("coredns.tar"), filepath.Join(p.Binaries, "coredns"))
}

func (c *Cluster) loadTestImages(ctx context.Context, n NodePlan) error {
	for _, archive := range []string{"busybox.tar", "coredns.tar"} {
		if err := c.loadOn(ctx, n, c.plan.path(archive)); err != nil {
			return err
		}
	}
	return nil
}

// LoadImage imports an image archive (OCI or docker) on every node.
func (c *Cluster) LoadImage(ctx context.Context, archive string) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, n := range c.plan.Nodes {
		group.Go(func() error { return c.loadOn(ctx, n, archive) })
	}
	return group.Wait()
}

func (c *Cluster) loadOn(ctx context.Context, n NodePlan, archive string) error {
	ctr := filepath.Join(c.plan.Binaries, "ctr")
	cmd := exec.CommandContext(ctx, ctr, "--address", c.plan.containerdSocket(n), "--namespace", "k8s.io", "images", "import", archive)
	if output, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("import the image archive %s on node %s: %w: %s", archive, n.Name, err, strings.TrimSpace(string(output)))
	}
	return nil
}

func (c *Cluster) applyDNS(ctx context.Context) error {
	parsed, err := template.ParseFS(configs, "config/coredns.yaml.tmpl")
	if err != nil {
		return fmt.Errorf("parse the manifest of the cluster's DNS: %w", err)
	}
	var manifest bytes.Buffer
	if err := parsed.Execute(&manifest, struct{ DNS, Image string }{c.plan.dnsAddress(), images.CoreDNS}); err != nil {
		return fmt.Errorf("fill in the manifest of the cluster's DNS: %w", err)
	}
	kubectl := filepath.Join(c.plan.Binaries, "kubectl")
	return feed(ctx, manifest.String(), kubectl, "--kubeconfig", c.Kubeconfig(), "create", "-f", "-")
}

// awaitDNS waits until the Deployment has a ready pod behind its Service.
func (c *Cluster) awaitDNS(ctx context.Context) error {
	client, err := c.plan.client()
	if err != nil {
		return err
	}
	// The runtime is where a pod that does not come up is explained.
	first := &process{component: c.plan.inNode(c.plan.Nodes[0], 0, "kubelet")}
	return first.await(ctx, time.Minute, func(ctx context.Context) error {
		deployment, err := client.AppsV1().Deployments("kube-system").Get(ctx, "coredns", metav1.GetOptions{})
		if err != nil {
			return err
		}
		if deployment.Status.ReadyReplicas == 0 {
			return errors.New("the pod of the Deployment kube-system/coredns is not ready")
		}
		return nil
	})
}
