package main

// What is known of this node's devices beside the hardware, for the drawings: who
// holds them (the agent's journal, on this node) and which are faulty (the
// slices' taints, where a cluster is in reach). It is an ornament: without
// journal or cluster the drawing simply shows less.

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	resourceapi "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/hostler-dev/hostler/api/v1alpha1"
	"github.com/hostler-dev/hostler/driver"
	"github.com/hostler-dev/hostler/driver/claim"
	"github.com/hostler-dev/hostler/driver/publish"
	"github.com/hostler-dev/hostler/topology"
)

type marks struct {
	nodeIPs []netip.Addr
	// apiServers and nodeIPs tell uplinks.
	apiServers []netip.Addr
	holders    map[string][]topology.Holder
	faults     map[string][]string
}

func readMarks(ctx context.Context, cfg *v1alpha1.AgentConfig) marks {
	var m marks
	holders, err := driver.Holders(cfg.Paths)
	if err != nil {
		fmt.Fprintln(os.Stderr, "hostler: drawing without who holds what:", err)
	}
	m.holders = holdersByDevice(holders)
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
		m.apiServers = newNodeWatch(client, config.Host, cfg.NodeName).serverAddresses(ctx)
		err = m.read(ctx, client, cfg.NodeName)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "hostler: drawing without faults:", err)
	}
	return m
}

// holdersByDevice words the journal's holders for the drawings.
func holdersByDevice(holders []claim.Holder) map[string][]topology.Holder {
	by := map[string][]topology.Holder{}
	for _, h := range holders {
		holder := topology.Holder{Claim: h.ClaimNamespace + "/" + h.ClaimName}
		if h.AdminAccess {
			holder.Claim += " (admin access)"
		}
		for _, pod := range h.Pods {
			holder.Pods = append(holder.Pods, pod.Namespace+"/"+pod.Name)
		}
		slices.Sort(holder.Pods)
		by[h.Device] = append(by[h.Device], holder)
	}
	return by
}

// read asks the cluster for the node's addresses, which tell uplinks, and for the taints of its devices.
func (m *marks) read(ctx context.Context, client kubernetes.Interface, node string) error {
	object, err := client.CoreV1().Nodes().Get(ctx, node, metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("reading node %q: %w", node, err)
	}
	m.nodeIPs = addressesOf(object)
	list, err := client.ResourceV1().ResourceSlices().List(ctx, metav1.ListOptions{
		FieldSelector: resourceapi.ResourceSliceSelectorNodeName + "=" + node + "," + resourceapi.ResourceSliceSelectorDriver + "=" + driver.Name,
	})
	if err != nil {
		return fmt.Errorf("reading the slices of node %q: %w", node, err)
	}
	m.faults = faultsByDevice(list.Items)
	return nil
}

// faultsByDevice reads faults off the taints of the newest generation of each
// pool. What is no fault is left out: the drawings show uplinks and MIG mode themselves.
func faultsByDevice(resourceSlices []resourceapi.ResourceSlice) map[string][]string {
	newest := map[string]int64{}
	for _, slice := range resourceSlices {
		newest[slice.Spec.Pool.Name] = max(newest[slice.Spec.Pool.Name], slice.Spec.Pool.Generation)
	}
	faults := map[string][]string{}
	for _, slice := range resourceSlices {
		if slice.Spec.Pool.Generation < newest[slice.Spec.Pool.Name] {
			continue
		}
		for _, device := range slice.Spec.Devices {
			for _, taint := range device.Taints {
				if !slices.Contains([]string{publish.UplinkTaint, publish.AwayTaint, publish.MIGModeTaint}, taint.Key) {
					faults[device.Name] = append(faults[device.Name], faultWords(taint))
				}
			}
		}
	}
	return faults
}

// faultWords are a taint's key, without our own prefix, and value.
func faultWords(taint resourceapi.DeviceTaint) string {
	words := strings.TrimPrefix(taint.Key, driver.Name+"/")
	if taint.Value != "" {
		words += " " + taint.Value
	}
	return words
}
