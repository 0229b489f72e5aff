package link

// The host's state given back to a netdev that is home, however it came there: by
// the hook, or from a namespace that died, when the kernel brings it under its in-pod
// name or another. Nothing here trusts what was done before; each part is tried
// though another fails, and what fails is told with what helps.

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
	"k8s.io/klog/v2"

	"github.com/hostler-dev/hostler/netattach"
)

// Remembered says whether the device's state on the host is known. Of one that is
// not, nothing was ever changed.
func Remembered(device netattach.DeviceIntent) bool {
	return device.HostState != nil || device.HostMTU != 0 // which is all that an earlier agent wrote down
}

// restore is idempotent.
func (s *space) restore(ctx context.Context, link netlink.Link, device netattach.DeviceIntent) error {
	if !Remembered(device) {
		return nil
	}
	faults := s.restoreIdentity(ctx, link, device)
	index := link.Attrs().Index
	name := link.Attrs().Name
	if now, err := s.LinkByIndex(index); err == nil {
		link, name = now, now.Attrs().Name
	}
	if device.HostMTU > 0 && link.Attrs().MTU != device.HostMTU {
		faults = append(faults, part("MTU", s.LinkSetMTU(link, device.HostMTU)))
	}
	state := device.HostState
	if state == nil { // it was moved by an agent that wrote down no more
		state = &netattach.HostState{TxQueueLength: link.Attrs().TxQLen, Alias: link.Attrs().Alias, AlternativeNames: link.Attrs().AltNames,
			Group: link.Attrs().Group, Flags: link.Attrs().RawFlags & linkFlags}
		for _, prefix := range device.HostAddresses {
			state.Addresses = append(state.Addresses, plainAddress(prefix))
		}
	}
	faults = append(faults, s.restoreAttributes(link, state)...)
	if device.HostState != nil {
		faults = append(faults, s.removeProgram(link, state.XDPProgram), s.removeTCX(link, state.TCXPrograms))
	}
	faults = append(faults, s.restoreSwitches(name, state))
	if len(state.Sysctls) > 0 {
		faults = append(faults, s.inside(func() error { return setSysctls(name, state.Sysctls) }))
	}
	faults = append(faults, s.restoreHostAddresses(link, state.Addresses))
	if device.HostUp {
		faults = append(faults, part("up", s.LinkSetUp(link)))
	} else {
		faults = append(faults, part("down", s.LinkSetDown(link)))
	}
	// A route needs its interface up, and its source an address.
	faults = append(faults, s.setNeighbours(index, state.Neighbours), s.restoreRoutes(index, state.Routes))
	if err := errors.Join(faults...); err != nil {
		return fmt.Errorf("%s (%s) is home but not as it was: %w; set what is missing by hand (ip-link(8), ip-address(8), ip-route(8)), or apply the node's network configuration again. The agent tries again meanwhile", device.HostName, device.Device, err)
	}
	return nil
}

// restoreIdentity gives back MAC address and name, for both of which a netdev may
// have to be down: most drivers change a MAC only then, and kernels before 6.2 names.
func (s *space) restoreIdentity(ctx context.Context, link netlink.Link, device netattach.DeviceIntent) (faults []error) {
	attrs := link.Attrs()
	mac, err := changedMAC(link, device)
	if faults = append(faults, err); mac != nil {
		klog.FromContext(ctx).Info("Giving network device its MAC address back", "device", device.Device, "from", attrs.HardwareAddr, "to", device.HostMAC)
		faults = append(faults, s.LinkSetDown(link), part("MAC address "+device.HostMAC, s.LinkSetHardwareAddr(link, mac)))
	}
	if attrs.Name != device.HostName {
		klog.FromContext(ctx).Info("Giving network device its name back", "device", device.Device, "from", attrs.Name, "to", device.HostName)
		faults = append(faults, s.LinkSetDown(link))
		if err := s.LinkSetName(link, device.HostName); err != nil {
			faults = append(faults, fmt.Errorf("it stays %s: %w", attrs.Name, err))
		}
	}
	return faults
}

// restoreAttributes gives back what a move leaves but a pod may have changed.
func (s *space) restoreAttributes(link netlink.Link, state *netattach.HostState) (faults []error) {
	attrs := link.Attrs()
	if attrs.TxQLen != state.TxQueueLength {
		faults = append(faults, part(fmt.Sprintf("transmit queue length %d", state.TxQueueLength), s.LinkSetTxQLen(link, state.TxQueueLength)))
	}
	if attrs.Alias != state.Alias { // which is not a string for the kernel: its length is the attribute's
		faults = append(faults, part(fmt.Sprintf("alias %q", state.Alias), s.change(attrs.Index, 0, 0, nl.NewRtAttr(unix.IFLA_IFALIAS, []byte(state.Alias)))))
	}
	if attrs.Group != state.Group {
		faults = append(faults, part(fmt.Sprintf("group %d", state.Group), s.LinkSetGroup(link, int(state.Group))))
	}
	if (attrs.RawFlags^state.Flags)&linkFlags != 0 {
		faults = append(faults, part(fmt.Sprintf("flags %#x", state.Flags), s.change(attrs.Index, state.Flags, linkFlags)))
	}
	for _, name := range attrs.AltNames {
		if !slices.Contains(state.AlternativeNames, name) {
			faults = append(faults, part("without the alternative name "+name, s.LinkDelAltName(link, name)))
		}
	}
	for _, name := range state.AlternativeNames {
		if !slices.Contains(attrs.AltNames, name) {
			faults = append(faults, part("alternative name "+name, s.LinkAddAltName(link, name)))
		}
	}
	return faults
}

// restoreRoutes adds those that are missing. One that is there may have more to it
// than is written down, and would not be known to be the same.
func (s *space) restoreRoutes(index int, want []netattach.Route) error {
	if len(want) == 0 {
		return nil
	}
	there, err := s.routes(index)
	if err != nil {
		return err
	}
	missing := slices.DeleteFunc(slices.Clone(want), func(r netattach.Route) bool { return slices.Contains(there, r) })
	return s.addRoutes(index, missing)
}

func (s *space) restoreSwitches(name string, state *netattach.HostState) error {
	if len(state.Features)+len(state.PrivateFlags) == 0 {
		return nil
	}
	switches, err := s.ethtool()
	if err != nil {
		return err
	}
	defer switches.Close()
	return switches.set(name, state.Features, state.PrivateFlags, false)
}

// part says which part of a state could not be given.
func part(what string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", what, err)
}
