// Plan is pure and complete: everything that can be refused is refused here,
// before anything has been done. (What two claims do to each other is refused
// when the entry joins the journal, see conflict.)

package claim

import (
	"errors"
	"fmt"
	"net/netip"

	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/hostler-dev/hostler/api/v1alpha1"
	"github.com/hostler-dev/hostler/driver/publish"
	"github.com/hostler-dev/hostler/netattach"
	"github.com/hostler-dev/hostler/topology"
)

// PlanInput is everything that a plan depends on.
type PlanInput struct {
	Claim    *resourceapi.ResourceClaim
	NodeName string
	Snapshot *topology.Snapshot
	// Held are the NICs that claims hold, as they were when they were prepared.
	Held map[string]topology.NIC
	// ComingHome are the GPUs in the snapshot that their driver does not list, because
	// claims have them in user space or had until a moment ago.
	ComingHome map[string]bool
	// Resolvers are the addresses of the cluster's DNS service: empty if there is
	// none, nil if that is not known yet.
	Resolvers []netip.Addr
	// Partitions says whether partitions that do not exist are made. Default: they are.
	Partitions v1alpha1.PartitionOffer
	// MultusResourceNames are as in the agent's configuration.
	MultusResourceNames []v1alpha1.MultusResourceName
	// NodeAddresses are those by which the cluster knows the node.
	NodeAddresses []netip.Addr
}

// ErrDeviceGone says that an allocated device is not on the node any more.
var ErrDeviceGone = errors.New("the node no longer has the device")

// Plan derives what the claim gets. Networks in the result name their
// NetworkAttachmentDefinition but have no Config yet, and partitions do not say
// yet whose they are: that is for the caller to look up, see Admission.
func Plan(in PlanInput) (*Entry, error) {
	claim := in.Claim
	if claim.Status.Allocation == nil {
		return nil, fmt.Errorf("claim %s/%s is not allocated", claim.Namespace, claim.Name)
	}
	entry := &Entry{
		ClaimUID: claim.UID, ClaimNamespace: claim.Namespace, ClaimName: claim.Name,
		PodClaimName: claim.Annotations[resourceapi.PodResourceClaimAnnotation],
		BootID:       in.Snapshot.BootID, Pods: podsOf(claim),
	}
	results := ownResults(claim)
	for _, result := range results {
		if err := planResult(in, entry, result); err != nil {
			return nil, fmt.Errorf("claim %s/%s: %w", claim.Namespace, claim.Name, err)
		}
	}
	if err := checkUse(claim.Status.Allocation, results, entry); err != nil {
		return nil, fmt.Errorf("claim %s/%s: %w", claim.Namespace, claim.Name, err)
	}
	if err := checkWhole(entry); err != nil {
		return nil, fmt.Errorf("claim %s/%s: %w", claim.Namespace, claim.Name, err)
	}
	return entry, nil
}

// ownResults leaves out what other drivers were allocated in the same claim.
func ownResults(claim *resourceapi.ResourceClaim) []*resourceapi.DeviceRequestAllocationResult {
	var own []*resourceapi.DeviceRequestAllocationResult
	if claim.Status.Allocation == nil {
		return nil
	}
	for i := range claim.Status.Allocation.Devices.Results {
		if result := &claim.Status.Allocation.Devices.Results[i]; result.Driver == publish.DriverName {
			own = append(own, result)
		}
	}
	return own
}

func planResult(in PlanInput, entry *Entry, result *resourceapi.DeviceRequestAllocationResult) error {
	configs, err := configsFor(in.Claim, result)
	if err != nil {
		return err
	}
	device := Device{
		Request: result.Request, Pool: result.Pool, Name: result.Device, ShareID: result.ShareID,
		AdminAccess: result.AdminAccess != nil && *result.AdminAccess,
	}
	switch result.Pool {
	case publish.GPUPool(in.NodeName), publish.NICPool(in.NodeName), publish.DevicePool(in.NodeName):
		err = planHardware(in, &device, result, configs)
	case publish.EgressPool(in.NodeName):
		err = planEgress(in, entry, &device, configs)
	default:
		err = fmt.Errorf("device %s is of pool %q, which this node (%s) does not have", result.Device, result.Pool, in.NodeName)
	}
	entry.Devices = append(entry.Devices, device)
	return err
}

// planHardware goes by what the device is, which its name alone says: the pool
// depends on how devices were offered when it was allocated.
func planHardware(in PlanInput, device *Device, result *resourceapi.DeviceRequestAllocationResult, configs []given) error {
	found := lookup(in.Snapshot, in.Held, device.Name)
	if found == (parts{}) {
		return goneError(in, device)
	}
	if err := checkNamed(configs, device, found.takes); err != nil {
		return err
	}
	if found.gpu != nil {
		if err := planGPU(in, device, found, configs); err != nil {
			return err
		}
	}
	if found.nic != nil {
		return planNIC(in, device, found.nic, result, configs)
	}
	return nil
}

// takes reports whether the config is of a kind that applies to the device.
func (p parts) takes(config runtime.Object) bool {
	switch config.(type) {
	case *v1alpha1.GPUConfig:
		return p.gpu != nil
	case *v1alpha1.NICConfig:
		return p.nic != nil
	}
	return false
}

// goneError words why nothing of that name is there, as well as the pool tells.
// Without a driver no partition has a name, nor has a GPU that was never read.
func goneError(in PlanInput, device *Device) error {
	kind := "device"
	switch device.Pool {
	case publish.NICPool(in.NodeName):
		return fmt.Errorf("NIC %s: %w; it was unplugged, or its PF lost its VFs; delete the pod to have another one allocated", device.Name, ErrDeviceGone)
	case publish.GPUPool(in.NodeName):
		kind = "GPU"
	}
	if err := driverError(in.Snapshot.Driver, kind+" "+device.Name); err != nil {
		return err
	}
	return fmt.Errorf("%s %s: %w; it was unplugged, or the GPU's MIG mode was switched; delete the pod to have another one allocated", kind, device.Name, ErrDeviceGone)
}

func planEgress(in PlanInput, entry *Entry, device *Device, configs []given) error {
	if device.Name != publish.EgressDevice {
		return fmt.Errorf("device %s: %w; the egress pool has one device, %q", device.Name, ErrDeviceGone, publish.EgressDevice)
	}
	if entry.Egress != nil {
		return errors.New("it has two egress devices; a claim has one scope, in which all rules are listed")
	}
	if err := checkNamed(configs, device, isEgressConfig); err != nil {
		return err
	}
	config, err := merged(configs, device.Request, ceiling)
	if err != nil {
		return err
	}
	entry.Egress = &netattach.EgressIntent{Config: *config, NodeAddresses: in.NodeAddresses}
	if config.DNS == v1alpha1.DNSClusterResolver {
		if in.Resolvers == nil {
			return errors.New("its egress scope allows the cluster's resolver, whose addresses the API server has not told yet (service kube-system/kube-dns, see the agent's log); the kubelet tries again")
		}
		entry.Egress.Resolvers = in.Resolvers
	}
	return nil
}

// checkWhole refuses what is wrong with the devices of a claim taken together.
func checkWhole(entry *Entry) error {
	if len(entry.Devices) == 0 {
		return fmt.Errorf("no device of driver %s is allocated to it", publish.DriverName)
	}
	if err := checkOverlaps(entry); err != nil {
		return err
	}
	if err := errors.Join(checkTogether(entry), checkPods(entry)); err != nil {
		return err
	}
	if bypasses(entry, entry) {
		return errBypass
	}
	return nil
}

// checkOverlaps refuses a claim whose devices exclude each other. Two requests
// may have the same whole GPU, which containers can share; but a NIC is moved, and a
// partition made, once.
func checkOverlaps(entry *Entry) error {
	for i := range entry.Devices {
		for j := range i {
			first, second := &entry.Devices[j], &entry.Devices[i]
			same := first.Name == second.Name
			switch {
			case !first.overlaps(second):
			case first.isBeside(second):
				return fmt.Errorf("requests %q and %q have shares of NIC %s: %w", first.Request, second.Request, first.NIC.Name, errMixed)
			case same && (first.NIC != nil || first.Partition != nil || first.VFIO != nil || second.VFIO != nil):
				return fmt.Errorf("device %s is allocated to its requests %q and %q at once, and can be given to a pod once; leave out one of the requests, or select other devices for it", first.Name, first.Request, second.Request)
			case !same && first.exclusive() && second.exclusive():
				return fmt.Errorf("device %s of request %q shares hardware with device %s of request %q; only one of them can be given to a pod; select devices that share none, or leave out one of the requests", second.Name, second.Request, first.Name, first.Request)
			}
		}
	}
	return nil
}

func podsOf(claim *resourceapi.ResourceClaim) []netattach.PodReference {
	var pods []netattach.PodReference
	for _, consumer := range claim.Status.ReservedFor {
		if consumer.APIGroup == "" && consumer.Resource == "pods" {
			pods = append(pods, netattach.PodReference{UID: consumer.UID, Namespace: claim.Namespace, Name: consumer.Name})
		}
	}
	return pods
}
