// Package killing ends a process at a numbered moment: right before one of the
// system calls by which it changes anything outside of itself. The process needs no
// part in it but to say when it begins; the kernel tells of each such call and holds
// it until it is answered (seccomp_unotify(2)), and one that is killed never happens.
//
// Moments are requests over netlink that change something, sysctls and files that
// are opened for writing, renamed or removed, and ethtool's requests.
package killing

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	returnAllow  = 0x7fff0000 // SECCOMP_RET_ALLOW
	returnNotify = 0x7fc00000 // SECCOMP_RET_USER_NOTIF
	setFilter    = 1          // SECCOMP_SET_MODE_FILTER
	// flags have the filter hold for all threads and give a descriptor to listen on (linux/seccomp.h).
	flags = 1<<0 | 1<<3 | 1<<4
	// receive, send and proceed are SECCOMP_IOCTL_NOTIF_RECV, _SEND and SECCOMP_USER_NOTIF_FLAG_CONTINUE.
	receive, send, proceed = 0xc0502100, 0xc0182101, 1
	// Offsets in struct seccomp_data.
	number, secondArgument, thirdArgument = 0, 24, 32
	siocEthtool                           = 0x8946
)

// notification is struct seccomp_notif.
type notification struct {
	ID       uint64
	Thread   uint32
	_        uint32
	Number   int32
	_        uint32
	_        uint64
	Argument [6]uint64
}

type response struct {
	ID    uint64
	Value int64
	Error int32
	Flags uint32
}

// listenerFD is where the doomed process finds its end of a socket to us.
const listenerFD = 3

// Begin has every moment of this process from now on answered by who started it
// with Run.
func Begin() error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	filter := program()
	spec := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	listener, _, errno := unix.Syscall(unix.SYS_SECCOMP, setFilter, flags, uintptr(unsafe.Pointer(&spec)))
	if errno != 0 {
		return fmt.Errorf("cannot have system calls told: %w", errno)
	}
	defer unix.Close(int(listener))
	return unix.Sendmsg(listenerFD, []byte{0}, unix.UnixRights(int(listener)), nil, 0)
}

// program tells of the calls that may change something.
func program() []unix.SockFilter {
	statement := func(code uint16, k uint32) unix.SockFilter { return unix.SockFilter{Code: code, K: k} }
	jump := func(code uint16, k uint32, yes, no uint8) unix.SockFilter {
		return unix.SockFilter{Code: code, Jt: yes, Jf: no, K: k}
	}
	const load, equal, anyBit, result = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K, unix.BPF_RET | unix.BPF_K
	return []unix.SockFilter{
		statement(load, number),
		jump(equal, unix.SYS_SENDTO, 9, 0),
		jump(equal, unix.SYS_RENAMEAT, 8, 0),
		jump(equal, unix.SYS_RENAMEAT2, 7, 0),
		jump(equal, unix.SYS_UNLINKAT, 6, 0),
		jump(equal, unix.SYS_OPENAT, 0, 2),
		statement(load, thirdArgument),
		jump(anyBit, unix.O_WRONLY|unix.O_RDWR, 3, 4),
		jump(equal, unix.SYS_IOCTL, 0, 3),
		statement(load, secondArgument),
		jump(equal, siocEthtool, 0, 1),
		statement(result, returnNotify),
		statement(result, returnAllow),
	}
}

// Run starts the command and kills it at that moment, 0 for never. It returns how
// many moments it has lived through and what the last one was, and whether it was killed.
func Run(command *exec.Cmd, at int) (moments int, last string, killed bool, err error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, "", false, err
	}
	defer unix.Close(pair[0])
	theirs := os.NewFile(uintptr(pair[1]), "doomed")
	command.ExtraFiles = append([]*os.File{theirs}, command.ExtraFiles...)
	err = command.Start()
	theirs.Close()
	if err != nil {
		return 0, "", false, err
	}
	listener, err := listen(pair[0])
	if err == nil {
		moments, last, killed, err = watch(command, listener, at)
		unix.Close(listener)
	}
	ended := command.Wait()
	if !killed {
		err = errors.Join(err, ended)
	}
	return moments, last, killed, err
}

func listen(socket int) (listener int, err error) {
	rights := make([]byte, unix.CmsgSpace(4))
	_, size, _, _, err := unix.Recvmsg(socket, make([]byte, 1), rights, 0)
	if err != nil {
		return 0, err
	}
	messages, err := unix.ParseSocketControlMessage(rights[:size])
	if err != nil || len(messages) == 0 {
		return 0, errors.Join(err, errors.New("the process ended before it began"))
	}
	descriptors, err := unix.ParseUnixRights(&messages[0])
	if err != nil {
		return 0, err
	}
	return descriptors[0], nil
}

func watch(command *exec.Cmd, listener, at int) (moments int, last string, killed bool, err error) {
	for {
		poll := []unix.PollFd{{Fd: int32(listener), Events: unix.POLLIN}}
		if _, err := unix.Poll(poll, -1); err != nil && !errors.Is(err, unix.EINTR) {
			return moments, last, killed, err
		}
		if poll[0].Revents&unix.POLLIN == 0 {
			if poll[0].Revents != 0 {
				return moments, last, killed, nil // it has ended
			}
			continue
		}
		var note notification
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(listener), receive, uintptr(unsafe.Pointer(&note))); errno != 0 {
			if errno == unix.ENOENT || errno == unix.EINTR {
				continue
			}
			return moments, last, killed, errno
		}
		if what, changes := describe(note); changes {
			moments, last = moments+1, what
			if moments == at {
				// Nothing that it started can change anything either, once nobody listens:
				// its calls fail with ENOSYS.
				return moments, last, true, command.Process.Kill()
			}
		}
		answer := response{ID: note.ID, Flags: proceed}
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(listener), send, uintptr(unsafe.Pointer(&answer))); errno != 0 && errno != unix.ENOENT {
			return moments, last, killed, errno
		}
	}
}

// describe says what a call is about, and whether it may change something. Requests
// that only read have message types of which the lowest bits are 2 (linux/rtnetlink.h).
func describe(note notification) (what string, changes bool) {
	switch note.Number {
	case unix.SYS_SENDTO:
		header := memory(note, note.Argument[1], unix.SizeofNlMsghdr)
		if len(header) < unix.SizeofNlMsghdr {
			return "a message", true
		}
		kind := binary.NativeEndian.Uint16(header[4:])
		return fmt.Sprintf("netlink request %d", kind), kind < unix.RTM_BASE || kind&3 != 2
	case unix.SYS_OPENAT:
		return "writing " + text(memory(note, note.Argument[1], 256)), true
	case unix.SYS_RENAMEAT, unix.SYS_RENAMEAT2:
		return "renaming " + text(memory(note, note.Argument[1], 256)), true
	case unix.SYS_UNLINKAT:
		return "removing " + text(memory(note, note.Argument[1], 256)), true
	}
	return "ethtool", true
}

func memory(note notification, address uint64, size int) []byte {
	file, err := os.Open(fmt.Sprintf("/proc/%d/mem", note.Thread))
	if err != nil {
		return nil
	}
	defer file.Close()
	raw := make([]byte, size)
	read, _ := file.ReadAt(raw, int64(address)) // as much as there is
	return raw[:read]
}

func text(raw []byte) string { return unix.ByteSliceToString(raw) }
