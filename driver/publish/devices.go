// What each kind of device says of itself: GPU, NIC, MIG partition and pair.
// Nothing is published that changes while a device is in use and healthy: a
// slice is rewritten for every change, and by every node.

package publish

import (
	"fmt"
	"maps"
	"math"
	"strings"

	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/hostler-dev/hostler/topology"
)

// DeviceIDAttribute is where Multus and its kin look for a device's PCI address.
const DeviceIDAttribute resourceapi.QualifiedName = "k8s.cni.cncf.io/deviceID"

type capacities = map[resourceapi.QualifiedName]resourceapi.DeviceCapacity

// model is what a GPU is, whole or in parts.
func (a attributes) model(gpu *topology.GPU, driver *topology.Driver) attributes {
	return a.
		text("productName", gpu.ProductName).
		text("architecture", gpu.Architecture).
		version("cudaComputeCapability", gpu.ComputeCapability).
		version("driverVersion", driver.Version).
		version("cudaDriverVersion", driver.CUDAVersion)
}

// nvlink is how a whole GPU reaches others.
func (a attributes) nvlink(gpu *topology.GPU, wiring *wiring) attributes {
	return a.text("nvlinkIsland", wiring.islands[gpu.Name]).text("nvlinkFabric", fabric(gpu.Fabric))
}

func gpuAttributes(gpu *topology.GPU, driver *topology.Driver, wiring *wiring) attributes {
	return newAttributes().
		text("type", "gpu").
		text("uuid", gpu.UUID).
		model(gpu, driver).
		flag("migEnabled", gpu.MIGEnabled).
		nvlink(gpu, wiring).
		numberIn("iommuGroup", gpu.Placement.IOMMUGroup).
		placement(gpu.Name, &gpu.Placement, wiring)
}

func gpuCapacity(gpu *topology.GPU) capacities {
	return amounts{{"memory", gpu.MemoryBytes, resource.BinarySI}}.capacities()
}

// partitionAttributes leave out the UUID of a partition that comes and goes with
// its claims: the entry must not change while it is allocated.
func partitionAttributes(gpu *topology.GPU, partition *topology.Partition, made bool, driver *topology.Driver, wiring *wiring) attributes {
	a := newAttributes().
		text("type", "mig").
		text("migProfile", partition.Profile.Name).
		text("parentUUID", gpu.UUID).
		model(gpu, driver).
		numberIn("iommuGroup", gpu.Placement.IOMMUGroup).
		placement(gpu.Name, &gpu.Placement, wiring)
	if !made {
		a.text("uuid", partition.UUID())
	}
	return a
}

func partitionCapacity(r *topology.MIGResources) capacities {
	return amounts{
		{"memory", r.MemoryBytes, resource.BinarySI},
		{"computeSlices", uint64(r.ComputeSlices), resource.DecimalSI},
		{"multiprocessors", uint64(r.Multiprocessors), resource.DecimalSI},
		{"copyEngines", uint64(r.CopyEngines), resource.DecimalSI},
		{"decoders", uint64(r.Decoders), resource.DecimalSI},
		{"encoders", uint64(r.Encoders), resource.DecimalSI},
		{"jpegEngines", uint64(r.JPEGEngines), resource.DecimalSI},
		{"ofaEngines", uint64(r.OFAEngines), resource.DecimalSI},
	}.capacities()
}

// function is what a NIC can do, alone or in a pair. Its speed is absent while
// there is no carrier: the kernel does not know it then, and who asks for a
// bandwidth is not served by such a port. A NIC that a pod holds keeps its entry.
func (a attributes) function(nic *topology.NIC, wiring *wiring) attributes {
	a.
		text("kind", string(nic.Kind)).
		text("driver", nic.Driver).
		text("firmwareVersion", nic.Firmware).
		text("pfName", nic.Parent).
		flag("rdma", nic.RDMA != nil).
		standardText(DeviceIDAttribute, nic.Placement.PCI).
		standardText(ResourceNameAttribute, wiring.resourceName(nic))
	if nic.RDMA != nil {
		a.text("rdmaDevice", nic.RDMA.Name)
	}
	if nic.Link != nil {
		a.text("ifName", nic.Link.Name).text("linkType", nic.Link.Type)
		if nic.Link.SpeedMbps > 0 {
			// In megabits per second, as ethtool and sysfs word it.
			a.number("linkSpeed", nic.Link.SpeedMbps)
		}
	}
	return a
}

func nicAttributes(nic *topology.NIC, wiring *wiring) attributes {
	a := newAttributes().
		text("type", "nic").
		function(nic, wiring).
		text("vendorID", nic.VendorID).
		text("deviceID", nic.DeviceID).
		number("vfID", nic.VFID).
		numberIn("iommuGroup", nic.Placement.IOMMUGroup).
		placement(nic.Name, &nic.Placement, wiring)
	if nic.Link != nil {
		a.text("mac", nic.Link.MAC)
	}
	return a
}

// pairAttributes are the GPU's, who decides where the pair sits, and of the NIC
// what it can do: 30 of the 32 that the API allows a device together with its capacities.
func pairAttributes(pair *topology.Pair, gpu *topology.GPU, nic *topology.NIC, driver *topology.Driver, wiring *wiring) attributes {
	return newAttributes().
		text("type", "pair").
		text("gpuName", gpu.Name).
		text("nicName", nic.Name).
		text("distance", string(pair.Distance)).
		text("uuid", gpu.UUID).
		model(gpu, driver).
		nvlink(gpu, wiring).
		function(nic, wiring).
		placement(gpu.Name, &gpu.Placement, wiring)
}

func egressAttributes() attributes { return attributes{}.text("type", "egress") }

func pairCapacity(gpu *topology.GPU, nic *topology.NIC) capacities {
	both := capacities{}
	maps.Copy(both, gpuCapacity(gpu))
	maps.Copy(both, nicCapacity(nic, false))
	return both
}

// amount is a capacity or counter by name.
type amount struct {
	name   string
	value  uint64
	format resource.Format
}

type amounts []amount

// known reports whether hardware said something sensible: 0 means that there is
// none, and what does not fit into a quantity is no amount of anything.
func (a amount) known() bool { return a.value > 0 && a.value <= math.MaxInt64 }

func (a amount) quantity() resource.Quantity { return *resource.NewQuantity(int64(a.value), a.format) }

func (list amounts) capacities() capacities {
	all := capacities{}
	for _, a := range list {
		if a.known() {
			all[own(a.name)] = resourceapi.DeviceCapacity{Value: a.quantity()}
		}
	}
	if len(all) == 0 {
		return nil
	}
	return all
}

// fabric names the clique within which GPUs reach each other over NVLink,
// across nodes too. A fabric that is not complete connects nothing yet.
func fabric(f *topology.Fabric) string {
	if f == nil || f.State != "Completed" || strings.Trim(f.ClusterUUID, "0-") == "" {
		return ""
	}
	return fmt.Sprintf("%s.%d", f.ClusterUUID, f.CliqueID)
}
