package main

// What is known of this node's devices beside the hardware, for the drawing: who
// holds them (the agent's journal, on this node) and which are faulty (the
// slices' taints, where a cluster is in reach). It is an ornament: without
// journal or cluster the picture simply shows less.

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/hostler-dev/hostler/api/v1alpha1"
	"github.com/hostler-dev/hostler/driver"
	"github.com/hostler-dev/hostler/driver/publish"
)

type marks struct {
	nodeIPs         []netip.Addr
	holders, faults map[string]string
}

func readMarks(ctx context.Context, cfg *v1alpha1.AgentConfig) marks {
	m := marks{holders: map[string]string{}, faults: map[string]string{}}
	holders, err := driver.Holders(cfg.Paths)
	if err != nil {
		fmt.Fprintln(os.Stderr, "hostler: drawing without who holds what:", err)
	}
	for _, h := range holders {
		for _, pod := range h.Pods {
			m.holders[h.Device] = pod.Namespace + "/" + pod.Name
		}
	}
	config, err := clusterConfig(cfg.Kubeconfig)
	if err != nil {
		if cfg.Kubeconfig != "" {
			fmt.Fprintln(os.Stderr, "hostler: drawing without faults:", err)
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
		fmt.Fprintln(os.Stderr, "hostler: drawing without faults:", err)
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
				if taint.Key == publish.UplinkTaint {
					continue // the drawing marks uplinks itself
				}
				m.faults[device.Name] = strings.TrimPrefix(taint.Key, driver.Name+"/") + " " + taint.Value
			}
		}
	}
	return nil
}
