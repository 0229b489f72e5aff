// How attributes are written. Names under resource.kubernetes.io/ are those of
// k8s.io/dynamic-resource-allocation and no others; ours live under
// hostler.dev/. A value that the API would reject (a version that is none, a
// string that is too long) costs that attribute and nothing else: one odd
// firmware must not unpublish a node.

package publish

import (
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/dynamic-resource-allocation/deviceattribute"
	"k8s.io/utils/ptr"

	"github.com/hostler-dev/hostler/topology"
)

// attributes collects what is known of a device; an empty value is left out.
type attributes map[resourceapi.QualifiedName]resourceapi.DeviceAttribute

// newAttributes has room for what a NIC says, of which a node may have 2,000.
func newAttributes() attributes { return make(attributes, 24) }

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
func (a attributes) number(name string, value int) attributes {
	if value >= 0 {
		a[own(name)] = resourceapi.DeviceAttribute{IntValue: ptr.To(int64(value))}
	}
	return a
}

// numberIn is a number that the machine gives as text.
func (a attributes) numberIn(name, value string) attributes {
	if n, err := strconv.Atoi(value); err == nil {
		a.number(name, n)
	}
	return a
}

func (a attributes) flag(name string, value bool) attributes {
	a[own(name)] = resourceapi.DeviceAttribute{BoolValue: ptr.To(value)}
	return a
}

// placement is what all devices have in common: where they sit. It is the same
// code for all, because matchAttribute compares the values across kinds. The
// name is that of the GPU or NIC that sits there.
func (a attributes) placement(name string, at *topology.Placement, wiring *wiring) attributes {
	a.
		standardText(deviceattribute.StandardDeviceAttributePCIeRoot, at.PCIeRoot).
		standardText(deviceattribute.StandardDeviceAttributePCIBusID, at.PCI).
		number("socket", at.Socket).
		text("pcieSwitch", at.PCIeSwitch).
		text("affinityGroup", wiring.affinity[name])
	if numa, ok := wiring.numa.attribute(at.NUMANode); ok {
		a[deviceattribute.StandardDeviceAttributeNUMANode] = numa
	}
	if rail, ok := wiring.rails[name]; ok {
		a.number("rail", rail)
	}
	return a
}

// wiring is what the graph says about devices by name.
type wiring struct {
	islands, affinity map[string]string
	rails             map[string]int
	numa              numa
	// resourceName is that of a NIC, "" if it has none.
	resourceName func(*topology.NIC) string
}

// wiringOf names an island after its first GPU. A GPU alone is no island.
func wiringOf(s *topology.Snapshot, numa numa) *wiring {
	w := &wiring{islands: map[string]string{}, affinity: topology.AffinityGroups(s), rails: topology.Rails(s), numa: numa}
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
