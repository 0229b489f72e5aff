package link

// Sysctls of one interface. The kernel keeps them with the interface in its
// namespace and gives it new ones, the namespace's defaults, whenever it comes into
// another (inetdev_init, ipv6_add_dev, neigh_parms_alloc): so a pod's have to be set
// after the move in, and the host's have to be put back after the move home.

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	sysctls = "/proc/sys/"
	// anyInterface stands for the interface's name in a sysctl's path.
	anyInterface = "IFNAME"
	// defaults is the name under which a namespace keeps what it gives to new interfaces.
	defaults     = "default"
	disableIPv6  = "net/ipv6/conf/" + anyInterface + "/disable_ipv6"
	mtuOfIPv6    = "net/ipv6/conf/" + anyInterface + "/mtu"
	longestValue = 256
)

// perInterface are the directories that have one of their own for each interface.
func perInterface() []string {
	return []string{"net/ipv4/conf/", "net/ipv6/conf/", "net/ipv4/neigh/", "net/ipv6/neigh/"}
}

// sysctlPath is where the interface's setting is, as seen by a thread in its namespace.
func sysctlPath(setting, name string) (string, error) {
	for _, directory := range perInterface() {
		if leaf, ok := strings.CutPrefix(setting, directory+anyInterface+"/"); ok && leaf != "" && !strings.Contains(leaf, "/") && leaf != ".." {
			return sysctls + directory + name + "/" + leaf, nil
		}
	}
	return "", fmt.Errorf("sysctl %s is none of an interface; those are below %s", setting, strings.Join(perInterface(), anyInterface+", ")+anyInterface)
}

// setSysctls sets and reads back, those of the names that sort first first: where
// the kernel has a value in two units, the finer one is the later.
func setSysctls(name string, settings map[string]string) error {
	var faults []error
	for _, setting := range slices.Sorted(maps.Keys(settings)) {
		if err := setSysctl(name, setting, settings[setting]); err != nil {
			faults = append(faults, err)
		}
	}
	return errors.Join(faults...)
}

func setSysctl(name, setting, value string) error {
	file, err := sysctlPath(setting, name)
	if err != nil {
		return err
	}
	shown := strings.ReplaceAll(setting, anyInterface, name)
	now, err := readSysctl(file)
	if err == nil && same(now, value) {
		return nil
	}
	if errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("sysctl %s cannot be %q: this kernel, or the interface, does not have it: %w", shown, value, err)
	}
	if err := writeSysctl(file, value); err != nil {
		return fmt.Errorf("sysctl %s cannot be set to %q (it is %q): %w", shown, value, now, err)
	}
	if now, err = readSysctl(file); err != nil || !same(now, value) {
		return errors.Join(fmt.Errorf("sysctl %s is %q after it was set to %q", shown, now, value), err)
	}
	return nil
}

// same compares values of several words, too, whatever is between them.
func same(a, b string) bool { return slices.Equal(strings.Fields(a), strings.Fields(b)) }

// ownSysctls are those of the interface that differ from what its namespace gives
// to new ones and that can be set. It is called on a thread in the namespace.
func ownSysctls(name string, mtu int) (map[string]string, error) {
	own := map[string]string{}
	for _, directory := range perInterface() {
		if err := ownIn(directory, name, own); err != nil {
			return nil, fmt.Errorf("cannot read the sysctls of %s: %w", name, err)
		}
	}
	if own[mtuOfIPv6] == fmt.Sprint(mtu) {
		delete(own, mtuOfIPv6) // that follows the link's
	}
	return own, nil
}

// ownIn opens both directories once: to walk the path for each of a hundred files
// takes longer than to read them.
func ownIn(directory, name string, own map[string]string) error {
	mine, err := unix.Open(sysctls+directory+name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		return nil // a kernel without IPv6, or an MTU too small for it
	}
	if err != nil {
		return err
	}
	defer unix.Close(mine)
	usual, err := unix.Open(sysctls+directory+defaults, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err == nil {
		defer unix.Close(usual)
	} else if !errors.Is(err, unix.ENOENT) { // of neighbours, only the first namespace has defaults
		return err
	}
	leaves, err := names(mine)
	if err != nil {
		return err
	}
	for _, leaf := range leaves {
		// A secret that was never set answers EIO, and what cannot be read cannot be kept.
		value, err := readSysctlAt(mine, leaf)
		if err != nil {
			continue
		}
		if given, err := readSysctlAt(usual, leaf); err == nil && given == value || !settable(sysctls+directory+name+"/"+leaf) {
			continue
		}
		own[directory+anyInterface+"/"+leaf] = value
	}
	return nil
}

// settable says whether the kernel lets its owner write it: mc_forwarding, for
// one, only a routing daemon's socket changes.
func settable(file string) bool {
	var stat unix.Stat_t
	return unix.Stat(file, &stat) == nil && stat.Mode&0o200 != 0
}

// The files of /proc/sys are opened by plain system calls: there are a hundred of
// an interface, and package os registers each with the poller.

func readSysctl(file string) (string, error) { return readSysctlAt(unix.AT_FDCWD, file) }

func readSysctlAt(directory int, file string) (string, error) {
	fd, err := unix.Openat(directory, file, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	buffer := make([]byte, longestValue)
	length, err := unix.Read(fd, buffer)
	if err != nil {
		return "", err
	}
	return strings.TrimSpace(string(buffer[:length])), nil
}

func writeSysctl(file, value string) error {
	fd, err := unix.Open(file, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	_, err = unix.Write(fd, []byte(value))
	return err
}

func names(directory int) (list []string, err error) {
	buffer := make([]byte, 8192)
	for {
		length, err := unix.ReadDirent(directory, buffer)
		if err != nil || length == 0 {
			return list, err
		}
		_, _, list = unix.ParseDirent(buffer[:length], -1, list)
	}
}
