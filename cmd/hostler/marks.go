package main

// What a cluster knows of this node's devices, for the drawing: the faults that
// slices carry as taints, and the pods that claims are reserved for. It is an
// ornament: without a cluster, or without the right to list claims, the picture
// simply shows less.

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"time"

	resourceapi "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/hostler-dev/hostler/api/v1alpha1"
	"github.com/hostler-dev/hostler/driver"
)

type marks struct {
	nodeIPs         []netip.Addr
	holders, faults map[string]string
}

func clusterMarks(ctx context.Context, cfg *v1alpha1.AgentConfig) marks {
	m := marks{holders: map[string]string{}, faults: map[string]string{}}
	config, err := clusterConfig(cfg.Kubeconfig)
	if err != nil {
		if cfg.Kubeconfig != "" {
			fmt.Fprintln(os.Stderr, "hostler: drawing without the cluster's marks:", err)
		}
		return m
	}
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	client, err := kubernetes.NewForConfig(config)
	if err == nil {
		err = m.read(ctx, client, cfg.NodeName)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "hostler: drawing with fewer marks:", err)
	}
	return m
}

func (m *marks) read(ctx context.Context, client kubernetes.Interface, node string) error {
	object, err := client.CoreV1().Nodes().Get(ctx, node, metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("reading node %q: %w", node, err)
	}
	m.nodeIPs = addressesOf(object)
	list, err := client.ResourceV1().ResourceSlices().List(ctx, metav1.ListOptions{FieldSelector: "spec.nodeName=" + node + ",spec.driver=" + driver.Name})
	if err != nil {
		return fmt.Errorf("reading the node's slices: %w", err)
	}
	for _, slice := range list.Items {
		for _, device := range slice.Spec.Devices {
			for _, taint := range device.Taints {
				m.faults[device.Name] = strings.TrimPrefix(taint.Key, driver.Name+"/") + " " + taint.Value
			}
		}
	}
	claims, err := client.ResourceV1().ResourceClaims("").List(ctx, metav1.ListOptions{})
	if err != nil {
		return fmt.Errorf("reading who holds what: %w", err)
	}
	for _, claim := range claims.Items {
		m.hold(node, &claim)
	}
	return nil
}

func (m *marks) hold(node string, claim *resourceapi.ResourceClaim) {
	if claim.Status.Allocation == nil {
		return
	}
	for _, result := range claim.Status.Allocation.Devices.Results {
		if result.Driver != driver.Name || !strings.HasPrefix(result.Pool, node+"/") {
			continue
		}
		for _, consumer := range claim.Status.ReservedFor {
			m.holders[result.Device] = claim.Namespace + "/" + consumer.Name
		}
	}
}
