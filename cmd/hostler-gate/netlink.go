package main

// A dump by netlink(7): one request, and messages until the kernel says that these
// are all.

import (
	"encoding/binary"
	"fmt"
	"syscall"
)

// dump returns the payloads of the messages with which the kernel answers. What is
// dumped is named for errors, "the pod's …".
func dump(protocol int, kind uint16, body []byte, what string) ([][]byte, error) {
	socket, err := syscall.Socket(syscall.AF_NETLINK, syscall.SOCK_RAW|syscall.SOCK_CLOEXEC, protocol)
	if err != nil {
		return nil, fmt.Errorf("cannot open a netlink socket for the pod's %s: %w", what, err)
	}
	defer syscall.Close(socket)
	patience := syscall.Timeval{Sec: 2}
	if err := syscall.SetsockoptTimeval(socket, syscall.SOL_SOCKET, syscall.SO_RCVTIMEO, &patience); err != nil {
		return nil, fmt.Errorf("cannot bound a request for the pod's %s: %w", what, err)
	}
	if err := syscall.Sendto(socket, request(kind, body), 0, &syscall.SockaddrNetlink{Family: syscall.AF_NETLINK}); err != nil {
		return nil, fmt.Errorf("cannot ask for the pod's %s: %w", what, err)
	}
	var payloads [][]byte
	for buffer := make([]byte, 64<<10); ; {
		n, _, err := syscall.Recvfrom(socket, buffer, 0)
		if err != nil {
			return nil, fmt.Errorf("cannot read the pod's %s: %w", what, err)
		}
		messages, err := syscall.ParseNetlinkMessage(buffer[:n])
		if err != nil {
			return nil, fmt.Errorf("cannot read the pod's %s: %w", what, err)
		}
		for _, message := range messages {
			switch message.Header.Type {
			case syscall.NLMSG_DONE:
				return payloads, nil
			case syscall.NLMSG_ERROR:
				return nil, fmt.Errorf("the kernel does not list the pod's %s", what)
			}
			payloads = append(payloads, append([]byte(nil), message.Data...))
		}
	}
}

func request(kind uint16, body []byte) []byte {
	message := binary.NativeEndian.AppendUint32(nil, uint32(syscall.NLMSG_HDRLEN+len(body)))
	message = binary.NativeEndian.AppendUint16(message, kind)
	message = binary.NativeEndian.AppendUint16(message, syscall.NLM_F_REQUEST|syscall.NLM_F_DUMP)
	message = binary.NativeEndian.AppendUint32(message, 1) // sequence
	message = binary.NativeEndian.AppendUint32(message, 0) // port: the kernel's choice
	return append(message, body...)
}
