// Package link moves netdevs between the host's network namespace and a pod's.
//
// Remember writes down what a netdev has on the host. Into takes it in, renamed and
// with its settings, but down, so that egress rules can be hooked to it before its
// first packet; Up sets it up and adds routes, which the kernel refuses on an
// interface that is down. Home brings it back, and Restore gives it all that it had.
//
// A netdev is not recognised by its name, which may get lost: if a namespace
// dies with a physical netdev in it, the kernel returns it under its in-pod name
// or, where that is taken, as dev<N>. A veth in that place is destroyed, so Home
// must come before the namespace's end. See pick for what it is recognised by.
//
// A device may be shared: then pods get children of it, macvlan or ipvlan, which Into
// makes and Home deletes, and the device itself stays as it is (child.go). One that
// Multus brings into the pod is only found there, and put in order once it is home again
// (external.go). VFs are set up by way of their PFs (vf.go), and the pod's default
// route is here, too (defaultroute.go).
//
// The caller makes sure that no netdev is an uplink of the node.
package link

import (
	"context"
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
	"k8s.io/klog/v2"

	"github.com/hostler-dev/hostler/netattach"
)

// ErrNotFound marks a netdev that is where it was looked for under no name.
var ErrNotFound = errors.New("network device not found")

// Remember returns the device with its state on the host as it is now, which is
// what Home will restore. A device that is not on the host is returned as it was given.
func (h *Host) Remember(device netattach.DeviceIntent) (netattach.DeviceIntent, error) {
	here, err := h.enter()
	if err != nil {
		return device, err
	}
	defer here.Close()
	if device.Child != nil {
		return here.rememberParent(device)
	}
	return here.remember(device)
}

// Into moves the device into the pod's namespace and leaves it down, with its name
// and settings. Where it fails it brings home again what it has moved. A device that is
// in the pod already is only configured, and stays there though that fails: it may be
// one that the pod's containers work with. It returns the device's index there.
func (h *Host) Into(ctx context.Context, pod int, device netattach.DeviceIntent) (podIndex int, err error) {
	there, err := h.spaces.enter(pod)
	if err != nil {
		return 0, err
	}
	defer there.Close()
	link, moved, err := h.bring(ctx, pod, there, device)
	if err == nil {
		device.PodIndex = link.Attrs().Index
		err = there.configure(ctx, link, device)
	} else {
		err = fmt.Errorf("cannot move %s (%s) into the pod: %w", device.HostName, device.Device, err)
	}
	if err != nil && moved {
		_, undo := h.Home(ctx, pod, device)
		err = errors.Join(err, undo)
	}
	return device.PodIndex, err
}

// bring finds the device in the pod or moves it there; moved says that it did, or may
// have. Before the device's index is known, the host is asked first, because in the pod
// there might be another with its MAC.
func (h *Host) bring(ctx context.Context, pod int, there *space, device netattach.DeviceIntent) (_ netlink.Link, moved bool, _ error) {
	if device.Child != nil {
		return h.bringChild(ctx, pod, there, device)
	}
	if device.PodIndex != 0 {
		if link, err := there.find(device, device.PodIndex); !errors.Is(err, ErrNotFound) {
			return link, false, err
		}
		return h.move(ctx, pod, there, device)
	}
	link, moved, err := h.move(ctx, pod, there, device)
	if errors.Is(err, ErrNotFound) { // an agent that was killed may have moved it
		if found, err := there.find(device, 0); !errors.Is(err, ErrNotFound) {
			return found, false, err
		}
	}
	return link, moved, err
}

func (h *Host) move(ctx context.Context, pod int, there *space, device netattach.DeviceIntent) (_ netlink.Link, moved bool, _ error) {
	here, err := h.enter()
	if err != nil {
		return nil, false, err
	}
	defer here.Close()
	links, err := here.links()
	if err != nil {
		return nil, false, err
	}
	link, err := pick(links, device, 0)
	if err != nil {
		return nil, false, fmt.Errorf("%w in the host's network namespace; check that the device is present and not used otherwise", err)
	}
	if err := unencumbered(links, link); err != nil {
		return nil, false, err
	}
	// The kernel would move a netdev whose new name is taken and then fail to rename it.
	if taken, err := there.LinkByName(device.PodName); err == nil {
		return nil, false, fmt.Errorf("the pod has an interface %s already (%s); choose another interfaceName", device.PodName, taken.Type())
	}
	klog.FromContext(ctx).V(4).Info("Moving network device into pod", "device", device.Device, "from", link.Attrs().Name, "to", device.PodName)
	if err := here.transfer(link, pod, device.PodName, 0, nil); err != nil {
		return nil, true, err
	}
	link, err = there.LinkByName(device.PodName)
	return link, true, err
}

// Up sets the device up and adds its routes, and rules by which they are found.
func (h *Host) Up(_ context.Context, pod int, device netattach.DeviceIntent) error {
	there, err := h.spaces.enter(pod)
	if err != nil {
		return err
	}
	defer there.Close()
	link, err := there.find(device, device.PodIndex)
	if err != nil {
		return fmt.Errorf("cannot set %s (%s) up in the pod: %w", device.PodName, device.Device, err)
	}
	if err := there.limit(link, device); err != nil {
		return err
	}
	if err := there.LinkSetUp(link); err != nil {
		return fmt.Errorf("cannot set %s (%s) up in the pod: %w", device.PodName, device.Device, err)
	}
	return there.connect(link, device)
}

// Home brings the device back from the pod, or back to order if it is on the
// host already. It reports whether the device was found in either place.
// What it leaves behind in a pod that lives on, rules and an empty VRF, is removed.
func (h *Host) Home(ctx context.Context, pod int, device netattach.DeviceIntent) (found bool, err error) {
	there, err := h.spaces.enter(pod)
	if err != nil {
		return false, err
	}
	defer there.Close()
	ruled := there.removeRules(device)
	found, err = h.bringHome(ctx, pod, there, device)
	return found, errors.Join(ruled, err, there.removeVRF(ctx, device))
}

func (h *Host) bringHome(ctx context.Context, pod int, there *space, device netattach.DeviceIntent) (bool, error) {
	if device.Child != nil {
		return true, h.deleteChild(ctx, pod, device)
	}
	if device.PodIndex == 0 { // perhaps it has never left
		if found, err := h.Restore(ctx, device); found || err != nil {
			return found, err
		}
	}
	link, err := there.find(device, device.PodIndex)
	if errors.Is(err, ErrNotFound) {
		return h.Restore(ctx, device)
	}
	if err != nil {
		return false, err
	}
	here, err := h.enter()
	if err != nil {
		return true, err
	}
	defer here.Close()
	klog.FromContext(ctx).V(4).Info("Bringing network device home", "device", device.Device, "from", link.Attrs().Name, "to", device.HostName)
	// If another device took its name meanwhile, it keeps its index as a name,
	// which is unique in a namespace once it is there.
	name := device.HostName
	_, taken := here.LinkByName(name)
	if taken == nil {
		name = fmt.Sprintf("hostler%d", link.Attrs().Index)
	}
	mac, err := changedMAC(link, device)
	if err != nil {
		return true, err
	}
	if err := there.transfer(link, h.namespace, name, device.HostMTU, mac); err != nil {
		return true, fmt.Errorf("cannot bring %s (%s) home from the pod: %w", device.PodName, device.Device, err)
	}
	_, err = h.Restore(ctx, device)
	return true, err
}

// Restore gives a device that is in the host's namespace, under whatever name,
// the state that it had before it was claimed.
func (h *Host) Restore(ctx context.Context, device netattach.DeviceIntent) (bool, error) {
	if device.Child != nil {
		return true, nil // of the parent nothing was changed
	}
	here, err := h.enter()
	if err != nil {
		return false, err
	}
	defer here.Close()
	link, err := here.find(device, 0)
	if errors.Is(err, ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return true, here.restore(ctx, link, device)
}

// Present says whether the device is in the pod under its name, and held to the
// bandwidth that it has, if it has one.
func Present(pod int, device netattach.DeviceIntent) (bool, error) {
	there, err := open(pod)
	if err != nil {
		return false, err
	}
	defer there.Close()
	link, err := there.find(device, device.PodIndex)
	if errors.Is(err, ErrNotFound) {
		return false, nil
	}
	return err == nil && link.Attrs().Name == device.PodName && there.limited(link, device) == nil, err
}
