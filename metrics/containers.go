// Which containers use a claim is known to the kubelet alone. It is asked over
// one kept connection to its pod-resources socket, after the ledger changed and
// every ten seconds, and never in a scrape. A kubelet that does not answer costs
// the container label and nothing else: claim, pod and device are the ledger's.

package metrics

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"

	podresources "k8s.io/kubelet/pkg/apis/podresources/v1"
)

const (
	podResourcesInterval = 10 * time.Second
	podResourcesTimeout  = 5 * time.Second
	// debounce: the kubelet lists a container some moments after its claim was prepared.
	podResourcesDebounce = 250 * time.Millisecond
	// The default limit of 4 MiB is too small for a node with many pods (dcgm-exporter issue 408).
	podResourcesMaxBytes = 16 << 20
)

// use is one device of one claim in one pod.
type use struct {
	podNamespace, podName     string
	claimNamespace, claimName string
	pool, device              string
}

// Containers are the sorted names of the containers of each use.
type Containers map[use][]string

func (c Containers) of(pod Pod, h Holder) []string {
	return c[use{pod.Namespace, pod.Name, h.ClaimNamespace, h.ClaimName, h.Pool, h.Device}]
}

// containersOf reads a List response, for one driver's devices.
func containersOf(response *podresources.ListPodResourcesResponse, driverName string) Containers {
	containers := Containers{}
	for _, pod := range response.GetPodResources() {
		for _, container := range pod.GetContainers() {
			for _, claim := range container.GetDynamicResources() {
				for _, device := range claim.GetClaimResources() {
					if device.GetDriverName() != driverName {
						continue
					}
					key := use{pod.GetNamespace(), pod.GetName(), claim.GetClaimNamespace(), claim.GetClaimName(), device.GetPoolName(), device.GetDeviceName()}
					if !slices.Contains(containers[key], container.GetName()) {
						containers[key] = append(containers[key], container.GetName())
					}
				}
			}
		}
	}
	for _, names := range containers {
		slices.Sort(names)
	}
	return containers
}

// kubelet asks for containers.
type kubelet struct {
	socket     string
	driverName string
	clock      clock.Clock
	interval   time.Duration
	// ask wakes it before the interval is over.
	ask chan struct{}
	// answered is called when a new answer is there.
	answered func()
	latest   atomic.Pointer[Containers]
}

func (k *kubelet) containers() Containers {
	if c := k.latest.Load(); c != nil {
		return *c
	}
	return nil
}

func (k *kubelet) run(ctx context.Context) error {
	// The connection is made lazily and made again by itself; a socket that is
	// not there yet is an error of a call, not of this.
	connection, err := grpc.NewClient("unix://"+k.socket,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(podResourcesMaxBytes)))
	if err != nil {
		return fmt.Errorf("connecting to the kubelet's pod-resources socket %s: %w", k.socket, err)
	}
	defer connection.Close()
	client := podresources.NewPodResourcesListerClient(connection)
	logger := klog.FromContext(ctx).WithName("metrics")
	told := false
	for {
		if err := k.refresh(ctx, client); err != nil && ctx.Err() == nil {
			if !told {
				logger.Error(err, "The kubelet does not say which containers use which claims; the label container stays empty until it does", "socket", k.socket)
			}
			told = true
		} else {
			told = false
		}
		select {
		case <-ctx.Done():
			return nil
		case <-k.clock.After(k.interval):
			continue
		case <-k.ask:
		}
		select {
		case <-ctx.Done():
			return nil
		case <-k.clock.After(podResourcesDebounce):
		}
	}
}

func (k *kubelet) refresh(ctx context.Context, client podresources.PodResourcesListerClient) error {
	ctx, cancel := context.WithTimeout(ctx, podResourcesTimeout)
	defer cancel()
	response, err := client.List(ctx, &podresources.ListPodResourcesRequest{})
	if err != nil {
		return fmt.Errorf("listing pod resources: %w", err)
	}
	containers := containersOf(response, k.driverName)
	k.latest.Store(&containers)
	k.answered()
	return nil
}
