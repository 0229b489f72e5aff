// An event is "action@path" followed by KEY=value, each ended by a zero byte
// (lib/kobject_uevent.c). Of all that only three things are of use.

package uevent

import (
	"path"
	"strings"
)

type event struct {
	action, subsystem string
	// devpath is the device's folder below /sys, "/devices/pci0000:16/0000:16:01.0".
	devpath string
}

// parse reads a message; false for one that does not come from the kernel's hand,
// such as udev's own, which begins with "libudev".
func parse(message []byte) (event, bool) {
	head, rest, ok := strings.Cut(string(message), "\x00")
	action, devpath, isHead := strings.Cut(head, "@")
	if !ok || !isHead || action == "" || !strings.HasPrefix(devpath, "/") {
		return event{}, false
	}
	e := event{action: action, devpath: devpath}
	for field := range strings.SplitSeq(rest, "\x00") {
		if subsystem, ok := strings.CutPrefix(field, "SUBSYSTEM="); ok {
			e.subsystem = subsystem
			break
		}
	}
	return e, true
}

// concernsInventory tells whether the event is a reason to read the machine again.
//
// A GPU driver that is loaded announces its module first and then each GPU that it
// binds to ("bind" of subsystem pci); NVIDIA's device nodes belong to no class and
// announce nothing. Netdevs without hardware are left to nic.Watch, which hears of
// every link: each pod's veth would else be announced twice.
func (e event) concernsInventory() bool {
	switch e.subsystem {
	case "pci", "infiniband", "infiniband_verbs", "infiniband_mad":
		return true
	case "net":
		return !strings.HasPrefix(e.devpath, "/devices/virtual/")
	case "module":
		name := path.Base(e.devpath)
		return strings.HasPrefix(name, "nvidia") || strings.HasPrefix(name, "mlx5")
	}
	return false
}
