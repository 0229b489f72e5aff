package main

// A container that has a claimed NIC gets the device nodes of the RDMA devices that it was
// given, and the device cgroup keeps it from the others. Not so a privileged one: that has
// all nodes, and libraries that take every device they find take those of other pods. The
// rdma controller keeps it from them too, where the container's cgroup has that: nothing
// can be made on a device of which rdma.max allows no handle and no object.
//
// The hook sets it because nothing before it can: neither CDI nor NRI has a place for the
// OCI configuration's linux.resources.rdma. It runs once the claim is attached, when all
// devices have got to where they belong, and the runtime has made the cgroup.

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// rdmaLimits sets a container's rdma.max.
type rdmaLimits struct {
	// root of the files that the kernel shows, "" for the machine's own.
	root string
	// set writes one line to an rdma.max.
	set func(path, line string) error
}

// hold keeps the container from the RDMA devices that it was not given. What it was given
// is all in its configuration, so the hooks of several claims come to the same.
func (l rdmaLimits) hold(c container) error {
	path, err := l.limitsOf(c.Pid)
	if err != nil || path == "" {
		return err
	}
	// Devices come, go, and are renamed meanwhile, so what was done is looked at again.
	const looks = 10
	for range looks {
		raw, err := os.ReadFile(path)
		if err != nil {
			return fmt.Errorf("cannot read the RDMA limits of the container: %w", err)
		}
		// After the list: a device that gets another name in between is not in it by that.
		given, err := l.given(c.rules)
		if err != nil {
			return err
		}
		unlimited := others(string(raw), given)
		if len(unlimited) == 0 {
			return nil
		}
		for _, device := range unlimited {
			// The kernel's answer for a device that has gone (rdmacg_resource_set_max).
			if err := l.set(path, device+" hca_handle=0 hca_object=0"); err != nil && !errors.Is(err, syscall.ENODEV) {
				return fmt.Errorf("cannot keep the container from RDMA device %s, which it was not given: %w; see that the runtime runs its hooks as the node's root and that the cgroup file system is writable", device, err)
			}
		}
	}
	return fmt.Errorf("cannot keep the container from RDMA devices that it was not given: they are still not limited in %s after %d attempts; see in the kernel's log why they come and go", path, looks)
}

// others are those devices of an rdma.max that are not kept from the container yet and
// were not given. The kernel lists all that it has, whichever network namespace they are in.
func others(raw string, given map[string]bool) (devices []string) {
	for line := range strings.Lines(raw) {
		fields := strings.Fields(line)
		// What comes before the limits is what the kernel wants to be told of the device.
		limits := slices.IndexFunc(fields, func(f string) bool { return strings.HasPrefix(f, "hca_") })
		if limits < 1 || given[fields[0]] || slices.Contains(fields, "hca_handle=0") && slices.Contains(fields, "hca_object=0") {
			continue
		}
		devices = append(devices, strings.Join(fields[:limits], " "))
	}
	return devices
}

// given are the RDMA devices whose uverbs node a rule names. The class is not bound to
// a network namespace, so moved ones are there as well.
func (l rdmaLimits) given(rules []deviceRule) (map[string]bool, error) {
	nodes, err := filepath.Glob(l.root + "/sys/class/infiniband_verbs/uverbs*")
	if err != nil {
		return nil, fmt.Errorf("cannot list RDMA devices: %w", err)
	}
	devices := map[string]bool{}
	for _, node := range nodes {
		number, err := attribute(node + "/dev")
		if err != nil {
			return nil, err
		}
		major, minor, _ := strings.Cut(number, ":")
		if !slices.ContainsFunc(rules, func(r deviceRule) bool { return r.gives(major, minor) }) {
			continue
		}
		name, err := attribute(node + "/ibdev")
		if err != nil {
			return nil, err
		}
		devices[name] = true
	}
	return devices, nil
}

// attribute is "" if its device has gone.
func attribute(path string) (string, error) {
	raw, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENODEV) {
		return "", fmt.Errorf("cannot tell which RDMA devices the container was given: %w", err)
	}
	return strings.TrimSpace(string(raw)), nil
}

// deviceRule is one of linux.resources.devices (runtime-spec, config-linux.md, "Allowed
// Device list").
type deviceRule struct {
	Allow  bool   `json:"allow"`
	Type   string `json:"type"`
	Major  *int64 `json:"major"`
	Minor  *int64 `json:"minor"`
	Access string `json:"access"`
}

// gives says that the rule is for this character device. That there is a node in
// linux.devices says nothing: for a privileged container containerd and CRI-O put all of
// the node's there, and one rule that allows everything. What CDI gives has a rule of its
// own besides, since both apply it after that.
func (r deviceRule) gives(major, minor string) bool {
	is := func(number *int64, text string) bool { return strconv.FormatInt(*number, 10) == text }
	return r.Allow && r.Type != "b" && strings.ContainsAny(r.Access, "rw") &&
		r.Major != nil && is(r.Major, major) && (r.Minor == nil || *r.Minor < 0 || is(r.Minor, minor))
}

// setLimit is rdmaLimits.set for the kernel, which takes one device with each write.
func setLimit(path, line string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(line)
	return errors.Join(err, f.Close())
}
