// Plan is pure and complete: everything that can be refused is refused here,
// before anything has been done. (What two claims do to each other is refused
// when the entry joins the journal, see conflict.)

package claim

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"

	resourceapi "k8s.io/api/resource/v1"

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
	// Resolvers are the addresses of the cluster's DNS service: empty if there is
	// none, nil if that is not known yet.
	Resolvers []netip.Addr
	// NodeAddresses are those by which the cluster knows the node.
	NodeAddresses []netip.Addr
}

// ErrDeviceGone says that an allocated device is not on the node any more.
var ErrDeviceGone = errors.New("the node no longer has the device")

// Plan derives what the claim gets. Networks in the result name their
// NetworkAttachmentDefinition but have no Config yet: that is for the caller to
// look up.
func Plan(in PlanInput) (*Entry, error) {
	claim := in.Claim
	if claim.Status.Allocation == nil {
		return nil, fmt.Errorf("claim %s/%s is not allocated", claim.Namespace, claim.Name)
	}
	entry := &Entry{
		ClaimUID: claim.UID, ClaimNamespace: claim.Namespace, ClaimName: claim.Name,
		BootID: in.Snapshot.BootID, Pods: podsOf(claim),
	}
	results := ownResults(claim)
	if err := checkUse(in.NodeName, claim.Status.Allocation, results); err != nil {
		return nil, fmt.Errorf("claim %s/%s: %w", claim.Namespace, claim.Name, err)
	}
	for _, result := range results {
		if err := planResult(in, entry, result); err != nil {
			return nil, fmt.Errorf("claim %s/%s: %w", claim.Namespace, claim.Name, err)
		}
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
	case publish.GPUPool(in.NodeName):
		err = planGPU(in, &device, configs, result)
	case publish.NICPool(in.NodeName):
		err = planNIC(in, &device, configs, result)
	case publish.EgressPool(in.NodeName):
		err = planEgress(in, entry, configs, result)
	default:
		err = fmt.Errorf("device %s is of pool %q, which this node (%s) does not have", result.Device, result.Pool, in.NodeName)
	}
	entry.Devices = append(entry.Devices, device)
	return err
}

func planGPU(in PlanInput, device *Device, configs []given, result *resourceapi.DeviceRequestAllocationResult) error {
	config, err := merged(configs, result, overlay[v1alpha1.GPUConfig])
	if err != nil {
		return err
	}
	gpu := in.Snapshot.GPU(device.Name)
	switch driver := in.Snapshot.Driver; {
	case driver.State != topology.DriverReady:
		return fmt.Errorf("GPU %s cannot be given to a pod while the node's accelerator driver does not work (%s): %s", device.Name, driver.State, cmp.Or(driver.Message, "the agent has not read the machine yet"))
	case gpu == nil:
		return fmt.Errorf("GPU %s: %w; it was unplugged; delete the pod to have another one allocated", device.Name, ErrDeviceGone)
	case gpu.Lost:
		return fmt.Errorf("GPU %s has fallen off the bus (the driver answers \"GPU is lost\"); it needs a reset or a reboot", device.Name)
	}
	copied := *gpu
	device.GPU, device.Capabilities = &copied, config.DriverCapabilities
	return nil
}

func planNIC(in PlanInput, device *Device, configs []given, result *resourceapi.DeviceRequestAllocationResult) error {
	config, err := merged(configs, result, overlay[v1alpha1.NICConfig])
	if err != nil {
		return err
	}
	nic := in.Snapshot.NIC(device.Name)
	if held, ok := in.Held[device.Name]; ok {
		nic = &held
	}
	switch {
	case nic == nil:
		return fmt.Errorf("NIC %s: %w; it was unplugged, or its PF lost its VFs; delete the pod to have another one allocated", device.Name, ErrDeviceGone)
	case nic.Uplink != "":
		return fmt.Errorf("NIC %s is the node's own: it %s; it is never given to a pod, whatever the claim tolerates", device.Name, nic.Uplink)
	case device.AdminAccess:
		return fmt.Errorf("NIC %s: admin access is for devices that can be looked at while others use them; a NIC is in one network namespace at a time", device.Name)
	case nic.Link == nil && nic.RDMA == nil:
		return fmt.Errorf("NIC %s has neither a netdev in the host's network namespace nor an RDMA device; some other program on the node took it", device.Name)
	}
	copied := *nic
	device.NIC = &copied
	device.RDMA = nic.RDMA != nil && config.RDMA == v1alpha1.RDMAAuto
	if nic.Link == nil {
		return needNoNetdev(device, config)
	}
	device.Network, err = networkIntent(device, nic, config, in.Claim.Namespace)
	return err
}

// needNoNetdev refuses settings of a netdev for a NIC that has none (InfiniBand without IPoIB).
func needNoNetdev(device *Device, config *v1alpha1.NICConfig) error {
	if config.InterfaceName != "" || config.MTU != nil || len(config.Addresses)+len(config.Routes)+len(config.Networks) > 0 {
		return fmt.Errorf("NIC %s has an RDMA device and no netdev; its NICConfig can set nothing but rdma", device.Name)
	}
	return nil
}

func networkIntent(device *Device, nic *topology.NIC, config *v1alpha1.NICConfig, namespace string) (*netattach.DeviceIntent, error) {
	intent := &netattach.DeviceIntent{
		Request: device.Request, Pool: device.Pool, Device: device.Name, PCI: nic.Placement.PCI,
		HostName: nic.Link.Name, PodName: nic.Link.Name, HostMAC: nic.Link.MAC,
	}
	if config.InterfaceName != "" {
		intent.PodName = config.InterfaceName
	}
	if config.MTU != nil {
		intent.MTU = int(*config.MTU)
	}
	for _, address := range config.Addresses {
		prefix, err := netip.ParsePrefix(address)
		if err != nil {
			return nil, fmt.Errorf("NIC %s: address %q: %w", device.Name, address, err)
		}
		intent.Addresses = append(intent.Addresses, prefix)
	}
	for _, route := range config.Routes {
		planned, err := planRoute(route)
		if err != nil {
			return nil, fmt.Errorf("NIC %s: %w", device.Name, err)
		}
		intent.Routes = append(intent.Routes, planned)
	}
	for _, network := range config.Networks {
		if network.Namespace == "" {
			network.Namespace = namespace
		}
		intent.Networks = append(intent.Networks, netattach.NetworkIntent{Namespace: network.Namespace, Name: network.Name})
	}
	return intent, nil
}

func planRoute(route v1alpha1.Route) (netattach.Route, error) {
	var planned netattach.Route
	var err error
	if planned.Destination, err = netip.ParsePrefix(route.Destination); err != nil {
		return planned, fmt.Errorf("route to %q: %w", route.Destination, err)
	}
	if route.Gateway != "" {
		if planned.Gateway, err = netip.ParseAddr(route.Gateway); err != nil {
			return planned, fmt.Errorf("route to %s: gateway: %w", route.Destination, err)
		}
	}
	return planned, nil
}

func planEgress(in PlanInput, entry *Entry, configs []given, result *resourceapi.DeviceRequestAllocationResult) error {
	if result.Device != publish.EgressDevice {
		return fmt.Errorf("device %s: %w; the egress pool has one device, %q", result.Device, ErrDeviceGone, publish.EgressDevice)
	}
	if entry.Egress != nil {
		return errors.New("it has two egress devices; a claim has one scope, in which all rules are listed")
	}
	config, err := merged(configs, result, ceiling)
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
	names, netdevs := map[string]string{}, map[string]string{}
	for _, device := range entry.Devices {
		if other, twice := netdevs[device.Name]; twice && device.NIC != nil {
			return fmt.Errorf("NIC %s is allocated to its requests %q and %q at once", device.Name, other, device.Request)
		}
		netdevs[device.Name] = device.Request
		if device.Network == nil {
			continue
		}
		if other, taken := names[device.Network.PodName]; taken {
			return fmt.Errorf("NICs %s and %s would both be called %s in the pod; give each request an interfaceName of its own, and only to requests for one NIC", other, device.Name, device.Network.PodName)
		}
		names[device.Network.PodName] = device.Name
	}
	if bypasses(entry, entry) {
		return errBypass
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
