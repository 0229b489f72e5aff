package guest

// What a program says to the RDMA subsystem, word by word. The kernel's own tap for
// netlink (nlmon) leaves NETLINK_RDMA out (netlink_filter_tap in af_netlink.c), so the
// program is traced, every thread of it, and what it sends is read from its memory.

import (
	"encoding/binary"
	"errors"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// changesSentBy runs the command to its end and returns the messages of type
// RDMA_NLDEV_CMD_SET that it sent.
func changesSentBy(t *testing.T, cmd *exec.Cmd) [][]byte {
	t.Helper()
	runtime.LockOSThread() // a tracer is a thread
	defer runtime.UnlockOSThread()
	output, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer output.Close()
	cmd.Stdout, cmd.Stderr = output, output
	cmd.SysProcAttr = &syscall.SysProcAttr{Ptrace: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	first := cmd.Process.Pid
	var status unix.WaitStatus
	if _, err := unix.Wait4(first, &status, unix.WALL, nil); err != nil {
		t.Fatal(err)
	}
	if err := unix.PtraceSetOptions(first, unix.PTRACE_O_TRACESYSGOOD|unix.PTRACE_O_TRACECLONE|unix.PTRACE_O_EXITKILL); err != nil {
		t.Fatal(err)
	}
	var sent [][]byte
	for thread, signal := first, 0; ; {
		if err := unix.PtraceSyscall(thread, signal); err != nil && !errors.Is(err, unix.ESRCH) {
			t.Fatal(err)
		}
		var err error
		for thread, err = unix.Wait4(-1, &status, unix.WALL, nil); errors.Is(err, unix.EINTR); {
			thread, err = unix.Wait4(-1, &status, unix.WALL, nil)
		}
		for err == nil && !status.Stopped() && thread != first { // a thread that ended
			thread, err = unix.Wait4(-1, &status, unix.WALL, nil)
		}
		if err != nil {
			t.Fatal(err)
		}
		if !status.Stopped() {
			text, err := os.ReadFile(output.Name())
			t.Logf("%s: %s %v", cmd.Path, text, err)
			return sent
		}
		signal = 0
		switch stop := status.StopSignal(); stop {
		case unix.SIGTRAP | 0x80: // a system call
			if message := rdmaChange(t, thread); message != nil {
				sent = append(sent, message)
			}
		case unix.SIGTRAP, unix.SIGSTOP: // a new thread
		default:
			signal = int(stop)
		}
	}
}

// rdmaChange reads what the thread is about to send, nil if it is anything else.
func rdmaChange(t *testing.T, thread int) []byte {
	t.Helper()
	var registers unix.PtraceRegs
	if err := unix.PtraceGetRegs(thread, &registers); err != nil {
		t.Fatal(err)
	}
	if registers.Orig_rax != unix.SYS_SENDTO || int64(registers.Rax) != -int64(unix.ENOSYS) || registers.Rdx < unix.SizeofNlMsghdr || registers.Rdx > 4096 {
		return nil
	}
	message := make([]byte, registers.Rdx)
	if _, err := unix.PtracePeekData(thread, uintptr(registers.Rsi), message); err != nil {
		t.Fatal(err)
	}
	if binary.NativeEndian.Uint16(message[4:]) != nl.RDMA_NL_NLDEV<<nl.RDMA_NL_GET_CLIENT_SHIFT|nl.RDMA_NLDEV_CMD_SET {
		return nil
	}
	return message
}
