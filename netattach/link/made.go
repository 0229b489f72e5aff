package link

// Interfaces that others made in a pod, CNI plugins for instance, and of which it is on
// record what they promised: that they are there, by index, and have their addresses.

import (
	"errors"
	"fmt"
	"slices"

	"github.com/vishvananda/netlink"

	"github.com/hostler-dev/hostler/netattach"
)

// Made returns the interface with its index in the pod. It is an error if there is no
// interface of that name, if it is another than the index says, or if it lacks one of the
// addresses; their prefixes do not matter, because plugins may answer with those of their
// networks.
//
// The kernel counts indices up (dev_index_reserve), so whoever makes the interface anew has
// its index only by asking for it by number. That takes CAP_NET_ADMIN, with which MAC address,
// alias and parent can be asked for, too: to compare them would catch nobody, and would
// refuse pods whose own programs change the address. Of when an interface was made the
// kernel tells nothing. It is its pod alone that is worse off: no container that has
// CAP_NET_ADMIN starts with a claim in a pod that is limited.
func Made(pod int, promised netattach.InterfaceState) (netattach.InterfaceState, error) {
	there, err := open(pod)
	if err != nil {
		return promised, err
	}
	defer there.Close()
	link, err := there.LinkByName(promised.Name)
	if missing := (netlink.LinkNotFoundError{}); errors.As(err, &missing) {
		return promised, fmt.Errorf("the pod has no interface %s", promised.Name)
	}
	if err != nil {
		return promised, fmt.Errorf("cannot look at interface %s of the pod: %w", promised.Name, err)
	}
	index := link.Attrs().Index
	if promised.Index != 0 && promised.Index != index {
		return promised, fmt.Errorf("the pod's interface %s is another than it was", promised.Name)
	}
	promised.Index = index
	addresses, err := there.AddrList(link, netlink.FAMILY_ALL)
	if err != nil {
		return promised, fmt.Errorf("cannot read the addresses of interface %s of the pod: %w", promised.Name, err)
	}
	for _, want := range promised.Addresses {
		if !slices.ContainsFunc(addresses, func(a netlink.Addr) bool { return a.IP.Equal(want.Addr().AsSlice()) }) {
			return promised, fmt.Errorf("the pod's interface %s does not have the address %s", promised.Name, want.Addr())
		}
	}
	return promised, nil
}

// Promiscuous reports whether the interface of that name receives everything, for
// whatever reason; false if there is none.
func Promiscuous(pod int, name string) (bool, error) {
	there, err := open(pod)
	if err != nil {
		return false, err
	}
	defer there.Close()
	link, err := there.LinkByName(name)
	if missing := (netlink.LinkNotFoundError{}); errors.As(err, &missing) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("cannot look at interface %s of the pod: %w", name, err)
	}
	return link.Attrs().Promisc != 0, nil
}
