package vm

// One run of QEMU. Four serial ports lead out of the machine: the kernel's
// console, the program's output, a line to QEMU itself, and a status line each for
// the program's start and its end, so that no kernel message can be taken for a test's output or garble the
// exit status. A panic ends QEMU (panic=-1 reboots, -no-reboot exits); a hang
// ends with the context.

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// hardware is a two-socket machine in small: one NUMA node with one CPU, one
// PCIe root complex and one SR-IOV NIC each. igb is the NIC of QEMU that has
// real virtual functions. Both are plugged into one hub and nothing else is, so
// they reach each other and no packet leaves the machine.
var hardware = []string{
	// Hot plug is the PCIe ports' own business: what ACPI does for it ends at the first root complex.
	"-global", "ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off",
	// One thread for both processors: with one each, QEMU 10 aborts now and then when
	// a card is unplugged (iotlb_to_section: Assertion `section_index < d->map.sections_nb').
	"-accel", "tcg,thread=single", "-M", "q35,kernel_irqchip=split", "-cpu", "max", "-m", "1024", "-smp", "2,sockets=2",
	"-nodefaults", "-display", "none", "-no-reboot",
	"-device", "intel-iommu,intremap=on",
	"-object", "memory-backend-ram,id=memory0,size=512M", "-object", "memory-backend-ram,id=memory1,size=512M",
	"-numa", "node,nodeid=0,cpus=0,memdev=memory0", "-numa", "node,nodeid=1,cpus=1,memdev=memory1",
	"-numa", "dist,src=0,dst=1,val=21",
	"-device", "pxb-pcie,id=root0,bus_nr=32,numa_node=0,bus=pcie.0",
	"-device", "pxb-pcie,id=root1,bus_nr=64,numa_node=1,bus=pcie.0",
	"-device", "pcie-root-port,id=port0,bus=root0,chassis=1",
	"-device", "pcie-root-port,id=port1,bus=root1,chassis=2",
	"-netdev", "hubport,id=net0,hubid=0", "-device", "igb,id=nic0,bus=port0,netdev=net0,mac=02:00:00:00:20:00",
	"-netdev", "hubport,id=net1,hubid=0", "-device", "igb,id=nic1,bus=port1,netdev=net1,mac=02:00:00:00:40:00",
	// For user space: a device that no driver takes, and two that share an IOMMU group.
	"-device", "pcie-root-port,id=port2,bus=pcie.0,chassis=3", "-device", "edu,bus=port2",
	"-device", "pcie-root-port,id=port3,bus=pcie.0,chassis=4", "-device", "pcie-pci-bridge,id=shared,bus=port3",
	"-device", "pci-testdev,bus=shared,addr=1", "-device", "pci-testdev,bus=shared,addr=2",
}

// ports are the serial ports ttyS0 (stdout), ttyS1 and ttyS2 (inherited pipes).
var ports = []string{
	"-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console",
	"-chardev", "file,id=output,path=/dev/fd/3", "-serial", "chardev:output",
	"-chardev", "file,id=status,path=/dev/fd/4", "-serial", "chardev:status",
}

// monitor joins the machine's ttyS3 to QEMU's own monitor, so that the program
// in the machine can unplug and plug hardware by QMP, QEMU's protocol of JSON lines.
func monitor(socket string) []string {
	return []string{
		"-chardev", "socket,id=monitor,server=on,wait=off,path=" + socket, "-mon", "chardev=monitor,mode=control",
		"-chardev", "socket,id=guest,path=" + socket, "-serial", "chardev:guest",
	}
}

// The kernel panics if its timer has not ticked within a loop of instructions, and under
// emulation on a busy host it has not now and then (check_timer): no_timer_check.
const kernelArguments = "console=ttyS0 panic=-1 oops=panic no_timer_check intel_iommu=on iommu=pt"

// boot runs QEMU until the machine powers off or ctx is done.
func boot(ctx context.Context, parts Parts, initrd string, output io.Writer) (Result, error) {
	args := slices.Concat(hardware, ports, monitor(filepath.Join(filepath.Dir(initrd), "monitor")))
	args = append(args, "-kernel", parts.Kernel, "-initrd", initrd, "-append", kernelArguments)
	cmd := exec.CommandContext(ctx, parts.QEMU, args...)
	// A test process that is killed takes its emulator with it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	console := &tail{}
	cmd.Stdout, cmd.Stderr = console, console
	cmd.WaitDelay = time.Second

	var status status
	var readers sync.WaitGroup
	start := time.Now()
	pipes, err := serialPipes(&readers,
		func(r io.Reader) { copyLines(output, r) },
		func(r io.Reader) { status.read(r, start) })
	if err != nil {
		return Result{}, fmt.Errorf("making the emulated machine's serial ports: %w", err)
	}
	cmd.ExtraFiles = pipes
	err = cmd.Start()
	for _, p := range pipes {
		p.Close()
	}
	if err != nil {
		readers.Wait()
		return Result{}, fmt.Errorf("starting %s: %w", parts.QEMU, err)
	}
	err = cmd.Wait()
	readers.Wait()

	result := Result{ExitStatus: status.exit, Boot: status.boot, Total: time.Since(start), Console: console.String()}
	if status.ended {
		return result, nil
	}
	return result, &StoppedError{Reason: reason(ctx, err, status, console.String()), Console: console.String()}
}

// reason words why the machine went away without a status.
func reason(ctx context.Context, err error, status status, console string) string {
	when := "while it booted"
	if status.started {
		when = "while the program ran"
	}
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return "the time was up " + when
	case ctx.Err() != nil:
		return "the run was cancelled " + when
	case strings.Contains(console, "Kernel panic"):
		return "the kernel panicked " + when
	case err != nil:
		return fmt.Sprintf("QEMU failed %s (%v)", when, err)
	default:
		return "the machine powered off " + when
	}
}

// serialPipes makes one pipe per reader and returns the ends that QEMU writes to.
func serialPipes(readers *sync.WaitGroup, read ...func(io.Reader)) ([]*os.File, error) {
	var writeEnds, readEnds []*os.File
	for range read {
		r, w, err := os.Pipe()
		if err != nil {
			for _, f := range append(readEnds, writeEnds...) {
				f.Close()
			}
			return nil, err
		}
		readEnds, writeEnds = append(readEnds, r), append(writeEnds, w)
	}
	for i, r := range readEnds {
		readers.Go(func() {
			defer r.Close()
			read[i](r)
		})
	}
	return writeEnds, nil
}

// status is what init reports: "started", then "exit <status>".
type status struct {
	started, ended bool
	exit           int
	boot           time.Duration
}

func (s *status) read(r io.Reader, start time.Time) {
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		if line == "started" {
			s.started, s.boot = true, time.Since(start)
		} else if n, err := fmt.Sscanf(line, "exit %d", &s.exit); n == 1 && err == nil {
			s.ended = true
		}
	}
}

// copyLines copies whole lines, so that a writer which prefixes each write (a
// test's log) is not called in the middle of one. It drops the carriage returns
// of a serial line. After a failed write it goes on reading, so that the machine does not block.
func copyLines(w io.Writer, r io.Reader) {
	lines := bufio.NewReader(r)
	var failed error
	for {
		line, err := lines.ReadString('\n')
		if line != "" && failed == nil {
			_, failed = io.WriteString(w, strings.TrimRight(line, "\r\n")+"\n")
		}
		if err != nil {
			return
		}
	}
}

// tail keeps the end of what is written to it.
type tail struct{ text []byte }

const tailBytes = 6 << 10

func (t *tail) Write(p []byte) (int, error) {
	t.text = append(t.text, p...)
	if over := len(t.text) - tailBytes; over > 0 {
		t.text = append(t.text[:0], t.text[over:]...)
	}
	return len(p), nil
}

func (t *tail) String() string {
	return strings.TrimSpace(strings.ReplaceAll(string(t.text), "\r", ""))
}
