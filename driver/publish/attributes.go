// The attributes and capacities of each kind of device. Names under
// resource.kubernetes.io/ are those of k8s.io/dynamic-resource-allocation and
// no others; ours live under hostler.dev/. A value that the API would reject (a
// version that is none, a string that is too long) costs that attribute and
// nothing else: one odd firmware must not unpublish a node.

package publish

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/dynamic-resource-allocation/deviceattribute"
	"k8s.io/utils/ptr"

	"github.com/hostler-dev/hostler/topology"
)

// DeviceIDAttribute is where Multus and its kin look for a device's PCI address.
const DeviceIDAttribute resourceapi.QualifiedName = "k8s.cni.cncf.io/deviceID"

// attributes collects what is known of a device; an empty value is left out.
type attributes map[resourceapi.QualifiedName]resourceapi.DeviceAttribute

func own(name string) resourceapi.QualifiedName {
	return resourceapi.QualifiedName(DriverName + "/" + name)
}

func (a attributes) text(name, value string) attributes { return a.standardText(own(name), value) }

func (a attributes) standardText(name resourceapi.QualifiedName, value string) attributes {
	if value != "" && len(value) <= resourceapi.DeviceAttributeMaxValueLength && utf8.ValidString(value) {
		a[name] = resourceapi.DeviceAttribute{StringValue: ptr.To(value)}
	}
	return a
}

func (a attributes) version(name, value string) attributes {
	if semver, ok := semanticVersion(value); ok {
		a[own(name)] = resourceapi.DeviceAttribute{VersionValue: ptr.To(semver)}
	}
	return a
}

// number leaves out negative values, which mean "unknown" throughout the snapshot.
func (a attributes) number(name resourceapi.QualifiedName, value int) attributes {
	if value >= 0 {
		a[name] = resourceapi.DeviceAttribute{IntValue: ptr.To(int64(value))}
	}
	return a
}

func (a attributes) flag(name string, value bool) attributes {
	a[own(name)] = resourceapi.DeviceAttribute{BoolValue: ptr.To(value)}
	return a
}

// placement is what GPUs and NICs have in common: where they sit. It is the
// same code for both, because matchAttribute compares the values across kinds.
func (a attributes) placement(name string, at *topology.Placement, wiring wiring) attributes {
	return a.
		standardText(deviceattribute.StandardDeviceAttributePCIeRoot, at.PCIeRoot).
		standardText(deviceattribute.StandardDeviceAttributePCIBusID, at.PCI).
		number(deviceattribute.StandardDeviceAttributeNUMANode, at.NUMANode).
		number(own("socket"), at.Socket).
		text("pcieSwitch", at.PCIeSwitch).
		text("affinityGroup", wiring.affinity[name])
}

func gpuAttributes(gpu *topology.GPU, driver *topology.Driver, wiring wiring) attributes {
	return attributes{}.
		text("type", "gpu").
		text("uuid", gpu.UUID).
		text("productName", gpu.ProductName).
		text("architecture", gpu.Architecture).
		version("cudaComputeCapability", gpu.ComputeCapability).
		version("driverVersion", driver.Version).
		version("cudaDriverVersion", driver.CUDAVersion).
		flag("migEnabled", gpu.MIGEnabled).
		text("nvlinkIsland", wiring.islands[gpu.Name]).
		text("nvlinkFabric", fabric(gpu.Fabric)).
		placement(gpu.Name, &gpu.Placement, wiring)
}

func gpuCapacity(gpu *topology.GPU) map[resourceapi.QualifiedName]resourceapi.DeviceCapacity {
	if gpu.MemoryBytes == 0 {
		return nil
	}
	return capacity("memory", *resource.NewQuantity(int64(gpu.MemoryBytes), resource.BinarySI))
}

func nicAttributes(nic *topology.NIC, wiring wiring) attributes {
	a := attributes{}.
		text("type", "nic").
		text("kind", string(nic.Kind)).
		text("driver", nic.Driver).
		text("vendorID", nic.VendorID).
		text("deviceID", nic.DeviceID).
		text("pfName", nic.Parent).
		number(own("vfID"), nic.VFID).
		flag("rdma", nic.RDMA != nil).
		standardText(DeviceIDAttribute, nic.Placement.PCI).
		placement(nic.Name, &nic.Placement, wiring)
	if nic.RDMA != nil {
		a.text("rdmaDevice", nic.RDMA.Name)
	}
	if nic.Link != nil {
		a.text("ifName", nic.Link.Name).text("mac", nic.Link.MAC).text("linkType", nic.Link.Type)
		if nic.Link.SpeedMbps > 0 {
			// In megabits per second, as ethtool and sysfs word it.
			a.number(own("linkSpeed"), nic.Link.SpeedMbps)
		}
	}
	return a
}

// nicCapacity is the link's rate in bits per second.
func nicCapacity(nic *topology.NIC) map[resourceapi.QualifiedName]resourceapi.DeviceCapacity {
	if nic.Link == nil || nic.Link.SpeedMbps <= 0 {
		return nil
	}
	return capacity("bandwidth", *resource.NewScaledQuantity(int64(nic.Link.SpeedMbps), resource.Mega))
}

func capacity(name string, value resource.Quantity) map[resourceapi.QualifiedName]resourceapi.DeviceCapacity {
	return map[resourceapi.QualifiedName]resourceapi.DeviceCapacity{own(name): {Value: value}}
}

// fabric names the clique within which GPUs reach each other over NVLink,
// across nodes too. A fabric that is not complete connects nothing yet.
func fabric(f *topology.Fabric) string {
	if f == nil || f.State != "Completed" || strings.Trim(f.ClusterUUID, "0-") == "" {
		return ""
	}
	return fmt.Sprintf("%s.%d", f.ClusterUUID, f.CliqueID)
}

// wiring is what the graph says about devices by name.
type wiring struct{ islands, affinity map[string]string }

// wiringOf names an island after its first GPU. A GPU alone is no island.
func wiringOf(s *topology.Snapshot) wiring {
	w := wiring{islands: map[string]string{}, affinity: topology.AffinityGroups(s)}
	for _, island := range topology.NVLinkIslands(s) {
		if len(island) < 2 {
			continue
		}
		first := slices.Min(island)
		for _, gpu := range island {
			w.islands[gpu] = first
		}
	}
	return w
}

// semanticVersion brings what drivers call a version ("570.124.06", "9.0") into
// the form that the API demands (semver.org 2.0.0: three numbers, no leading
// zeros). Anything else is not a version.
func semanticVersion(s string) (string, bool) {
	parts := strings.Split(strings.TrimSpace(s), ".")
	if len(parts) > 3 {
		return "", false
	}
	numbers := [3]string{"0", "0", "0"}
	for i, part := range parts {
		n, err := strconv.ParseUint(part, 10, 63)
		if err != nil {
			return "", false
		}
		numbers[i] = strconv.FormatUint(n, 10)
	}
	return strings.Join(numbers[:], "."), true
}

// taintsByDevice sorts each device's taints, so that their order on the wire
// does not depend on the order in which faults came in.
func taintsByDevice(taints []Taint) map[string][]resourceapi.DeviceTaint {
	sorted := slices.Clone(taints)
	slices.SortStableFunc(sorted, func(a, b Taint) int {
		return cmp.Or(cmp.Compare(a.Device, b.Device), cmp.Compare(effectOrder(a.Effect), effectOrder(b.Effect)), cmp.Compare(a.Key, b.Key))
	})
	out := map[string][]resourceapi.DeviceTaint{}
	for _, t := range sorted {
		if len(out[t.Device]) == resourceapi.DeviceTaintsMaxLength {
			continue
		}
		taint := resourceapi.DeviceTaint{Key: t.Key, Value: labelValue(t.Value), Effect: t.Effect}
		if !t.TimeAdded.IsZero() {
			taint.TimeAdded = t.TimeAdded.DeepCopy()
		}
		out[t.Device] = append(out[t.Device], taint)
	}
	return out
}

// effectOrder puts the effects that matter most first: those survive the API's limit.
func effectOrder(effect resourceapi.DeviceTaintEffect) int {
	switch effect {
	case resourceapi.DeviceTaintEffectNoExecute:
		return 0
	case resourceapi.DeviceTaintEffectNoSchedule:
		return 1
	}
	return 2
}

func sortByPCI(nics []topology.NIC) {
	slices.SortStableFunc(nics, func(a, b topology.NIC) int {
		return cmp.Compare(a.Placement.PCI, b.Placement.PCI)
	})
}
