// Netdevs for the machine's NICs. Each is one end of a veth pair in the node's
// network namespace, under the name and MAC that the rendered sysfs shows; the
// other ends join a bridge in the fabric's namespace, which stands for the
// switch that the NICs are cabled to, so any two of them can exchange packets,
// wherever pods have taken them.

package machine

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
	"k8s.io/klog/v2"
)

// PlugOptions say where the netdevs go.
type PlugOptions struct {
	// NodeNetNS and FabricNetNS are paths of network namespaces, or names under
	// /run/netns. "" is the calling thread's namespace.
	NodeNetNS, FabricNetNS string
	// FabricBridge is made in the fabric's namespace if it is not there.
	FabricBridge string
	// NodeIndex is the one that the machine was rendered with.
	NodeIndex int
}

// Port is one netdev that Plug makes.
type Port struct {
	Name, PCI string
	MAC       net.HardwareAddr
	// MTU in bytes.
	MTU int
	// Far is the other end's name in the fabric.
	Far string
}

// Ports leaves out uplinks, which the cluster connects to its own network, and
// IPoIB netdevs, whose place no Ethernet device can take.
func (p *Profile) Ports(nodeIndex int) []Port {
	var ports []Port
	add := func(name, pci string, mtu int, rdma *RDMA) {
		if name == "" || rdma.infiniBand() {
			return
		}
		bus, devfn := busAndFunction(pci)
		far := fmt.Sprintf("f%d-%02x%02x", nodeIndex, bus, devfn)
		if domain := domain(pci); domain != 0 {
			far = fmt.Sprintf("f%d-%04x%02x%02x", nodeIndex, domain, bus, devfn)
		}
		ports = append(ports, Port{Name: name, PCI: pci, MAC: p.MAC(nodeIndex, pci), MTU: mtu, Far: far})
	}
	for _, n := range p.NICs {
		if !n.Uplink {
			add(n.Interface, n.PCI, n.MTU, n.RDMA)
		}
		for _, f := range n.VFs {
			add(f.Interface, f.PCI, n.MTU, f.RDMA)
		}
	}
	return ports
}

// NetdevNames are the netdevs that Plug makes: those of all functions but uplinks.
func (p *Profile) NetdevNames() []string {
	var names []string
	for _, port := range p.Ports(0) {
		names = append(names, port.Name)
	}
	return names
}

// fabric holds the two namespaces while links are made or removed.
type fabric struct {
	node, far     *netlink.Handle
	farNS, nodeNS netns.NsHandle
}

func openFabric(o PlugOptions) (*fabric, error) {
	f := &fabric{farNS: netns.None(), nodeNS: netns.None()}
	var err error
	if f.nodeNS, err = openNetNS(o.NodeNetNS); err != nil {
		return nil, err
	}
	if f.farNS, err = openNetNS(o.FabricNetNS); err != nil {
		f.close()
		return nil, err
	}
	if f.node, err = netlink.NewHandleAt(f.nodeNS, unix.NETLINK_ROUTE); err != nil {
		f.close()
		return nil, fmt.Errorf("open netlink in network namespace %q: %w", o.NodeNetNS, err)
	}
	if f.far, err = netlink.NewHandleAt(f.farNS, unix.NETLINK_ROUTE); err != nil {
		f.close()
		return nil, fmt.Errorf("open netlink in network namespace %q: %w", o.FabricNetNS, err)
	}
	return f, nil
}

func openNetNS(nameOrPath string) (handle netns.NsHandle, err error) {
	switch {
	case nameOrPath == "":
		handle, err = netns.Get()
	case strings.Contains(nameOrPath, "/"):
		handle, err = netns.GetFromPath(nameOrPath)
	default:
		handle, err = netns.GetFromName(nameOrPath)
	}
	if err != nil {
		return netns.None(), fmt.Errorf("open network namespace %q: %w", nameOrPath, err)
	}
	return handle, nil
}

func (f *fabric) close() {
	for _, h := range []*netlink.Handle{f.node, f.far} {
		if h != nil {
			h.Close()
		}
	}
	for _, ns := range []netns.NsHandle{f.nodeNS, f.farNS} {
		if ns.IsOpen() {
			ns.Close()
		}
	}
}

// Plug makes the netdevs of the machine's NICs, up and without addresses. One
// that is there already, or in a pod, is left alone. It refuses a machine with
// stacked links: bonds and VLANs are modules that a test's kernel may lack.
func Plug(ctx context.Context, p *Profile, o PlugOptions) error {
	if len(p.Stacked) > 0 {
		s := p.Stacked[0]
		return fmt.Errorf("plug machine %s: it has stacked links (%s %s, …), which are not made here: use its sysfs and Links with a kernel of the test's own", p.Name, s.Kind, s.Name)
	}
	f, err := openFabric(o)
	if err != nil {
		return err
	}
	defer f.close()
	bridge, err := f.bridge(o.FabricBridge)
	if err != nil {
		return err
	}
	for _, port := range p.Ports(o.NodeIndex) {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("plug %s: %w", port.Name, err)
		}
		if err := f.plug(port, bridge); err != nil {
			return fmt.Errorf("plug %s (%s) into %s: %w", port.Name, port.PCI, o.FabricBridge, err)
		}
		klog.FromContext(ctx).V(4).Info("Plugged NIC", "interface", port.Name, "pci", port.PCI, "mac", port.MAC)
	}
	return nil
}

func (f *fabric) bridge(name string) (netlink.Link, error) {
	if name == "" {
		return nil, errors.New("plug NICs: PlugOptions.FabricBridge is empty")
	}
	link, err := f.far.LinkByName(name)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		attributes := netlink.NewLinkAttrs()
		attributes.Name = name
		if err := f.far.LinkAdd(&netlink.Bridge{LinkAttrs: attributes}); err != nil {
			return nil, fmt.Errorf("make fabric bridge %s: %w", name, err)
		}
		link, err = f.far.LinkByName(name)
	}
	if err != nil {
		return nil, fmt.Errorf("find fabric bridge %s: %w", name, err)
	}
	if err := f.far.LinkSetUp(link); err != nil {
		return nil, fmt.Errorf("set fabric bridge %s up: %w", name, err)
	}
	return link, nil
}

func (f *fabric) plug(p Port, bridge netlink.Link) error {
	far, err := f.far.LinkByName(p.Far)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		if err := f.pair(p); err != nil {
			return err
		}
		far, err = f.far.LinkByName(p.Far)
	}
	if err != nil {
		return fmt.Errorf("find far end %s: %w", p.Far, err)
	}
	if err := f.far.LinkSetMaster(far, bridge); err != nil {
		return fmt.Errorf("join far end %s to the bridge: %w", p.Far, err)
	}
	return f.far.LinkSetUp(far)
}

// pair makes both ends; only a new netdev is set up, since one that exists may
// have been configured by its user.
func (f *fabric) pair(p Port) error {
	attributes := netlink.NewLinkAttrs()
	attributes.Name, attributes.MTU, attributes.HardwareAddr = p.Name, p.MTU, p.MAC
	veth := &netlink.Veth{LinkAttrs: attributes, PeerName: p.Far, PeerNamespace: netlink.NsFd(f.farNS)}
	if err := f.node.LinkAdd(veth); err != nil {
		return fmt.Errorf("make veth pair: %w", err)
	}
	near, err := f.node.LinkByName(p.Name)
	if err != nil {
		return fmt.Errorf("find the new netdev: %w", err)
	}
	return f.node.LinkSetUp(near)
}

// Unplug removes the netdevs wherever they are by then, a pod included: a veth
// pair goes with either of its ends, and the far ends never move. The bridge
// stays for other nodes and goes with its namespace.
func Unplug(ctx context.Context, p *Profile, o PlugOptions) error {
	f, err := openFabric(o)
	if err != nil {
		return err
	}
	defer f.close()
	var errs []error
	for _, port := range p.Ports(o.NodeIndex) {
		far, err := f.far.LinkByName(port.Far)
		if errors.As(err, &netlink.LinkNotFoundError{}) {
			continue
		}
		if err == nil {
			err = f.far.LinkDel(far)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("unplug %s: remove far end %s: %w", port.Name, port.Far, err))
		}
	}
	klog.FromContext(ctx).V(4).Info("Unplugged NICs", "machine", p.Name, "node", o.NodeIndex)
	return errors.Join(errs...)
}
