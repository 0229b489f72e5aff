package main

// The story: its chapters in order, and what they ask the cluster between the
// lines. A chapter returns an error when what it promised did not happen.

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	resourceapi "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/hostler-dev/hostler/topology"
)

type story struct {
	*narrator
	stage
	// gpu and index are the GPU of trainer-0: as published, and as the simulator counts it.
	gpu   string
	index int
	// fetch is the command that gets a URL.
	fetch string
}

func (s *story) tell(ctx context.Context) error {
	s.title("Hostler on a simulated DGX H100, in a real one-node Kubernetes")
	s.say(`Only the hardware is simulated: sysfs, device nodes, NICs and the NVIDIA driver's library. Scheduler,
		kubelet, container runtime and Hostler are the real ones. The first run on a machine compiles Kubernetes
		from source, which takes several minutes; later runs take about a minute.`)
	s.line("")
	if err := s.set(ctx); err != nil {
		return err
	}
	s.aside("From here on, every line behind a $ is run for you; after `. %s` you can type it yourself.", envFile)
	for _, chapter := range []func(context.Context) error{
		s.machineIsDrawn, s.devicesArePublished, s.podsTalk, s.egressIsScoped, s.metricsNameThePod, s.gpuBreaks, s.gpuHeals,
	} {
		if err := chapter(ctx); err != nil {
			return fmt.Errorf("chapter %d: %w", s.chapters, err)
		}
	}
	s.whatNext()
	return nil
}

// allocated returns the devices that the pod's claim was given.
func (s *story) allocated(ctx context.Context, pod string) ([]string, error) {
	claims, err := s.client.ResourceV1().ResourceClaims(namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, fmt.Errorf("list claims: %w", err)
	}
	for _, claim := range claims.Items {
		ofPod := func(r resourceapi.ResourceClaimConsumerReference) bool { return r.Name == pod }
		if claim.Status.Allocation == nil || !slices.ContainsFunc(claim.Status.ReservedFor, ofPod) {
			continue
		}
		var devices []string
		for _, result := range claim.Status.Allocation.Devices.Results {
			devices = append(devices, result.Device)
		}
		return devices, nil
	}
	return nil, fmt.Errorf("no claim is allocated and reserved for pod %s", pod)
}

// gpuOf returns the GPU that a pod holds.
func (s *story) gpuOf(ctx context.Context, pod string) (device string, index int, err error) {
	devices, err := s.allocated(ctx, pod)
	if err != nil {
		return "", 0, err
	}
	for index, gpu := range s.profile.GPUs {
		if name := topology.GPUName(gpu.PCI); slices.Contains(devices, name) {
			return name, index, nil
		}
	}
	return "", 0, fmt.Errorf("pod %s holds no GPU of the machine, only %s", pod, strings.Join(devices, ", "))
}

// neighbours fails if the pod's GPU and NIC do not share a PCIe root.
func (s *story) neighbours(ctx context.Context, pod string) error {
	devices, err := s.allocated(ctx, pod)
	if err != nil {
		return err
	}
	w, err := s.watchSlices(ctx)
	if err != nil {
		return err
	}
	w.events.Stop()
	if roots := w.seen.roots(devices); len(devices) != 2 || len(roots) != 1 {
		return fmt.Errorf("pod %s holds %v under the PCIe roots %v, and should hold two devices under one", pod, devices, roots)
	}
	return nil
}

// eventually polls what is not announced.
func eventually(ctx context.Context, what string, check func() error) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		err := check()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting until %s: %w", what, err)
		case <-tick.C:
		}
	}
}
