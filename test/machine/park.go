// What becomes of a NIC's netdev when its PCI function loses its driver: the kernel
// unregisters it, and makes one anew when the driver is back. A veth pair cannot be
// told to vanish on one side alone, so that side waits in the fabric's namespace,
// out of everybody's sight.

package machine

import (
	"fmt"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// parkedName is the netdev's name in the fabric: that of its far end, and one letter more.
func (p Port) parkedName() string { return p.Far + "p" }

// Park takes the port's netdev out of the node, with everything that was set on it.
func (p Port) Park(o PlugOptions) error {
	f, err := openFabric(o)
	if err != nil {
		return err
	}
	defer f.close()
	near, err := f.node.LinkByName(p.Name)
	if err != nil {
		return fmt.Errorf("find netdev %s on the node: %w", p.Name, err)
	}
	if err := f.node.LinkSetDown(near); err != nil {
		return fmt.Errorf("set netdev %s down: %w", p.Name, err)
	}
	return move(near, p.parkedName(), f.node, f.farNS)
}

// Unpark puts a netdev in the place of the one that was parked: up, as the node's
// network configuration would set it, and without addresses.
func (p Port) Unpark(o PlugOptions) error {
	f, err := openFabric(o)
	if err != nil {
		return err
	}
	defer f.close()
	parked, err := f.far.LinkByName(p.parkedName())
	if err != nil {
		return fmt.Errorf("find the parked netdev of %s: %w", p.Name, err)
	}
	if err := move(parked, p.Name, f.far, f.nodeNS); err != nil {
		return err
	}
	near, err := f.node.LinkByName(p.Name)
	if err != nil {
		return fmt.Errorf("find netdev %s on the node again: %w", p.Name, err)
	}
	if err := f.node.LinkSetMTU(near, p.MTU); err != nil {
		return fmt.Errorf("set the MTU of netdev %s: %w", p.Name, err)
	}
	if err := f.node.LinkSetHardwareAddr(near, p.MAC); err != nil {
		return fmt.Errorf("set the address of netdev %s: %w", p.Name, err)
	}
	return f.node.LinkSetUp(near)
}

// move gives a link, which is down, another name and another namespace.
func move(link netlink.Link, name string, from *netlink.Handle, to netns.NsHandle) error {
	if err := from.LinkSetName(link, name); err != nil {
		return fmt.Errorf("rename netdev %s to %s: %w", link.Attrs().Name, name, err)
	}
	if err := from.LinkSetNsFd(link, int(to)); err != nil {
		return fmt.Errorf("move netdev %s to another namespace: %w", name, err)
	}
	return nil
}
