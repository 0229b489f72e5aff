package link

// Bandwidth: what a child may send and what it may receive, each limited by a
// token bucket (tc-tbf(8)) in the pod's namespace, so that nothing of the parent
// changes and the limit goes when the child goes. The kernel has no queue for what
// arrives; so that is sent through an ifb device, whose queue is the second bucket.
//
// Whoever has CAP_NET_ADMIN in the pod could take the limit away: the gate lets
// no such container start, see netattach/attach.

import (
	"errors"
	"fmt"
	"math"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/hostler-dev/hostler/netattach"
)

const (
	// leastBurst is a segment as long as the stack hands them down (GSO_LEGACY_MAX_SIZE):
	// a longer one the bucket would have to cut (tbf_segment).
	leastBurst = 64 << 10
	// leastQueue is what may wait at least, in bytes.
	leastQueue = 256 << 10
	// burstsPerSecond and queuesPerSecond: the bucket holds what passes in 2 ms, and as
	// much may wait as passes in 10 ms.
	burstsPerSecond, queuesPerSecond = 500, 100
	// tick is the unit in which the kernel takes the bucket's size: the time that it
	// takes to fill (PSCHED_SHIFT of net/pkt_sched.h).
	tickNanoseconds = 64
)

// bucket is the qdisc for a limit in bits per second.
func bucket(index int, bitsPerSecond uint64) *netlink.Tbf {
	rate := bitsPerSecond / 8
	burst := max(rate/burstsPerSecond, leastBurst)
	return &netlink.Tbf{
		QdiscAttrs: netlink.QdiscAttrs{LinkIndex: index, Parent: netlink.HANDLE_ROOT, Handle: netlink.MakeHandle(1, 0)},
		Rate:       rate,
		Limit:      uint32(min(burst+max(rate/queuesPerSecond, leastQueue), math.MaxUint32)),
		Buffer:     uint32(min(float64(burst)*1e9/float64(rate)/tickNanoseconds, math.MaxUint32)),
	}
}

// ifbName is that of the device through which the child's traffic arrives.
func ifbName(device netattach.DeviceIntent) string { return "hb" + shareTag(device) }

// limit holds the child to its bandwidth in both directions. It is idempotent,
// and reads back what the kernel made of it.
func (s *space) limit(link netlink.Link, device netattach.DeviceIntent) error {
	if s.limited(link, device) == nil {
		return nil
	}
	err := s.setLimit(link, device)
	if err == nil {
		err = s.limited(link, device)
	}
	if err != nil {
		return fmt.Errorf("cannot limit %s (%s) to %d bits per second: %w; the kernel needs the modules sch_tbf, sch_ingress, cls_u32, act_mirred and ifb", device.PodName, device.Device, device.Bandwidth, err)
	}
	return nil
}

func (s *space) setLimit(link netlink.Link, device netattach.DeviceIntent) error {
	index := link.Attrs().Index
	if err := s.QdiscReplace(bucket(index, device.Bandwidth)); err != nil {
		return fmt.Errorf("queue for what it sends: %w", err)
	}
	ifb, err := s.arrivals(device)
	if err != nil {
		return fmt.Errorf("device for what it receives: %w", err)
	}
	if err := s.QdiscReplace(bucket(ifb.Attrs().Index, device.Bandwidth)); err != nil {
		return fmt.Errorf("queue for what it receives: %w", err)
	}
	if err := s.LinkSetUp(ifb); err != nil {
		return fmt.Errorf("device for what it receives: %w", err)
	}
	// The child is down, or its limit is gone: whatever is there is no use.
	clsact := &netlink.Clsact{QdiscAttrs: netlink.QdiscAttrs{LinkIndex: index, Parent: netlink.HANDLE_CLSACT, Handle: netlink.MakeHandle(0xffff, 0)}}
	if err := s.QdiscDel(clsact); err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("filters of what it receives: %w", err)
	}
	if err := s.QdiscAdd(clsact); err != nil {
		return fmt.Errorf("filters of what it receives: %w", err)
	}
	all := &netlink.U32{
		FilterAttrs: netlink.FilterAttrs{LinkIndex: index, Parent: netlink.HANDLE_MIN_INGRESS, Priority: 1, Protocol: unix.ETH_P_ALL},
		Actions:     []netlink.Action{netlink.NewMirredAction(ifb.Attrs().Index)},
	}
	if err := s.FilterAdd(all); err != nil {
		return fmt.Errorf("filter of what it receives: %w", err)
	}
	return nil
}

// arrivals is the ifb device, made if it is not there. It carries no address.
func (s *space) arrivals(device netattach.DeviceIntent) (netlink.Link, error) {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = ifbName(device)
	if err := s.LinkAdd(&netlink.Ifb{LinkAttrs: attrs}); err != nil && !errors.Is(err, unix.EEXIST) {
		return nil, err
	}
	ifb, err := s.LinkByName(attrs.Name)
	if err != nil {
		return nil, err
	}
	const none = 1 // IN6_ADDR_GEN_MODE_NONE of linux/if_link.h
	err = s.LinkSetIP6AddrGenMode(ifb, none)
	if errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EOPNOTSUPP) { // a kernel without IPv6
		err = nil
	}
	return ifb, err
}

// Limit puts the limit of a child back that the pod has lost. A device that has none
// is left alone, and so is a child that is gone.
func Limit(pod int, device netattach.DeviceIntent) error {
	if device.Child == nil || device.Bandwidth == 0 {
		return nil
	}
	there, err := open(pod)
	if err != nil {
		return err
	}
	defer there.Close()
	link, err := there.find(device, device.PodIndex)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	return there.limit(link, device)
}

// limited returns nil if the kernel holds the child to its bandwidth, or it has none.
func (s *space) limited(link netlink.Link, device netattach.DeviceIntent) error {
	if device.Child == nil || device.Bandwidth == 0 {
		return nil
	}
	if err := s.hasBucket(link, device.Bandwidth); err != nil {
		return err
	}
	ifb, err := s.LinkByName(ifbName(device))
	if err != nil {
		return fmt.Errorf("device %s for what it receives: %w", ifbName(device), err)
	}
	if ifb.Attrs().RawFlags&unix.IFF_UP == 0 {
		return fmt.Errorf("device %s for what it receives is down", ifbName(device))
	}
	if err := s.hasBucket(ifb, device.Bandwidth); err != nil {
		return err
	}
	filters, err := consistent(func() ([]netlink.Filter, error) { return s.FilterList(link, netlink.HANDLE_MIN_INGRESS) })
	if err != nil {
		return fmt.Errorf("filters of what it receives: %w", err)
	}
	for _, filter := range filters {
		u32, _ := filter.(*netlink.U32)
		if u32 == nil || filter.Attrs().Priority != 1 {
			continue
		}
		for _, action := range u32.Actions {
			if mirred, ok := action.(*netlink.MirredAction); ok && mirred.Ifindex == ifb.Attrs().Index {
				return nil
			}
		}
	}
	return errors.New("nothing limits what it receives")
}

func (s *space) hasBucket(link netlink.Link, bitsPerSecond uint64) error {
	qdiscs, err := consistent(func() ([]netlink.Qdisc, error) { return s.QdiscList(link) })
	if err != nil {
		return fmt.Errorf("queues of %s: %w", link.Attrs().Name, err)
	}
	for _, qdisc := range qdiscs {
		if tbf, ok := qdisc.(*netlink.Tbf); ok && tbf.Parent == netlink.HANDLE_ROOT && tbf.Rate == bitsPerSecond/8 {
			return nil
		}
	}
	return fmt.Errorf("the queue of %s has no such limit", link.Attrs().Name)
}

// removeLimit removes what does not go with the child.
func (s *space) removeLimit(device netattach.DeviceIntent) error {
	ifb, err := s.LinkByName(ifbName(device))
	if missing := (netlink.LinkNotFoundError{}); errors.As(err, &missing) {
		return nil
	}
	if err == nil && ifb.Type() == "ifb" {
		err = s.LinkDel(ifb)
	}
	if err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("cannot delete %s, which limits what %s (%s) receives: %w", ifbName(device), device.PodName, device.Device, err)
	}
	return nil
}
