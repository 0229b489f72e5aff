// Package vm boots a small emulated machine with what the development machines
// lack: SR-IOV NICs below two PCIe roots on two NUMA nodes, an IOMMU, soft RoCE
// devices and every netdev kind that the kernel knows. It runs one program in
// it, usually a test binary made by "go test -c", and reports how that ended.
//
// QEMU emulates the processor too (TCG), so no KVM is needed. The kernel is
// Debian's own, the root file system is an initramfs made here, and the NICs
// reach each other and nothing else.
package vm

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"
)

// GuestEnv is set to "1" in the environment of the program in the machine, so
// that a test which needs the machine can skip itself everywhere else.
const GuestEnv = "HOSTLER_VM_GUEST"

// guestDir holds the program and its files in the machine, and is its working directory.
const guestDir = "/guest"

// Options say what to run. Only TestBinary is required.
type Options struct {
	// TestBinary is the program to run, as a path on this machine. It must be
	// statically linked (CGO_ENABLED=0) or a script for /bin/sh, which is busybox.
	TestBinary string
	// Args of the program, such as "-test.v".
	Args []string
	// Env are additional environment entries, "NAME=value".
	Env []string
	// Files are further files that the program finds in its working directory:
	// relative path in the machine → path on this machine.
	Files map[string]string
	// Output receives what the program writes to stdout and stderr while it
	// writes it. nil discards it.
	Output io.Writer
	// Timeout bounds boot and program together. 0 means two minutes.
	Timeout time.Duration
}

// Result is how a program that ran to its end did.
type Result struct {
	// ExitStatus of the program, as a shell sees it: 128 and the signal's number if it was killed.
	ExitStatus int
	// Boot is the time from QEMU's start to the program's, Total that to power-off.
	Boot, Total time.Duration
	// Console is the end of the kernel's console.
	Console string
}

// StoppedError says that the machine stopped, or was stopped, before the program ended.
type StoppedError struct {
	// Reason is a clause such as "the kernel panicked".
	Reason string
	// Console is the end of the kernel's console.
	Console string
}

func (e *StoppedError) Error() string {
	return fmt.Sprintf("the program in the emulated machine did not end: %s; its console's last lines:\n%s", e.Reason, e.Console)
}

// Run provides QEMU and a kernel if they are missing (which needs root, once),
// boots the machine, runs the program and powers off. An error means that the
// program did not run to its end; a failing program is an ExitStatus.
func Run(ctx context.Context, opts Options) (Result, error) {
	if opts.Timeout == 0 {
		opts.Timeout = 2 * time.Minute
	}
	if opts.Output == nil {
		opts.Output = io.Discard
	}
	parts, err := Provide(ctx)
	if err != nil {
		return Result{}, fmt.Errorf("providing the emulated machine's parts: %w", err)
	}
	dir, err := os.MkdirTemp("", "hostler-vm-")
	if err != nil {
		return Result{}, fmt.Errorf("making a folder for the emulated machine: %w", err)
	}
	defer os.RemoveAll(dir)

	initrd := filepath.Join(dir, "initrd")
	if err := writeInitrd(initrd, parts.Initramfs, opts); err != nil {
		return Result{}, fmt.Errorf("packing %s for the emulated machine: %w", opts.TestBinary, err)
	}
	ctx, cancel := context.WithTimeout(ctx, opts.Timeout)
	defer cancel()
	return boot(ctx, parts, initrd, opts.Output)
}

// Parts are what the machine is made of, as paths on this machine.
type Parts struct {
	// QEMU is the emulator's binary.
	QEMU string
	// Kernel is the compressed kernel image.
	Kernel string
	// Initramfs is the archive with init, tools and modules; a program is added per run.
	Initramfs string
}

// Provide returns the machine's parts and first fetches or builds those that
// are missing. It keeps them in the user's cache folder; with everything there
// it touches neither apt nor the network.
func Provide(ctx context.Context) (Parts, error) {
	cache, err := cacheDir()
	if err != nil {
		return Parts{}, err
	}
	unlock, err := lock(ctx, filepath.Join(cache, "lock"))
	if err != nil {
		return Parts{}, err
	}
	defer unlock()

	kernel, qemu, err := install(ctx, cache)
	if err != nil {
		return Parts{}, err
	}
	initramfs, err := buildInitramfs(ctx, kernel)
	if err != nil {
		return Parts{}, fmt.Errorf("building the initramfs for kernel %s: %w", kernel.release, err)
	}
	return Parts{QEMU: qemu, Kernel: kernel.image, Initramfs: initramfs}, nil
}
