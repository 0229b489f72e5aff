package link

// One network namespace and the operations on it, through a netlink handle that
// was opened inside, so that no goroutine ever has to be in another namespace.

import (
	"errors"
	"fmt"
	"net"
	"sync"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/hostler-dev/hostler/netattach/internal/inside"
)

type space struct {
	*netlink.Handle
	namespace int
	// socket says in words what the kernel did not like (NETLINK_EXT_ACK), which
	// the handle's does not.
	socket *nl.SocketHandle
	// leave is what Close does for a space that others may hold, too; nil for none.
	leave func()
}

func open(namespace int) (*space, error) {
	handle, err := netlink.NewHandleAt(netns.NsHandle(namespace), unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("cannot open a netlink socket in a network namespace: %w; the agent needs CAP_SYS_ADMIN, and the namespace must still exist", err)
	}
	socket, err := nl.GetNetlinkSocketAt(netns.NsHandle(namespace), netns.None(), unix.NETLINK_ROUTE)
	if err != nil {
		handle.Close()
		return nil, fmt.Errorf("cannot open a netlink socket in a network namespace: %w", err)
	}
	s := &space{Handle: handle, namespace: namespace, socket: &nl.SocketHandle{Socket: socket}}
	if err := socket.SetExtAck(true); err != nil {
		s.Close()
		return nil, fmt.Errorf("cannot set up a netlink socket: %w", err)
	}
	return s, nil
}

// Close hides the handle's, which would leave the socket open.
func (s *space) Close() {
	if s.leave != nil {
		s.leave()
		return
	}
	s.Handle.Close()
	s.socket.Close()
}

// spaces are those that are in use, so that whoever comes for one that is open
// shares its sockets. A descriptor stays open as long as its space is in use.
type spaces struct {
	mutex sync.Mutex
	open  map[int]*sharedSpace
}

type sharedSpace struct {
	*space
	users int
}

// enter opens the space unless it is open, and has it closed when the last of its
// users has closed it.
func (s *spaces) enter(namespace int) (*space, error) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	shared := s.open[namespace]
	if shared == nil {
		opened, err := open(namespace)
		if err != nil {
			return nil, err
		}
		shared = &sharedSpace{space: opened}
		if s.open == nil {
			s.open = map[int]*sharedSpace{}
		}
		s.open[namespace] = shared
	}
	shared.users++
	user := *shared.space
	user.leave = sync.OnceFunc(func() { s.leave(namespace) })
	return &user, nil
}

func (s *spaces) leave(namespace int) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	shared := s.open[namespace]
	if shared.users--; shared.users == 0 {
		delete(s.open, namespace)
		shared.Close()
	}
}

// inside runs do on a thread in the space's namespace, see package inside.
func (s *space) inside(do func() error) error { return inside.Do(s.namespace, do) }

// links lists all network devices. The library would ask for the VFs of each PF and
// what they have counted, too, for which some drivers ask their firmware.
func (s *space) links() ([]netlink.Link, error) {
	request := nl.NewNetlinkRequest(unix.RTM_GETLINK, unix.NLM_F_DUMP)
	request.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
	request.AddData(nl.NewRtAttr(unix.IFLA_EXT_MASK, nl.Uint32Attr(skipStatistics)))
	messages, err := consistent(func() ([][]byte, error) { return s.ask(request, unix.RTM_NEWLINK) })
	if err != nil {
		return nil, fmt.Errorf("cannot list network devices: %w", err)
	}
	var links []netlink.Link
	for _, message := range messages {
		link, err := netlink.LinkDeserialize(nil, message)
		if err != nil {
			return nil, fmt.Errorf("cannot read the kernel's list of network devices: %w", err)
		}
		links = append(links, link)
	}
	return links, nil
}

// consistent lists again if what is listed changed meanwhile, of which the kernel
// tells (NLM_F_DUMP_INTR): pods come and go on a node, and a list with a hole is none.
func consistent[T any](list func() ([]T, error)) (found []T, err error) {
	const attempts = 10
	for range attempts {
		if found, err = list(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			return found, err
		}
	}
	return nil, fmt.Errorf("it changed all the time while it was listed: %w", err)
}

// ask sends a request in the space's namespace.
func (s *space) ask(request *nl.NetlinkRequest, reply uint16) ([][]byte, error) {
	request.Sockets = map[int]*nl.SocketHandle{unix.NETLINK_ROUTE: s.socket}
	return request.Execute(unix.NETLINK_ROUTE, reply)
}

// change sets attributes of a link, and those of its flags that are in mask.
func (s *space) change(index int, flags, mask uint32, attributes ...*nl.RtAttr) error {
	request := nl.NewNetlinkRequest(unix.RTM_NEWLINK, unix.NLM_F_ACK)
	message := nl.NewIfInfomsg(unix.AF_UNSPEC)
	message.Index, message.Flags, message.Change = int32(index), flags, mask
	request.AddData(message)
	for _, attribute := range attributes {
		request.AddData(attribute)
	}
	_, err := s.ask(request, 0)
	return err
}

// transfer moves and renames and, on the way home, gives the link its MTU and MAC
// back, in one RTM_NEWLINK, 0 and nil leaving them. The kernel closes the device
// first, so no packet passes on the way (dev_change_net_namespace).
func (s *space) transfer(link netlink.Link, target int, name string, mtu int, mac net.HardwareAddr) error {
	attributes := []*nl.RtAttr{
		nl.NewRtAttr(unix.IFLA_NET_NS_FD, nl.Uint32Attr(uint32(target))),
		nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(name)),
	}
	if mtu > 0 {
		attributes = append(attributes, nl.NewRtAttr(unix.IFLA_MTU, nl.Uint32Attr(uint32(mtu))))
	}
	if mac != nil {
		attributes = append(attributes, nl.NewRtAttr(unix.IFLA_ADDRESS, mac))
	}
	if err := s.change(link.Attrs().Index, 0, 0, attributes...); err != nil {
		return fmt.Errorf("the kernel refused to move %s as %s: %w", link.Attrs().Name, name, err)
	}
	return nil
}
