package link

// What a netdev has on the host. It is read before anything of it is changed, and
// written down before the netdev is moved: of routes, neighbours and sysctls the
// kernel keeps nothing when it changes namespaces, and the rest its pod may change.

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/hostler-dev/hostler/netattach"
)

// linkFlags are those that ip-link(8) sets, but for up.
const linkFlags = unix.IFF_PROMISC | unix.IFF_ALLMULTI | unix.IFF_NOARP | unix.IFF_MULTICAST

// noLinkLocal is the value of addr_gen_mode with which the kernel makes no
// link-local address (IN6_ADDR_GEN_MODE_NONE).
const noLinkLocal = "1"

// hostState reads what Restore will put back.
func (s *space) hostState(link netlink.Link, device netattach.DeviceIntent) (*netattach.HostState, error) {
	attrs := link.Attrs()
	state := &netattach.HostState{TxQueueLength: attrs.TxQLen, Alias: attrs.Alias, AlternativeNames: attrs.AltNames,
		Group: attrs.Group, Flags: attrs.RawFlags & linkFlags, XDPProgram: programOf(link)}
	var err error
	kernelMakesLinkLocal := true
	err = s.inside(func() (err error) {
		state.Sysctls, err = ownSysctls(attrs.Name, attrs.MTU)
		mode, unknown := readSysctl(sysctls + "net/ipv6/conf/" + attrs.Name + "/addr_gen_mode")
		kernelMakesLinkLocal = unknown != nil || mode != noLinkLocal
		return err
	})
	if err != nil {
		return nil, err
	}
	if state.TCXPrograms, err = s.tcxIDs(attrs.Index); err != nil {
		return nil, err
	}
	if state.Addresses, err = s.hostAddresses(link, kernelMakesLinkLocal); err != nil {
		return nil, err
	}
	if state.Routes, err = s.routes(attrs.Index); err != nil {
		return nil, err
	}
	if state.Neighbours, err = s.neighbours(attrs.Index); err != nil {
		return nil, err
	}
	if !switched(device) {
		return state, nil
	}
	switches, err := s.ethtool()
	if err != nil {
		return nil, err
	}
	defer switches.Close()
	state.Features, state.PrivateFlags, err = switches.now(attrs.Name, device)
	return state, err
}

// remember fills in the device what the netdev has on the host now.
func (s *space) remember(device netattach.DeviceIntent) (netattach.DeviceIntent, error) {
	link, err := s.find(device, 0)
	if errors.Is(err, ErrNotFound) {
		return device, nil
	}
	if err != nil {
		return device, err
	}
	if device.HostState, err = s.hostState(link, device); err != nil {
		return device, fmt.Errorf("cannot write down what %s (%s) has on the host: %w", device.HostName, device.Device, err)
	}
	device.HostAddresses = nil
	for _, address := range device.HostState.Addresses {
		device.HostAddresses = append(device.HostAddresses, address.Prefix)
	}
	// The plan's name and address may be of a moment when the last claim's were still on it.
	device.HostName, device.HostMAC = link.Attrs().Name, link.Attrs().HardwareAddr.String()
	device.HostMTU, device.HostUp = link.Attrs().MTU, link.Attrs().RawFlags&unix.IFF_UP != 0
	return device, nil
}
