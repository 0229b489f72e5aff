// Package uevent turns the kernel's announcements about devices and modules into
// hints that the machine may have changed. What changed is not taken from a
// message: messages can be lost, the state cannot.
//
// The socket is our own: github.com/pilebones/go-udev neither looks at who sent a
// message nor can be interrupted by a context, and of its thousand lines forty would
// be used. What it takes is a socket of github.com/mdlayher/socket, the check of the sender
// that udev makes, and a parser of key=value.
//
// Who hears what (lib/kobject_uevent.c, since Linux 4.18): events of devices and
// modules reach every network namespace that the initial user namespace owns, so
// also those of ordinary pods; events of netdevs reach only the namespace that
// the netdev is in. In a pod with a user namespace of its own (hostUsers: false)
// nothing but its own netdevs is heard, and polling must do.
package uevent

import (
	"context"
	"errors"
	"fmt"

	"github.com/mdlayher/socket"
	"golang.org/x/sys/unix"
)

const (
	// groupKernel is the multicast group of the kernel's own messages; udev's are in group 2.
	groupKernel = 1
	// receiveBuffer holds a few thousand messages: a PF with 128 VFs sends about
	// ten for each.
	receiveBuffer = 4 << 20
	// messageSize is well above the kernel's UEVENT_BUFFER_SIZE of 2048 and a path.
	messageSize = 16 << 10
)

// Watch calls changed for every announcement that concerns GPUs, NICs or their
// drivers until ctx is done, and once at the beginning. An error means that
// announcements may have been missed: watch again. It is a topology.Watcher.
func Watch(ctx context.Context, changed func()) error {
	l, err := listen()
	if err != nil {
		return err
	}
	defer l.conn.Close()
	changed() // what happened before was announced to nobody
	for {
		event, err := l.next(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		if event.concernsInventory() {
			changed()
		}
	}
}

type listener struct {
	conn    *socket.Conn
	message []byte
	control []byte
}

func listen() (*listener, error) {
	conn, err := socket.Socket(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_KOBJECT_UEVENT, "uevent", nil)
	if err != nil {
		return nil, fmt.Errorf("open a socket for the kernel's device events: %w", err)
	}
	l := &listener{conn: conn, message: make([]byte, messageSize), control: make([]byte, 128)}
	if err := l.prepare(); err != nil {
		return nil, errors.Join(fmt.Errorf("subscribe to the kernel's device events: %w", err), conn.Close())
	}
	return l, nil
}

func (l *listener) prepare() error {
	if err := l.conn.SetReadBuffer(receiveBuffer); err != nil {
		return err
	}
	if err := l.conn.SetsockoptInt(unix.SOL_SOCKET, unix.SO_PASSCRED, 1); err != nil {
		return err
	}
	return l.conn.Bind(&unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: groupKernel})
}

// next waits for the next event from the kernel. ENOBUFS says that the buffer
// overflowed and events were dropped.
func (l *listener) next(ctx context.Context) (event, error) {
	for {
		n, controls, flags, from, err := l.conn.Recvmsg(ctx, l.message, l.control, 0)
		if errors.Is(err, unix.ENOBUFS) {
			return event{}, fmt.Errorf("more device events came than could be taken, some were dropped: %w", err)
		}
		if err != nil {
			return event{}, fmt.Errorf("receive the kernel's device events: %w", err)
		}
		if flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0 || !fromKernel(from, l.control[:controls]) {
			continue
		}
		if e, ok := parse(l.message[:n]); ok {
			return e, nil
		}
	}
}

// fromKernel is udev's own test (sd-device, device-monitor.c): anyone who may
// administer a network namespace can send to the socket, but only the kernel has
// port 0, and its messages carry the credentials of root.
func fromKernel(from unix.Sockaddr, control []byte) bool {
	sender, ok := from.(*unix.SockaddrNetlink)
	if !ok || sender.Pid != 0 || sender.Groups != groupKernel {
		return false
	}
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return false
	}
	for i := range messages {
		if credentials, err := unix.ParseUnixCredentials(&messages[i]); err == nil {
			return credentials.Uid == 0
		}
	}
	return false
}
