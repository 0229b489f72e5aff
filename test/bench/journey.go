package main

// What attaching is measured on: a host's network namespace with NICs, a pod's, and the
// attacher between them. It lies nowhere but in this process's descriptors.

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
	"k8s.io/apimachinery/pkg/types"

	"github.com/hostler-dev/hostler/netattach"
	"github.com/hostler-dev/hostler/netattach/attach"
	"github.com/hostler-dev/hostler/netattach/link"
)

// journey is a host with NICs, and a pod.
type journey struct {
	host, pod   *os.File
	here, there *netlink.Handle
	folder      string
	claimant    netattach.PodReference
	intent      netattach.Intent
	attacher    *attach.Attacher
	mover       *link.Host
	// Times of attaching and detaching, ours and in bare messages, per device.
	in, home, floorIn, floorHome samples
	// Times of the steps of both, in order.
	remembered, moved, up, back samples
}

// IntentsForPod and Intent make it the attacher's journal.
func (j *journey) IntentsForPod(types.UID, string, string) []netattach.Intent {
	return []netattach.Intent{j.intent}
}
func (j *journey) Intent(types.UID) (netattach.Intent, bool) { return j.intent, true }

func newJourney(count int) (j *journey, err error) {
	j = &journey{claimant: netattach.PodReference{UID: "pod", Namespace: namespace, Name: "pod"}}
	defer func() {
		if err != nil {
			err = errors.Join(err, j.close())
		}
	}()
	if j.host, err = unshared(); err != nil {
		return nil, fmt.Errorf("make a network namespace: %w; the bench needs root", err)
	}
	if j.pod, err = unshared(); err != nil {
		return nil, err
	}
	if j.here, err = netlink.NewHandleAt(netns.NsHandle(j.host.Fd()), unix.NETLINK_ROUTE); err != nil {
		return nil, err
	}
	if j.there, err = netlink.NewHandleAt(netns.NsHandle(j.pod.Fd()), unix.NETLINK_ROUTE); err != nil {
		return nil, err
	}
	if j.folder, err = os.MkdirTemp("", "bench-attach-"); err != nil {
		return nil, err
	}
	j.intent = netattach.Intent{ClaimUID: "claim", ClaimNamespace: namespace, ClaimName: "claim", Pods: []netattach.PodReference{j.claimant}}
	for i := range count {
		device, err := j.nic(i)
		if err != nil {
			return nil, err
		}
		j.intent.Devices = append(j.intent.Devices, device)
	}
	descriptor := int(j.host.Fd())
	if j.mover, err = link.NewHost(link.HostConfig{Namespace: &descriptor}); err != nil {
		return nil, err
	}
	j.attacher, err = attach.New(attach.Config{Intents: j, Run: j.folder, CNICache: filepath.Join(j.folder, "cni"), HostNamespace: &descriptor})
	return j, err
}

// nic makes a NIC of the host, up like one that waits for a claim.
func (j *journey) nic(number int) (netattach.DeviceIntent, error) {
	name := fmt.Sprintf("rail%d", number)
	err := j.here.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: fmt.Sprintf("wire%d", number)})
	if err != nil {
		return netattach.DeviceIntent{}, fmt.Errorf("make the NIC %s: %w", name, err)
	}
	made, err := j.here.LinkByName(name)
	if err != nil {
		return netattach.DeviceIntent{}, err
	}
	return netattach.DeviceIntent{
		Request: "nic", Pool: "bench/nic", Device: "nic-" + name, HostName: name, PodName: fmt.Sprintf("fabric%d", number),
		HostMAC: made.Attrs().HardwareAddr.String(), Addresses: []netip.Prefix{netip.MustParsePrefix(fmt.Sprintf("10.%d.0.5/24", number+1))},
	}, j.here.LinkSetUp(made)
}

// stepByStep takes the same journey by the attacher's own verbs, one after the other.
func (j *journey) stepByStep(ctx context.Context) error {
	pod, per := int(j.pod.Fd()), time.Duration(len(j.intent.Devices))
	devices := slices.Clone(j.intent.Devices)
	for _, step := range []struct {
		times *samples
		do    func(*netattach.DeviceIntent) error
	}{
		{&j.remembered, func(d *netattach.DeviceIntent) (err error) { *d, err = j.mover.Remember(*d); return err }},
		{&j.moved, func(d *netattach.DeviceIntent) (err error) { d.PodIndex, err = j.mover.Into(ctx, pod, *d); return err }},
		{&j.up, func(d *netattach.DeviceIntent) error { return j.mover.Up(ctx, pod, *d) }},
		{&j.back, func(d *netattach.DeviceIntent) error { _, err := j.mover.Home(ctx, pod, *d); return err }},
	} {
		began := time.Now()
		for i := range devices {
			if err := step.do(&devices[i]); err != nil {
				return err
			}
		}
		step.times.add(time.Since(began) / per)
	}
	return nil
}

// account is of medians: one hiccup of the machine would shift a mean.
func (j *journey) account() account {
	parts := []part{
		{"remember what the device has on the host", j.remembered.p50()},
		{"move it in, with its settings", j.moved.p50()},
		{"set it up, with its routes", j.up.p50()},
		{"records, locks and what is told of the device", j.in.p50() - j.remembered.p50() - j.moved.p50() - j.up.p50()},
		{"bring it home and restore it", j.back.p50()},
		{"records and locks on the way home", j.home.p50() - j.back.p50()},
		{"all", j.in.p50() + j.home.p50()},
	}
	return account{fmt.Sprintf("attaching and detaching, per device of %d, p50 of %d", len(j.intent.Devices), len(j.in)), parts}
}

func (j *journey) close() error {
	var faults []error
	if j.attacher != nil {
		faults = append(faults, j.attacher.Close())
	}
	if j.mover != nil {
		faults = append(faults, j.mover.Close())
	}
	for _, handle := range []*netlink.Handle{j.here, j.there} {
		if handle != nil {
			handle.Close()
		}
	}
	// The veths end with their namespaces.
	for _, namespace := range []*os.File{j.host, j.pod} {
		if namespace != nil {
			faults = append(faults, namespace.Close())
		}
	}
	return errors.Join(append(faults, os.RemoveAll(j.folder))...)
}

// bareMove moves and renames in one message, which is the least there is.
func bareMove(from *netlink.Handle, of *os.File, name string, to *os.File, as string) error {
	moved, err := from.LinkByName(name)
	if err != nil {
		return err
	}
	socket, err := nl.GetNetlinkSocketAt(netns.NsHandle(of.Fd()), netns.None(), unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer socket.Close()
	request := nl.NewNetlinkRequest(unix.RTM_NEWLINK, unix.NLM_F_ACK)
	request.Sockets = map[int]*nl.SocketHandle{unix.NETLINK_ROUTE: {Socket: socket}}
	message := nl.NewIfInfomsg(unix.AF_UNSPEC)
	message.Index = int32(moved.Attrs().Index)
	request.AddData(message)
	request.AddData(nl.NewRtAttr(unix.IFLA_NET_NS_FD, binary.NativeEndian.AppendUint32(nil, uint32(to.Fd()))))
	request.AddData(nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(as)))
	_, err = request.Execute(unix.NETLINK_ROUTE, 0)
	return err
}
