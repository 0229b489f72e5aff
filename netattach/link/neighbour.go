package link

// Permanent neighbours, which go with their interface and stay while it is down.

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/hostler-dev/hostler/netattach"
)

// neighbours are the permanent ones that somebody has entered; the kernel's own
// for multicast have no such state.
func (s *space) neighbours(index int) ([]netattach.Neighbour, error) {
	list, err := consistent(func() ([]netlink.Neigh, error) { return s.NeighList(index, netlink.FAMILY_ALL) })
	if err != nil {
		return nil, fmt.Errorf("cannot list neighbours: %w", err)
	}
	var neighbours []netattach.Neighbour
	for _, n := range list {
		if n.State == netlink.NUD_PERMANENT && n.IP != nil && n.HardwareAddr != nil && (n.Family == unix.AF_INET || n.Family == unix.AF_INET6) {
			neighbours = append(neighbours, netattach.Neighbour{Address: addressOf(n.IP), HardwareAddress: n.HardwareAddr.String()})
		}
	}
	return neighbours, nil
}

// setNeighbours is idempotent. Each of them is tried.
func (s *space) setNeighbours(index int, neighbours []netattach.Neighbour) error {
	var faults []error
	for _, n := range neighbours {
		mac, err := net.ParseMAC(n.HardwareAddress)
		if err == nil {
			err = s.NeighSet(&netlink.Neigh{LinkIndex: index, Family: familyOf(n.Address), State: netlink.NUD_PERMANENT, IP: n.Address.AsSlice(), HardwareAddr: mac})
		}
		if err != nil {
			faults = append(faults, fmt.Errorf("neighbour %s at %s: %w", n.Address, n.HardwareAddress, err))
		}
	}
	return errors.Join(faults...)
}

// haveNeighbours says which of the neighbours is not there.
func (s *space) haveNeighbours(index int, want []netattach.Neighbour) error {
	if len(want) == 0 {
		return nil
	}
	there, err := s.neighbours(index)
	if err != nil {
		return err
	}
	for _, n := range want {
		if !slices.ContainsFunc(there, func(o netattach.Neighbour) bool {
			return o.Address == n.Address && strings.EqualFold(o.HardwareAddress, n.HardwareAddress)
		}) {
			return fmt.Errorf("neighbour %s at %s is not there after it was entered", n.Address, n.HardwareAddress)
		}
	}
	return nil
}
