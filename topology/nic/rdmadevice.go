// One RDMA device as sysfs describes it: GUIDs, ports, their state. Files are
// those of Documentation/ABI/stable/sysfs-class-infiniband in the kernel's tree.

package nic

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/hostler-dev/hostler/topology"
)

// rdmaReading reads one device; what makes no sense is a problem of its NIC.
type rdmaReading struct {
	*rdmaIndex
	name     string
	problems []topology.Problem
}

func (r *rdmaReading) device() *topology.RDMADevice {
	device := &topology.RDMADevice{
		Name: r.name, NodeGUID: r.guid(parseGUID, "node_guid"), SystemImageGUID: r.guid(parseGUID, "sys_image_guid"),
	}
	if own := r.charDevices[r.name]; len(own) > 0 {
		device.CharDevices = append(slices.Clone(own), r.shared...)
		slices.Sort(device.CharDevices)
	}
	entries, err := r.sys.Names("class", "infiniband", r.name, "ports")
	if err != nil {
		r.problem("ports", err)
		return device
	}
	for _, entry := range entries {
		number, err := strconv.Atoi(entry)
		if err != nil {
			continue
		}
		at := func(attribute string) string {
			return r.sys.OptionalText("class", "infiniband", r.name, "ports", entry, attribute)
		}
		device.Ports = append(device.Ports, topology.RDMAPort{
			Port: number, GUID: r.guid(portGUID, "ports", entry, "gids", "0"),
			State: stateWord(at("state")), PhysState: stateWord(at("phys_state")), LinkLayer: at("link_layer"), Rate: at("rate"),
		})
	}
	slices.SortFunc(device.Ports, func(a, b topology.RDMAPort) int { return cmp.Compare(a.Port, b.Port) })
	return device
}

func (r *rdmaReading) problem(attribute string, err error) {
	r.problems = append(r.problems, topology.Problem{Subject: attribute + " of " + r.name, Message: err.Error()})
}

func (r *rdmaReading) guid(parse func(string) (string, error), attribute ...string) string {
	// A port without GID table answers EINVAL, a device that leaves ENODEV.
	guid, err := parse(r.sys.OptionalText(append([]string{"class", "infiniband", r.name}, attribute...)...))
	if err != nil {
		r.problem(strings.Join(attribute, "/"), err)
	}
	return guid
}

// parseGUID reads an EUI-64 as sysfs writes it, "946d:ae03:0012:3456". One that
// is all zero is not set, as on a VF that was not configured yet.
func parseGUID(text string) (string, error) { return parseGroups(text, 4) }

// portGUID is the second half of a GID, "fe80:0000:0000:0000:946d:ae03:0012:3456".
func portGUID(gid string) (string, error) {
	groups, err := parseGroups(gid, 8)
	if groups == "" || err != nil {
		return "", err
	}
	return parseGroups(groups[len(groups)/2+1:], 4)
}

// parseGroups checks groups of four hexadecimal digits, "" if all are zero or nothing is there.
func parseGroups(text string, want int) (string, error) {
	if text == "" {
		return "", nil
	}
	groups := strings.Split(text, ":")
	zero := true
	for _, group := range groups {
		number, err := strconv.ParseUint(group, 16, 16)
		if err != nil || len(group) != 4 || len(groups) != want {
			return "", fmt.Errorf("%q is not made of %d groups of four hexadecimal digits", text, want)
		}
		zero = zero && number == 0
	}
	if zero {
		return "", nil
	}
	return strings.ToLower(text), nil
}

// stateWord: sysfs writes "4: ACTIVE".
func stateWord(state string) string {
	if _, word, ok := strings.Cut(state, ":"); ok {
		return strings.TrimSpace(word)
	}
	return state
}
