package main

// Most of the program runs once: what registers the types of all API groups, reads
// the configuration, makes the rooms. The kernel mapped those pages when they ran,
// with their neighbours (fault-around, mm/memory.c), and keeps them mapped while nobody
// needs the memory more. On a node that is full of pods somebody does.

import (
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
	"k8s.io/klog/v2"
)

// startOver is when what runs once has run.
const startOver = 10 * time.Second

// dropStart lets go of the program's pages once it has started.
func dropStart(ctx context.Context) {
	select {
	case <-ctx.Done():
		return
	case <-time.After(startOver):
	}
	if err := dropProgram("/proc/self/exe"); err != nil {
		klog.FromContext(ctx).V(2).Info("Pages of the program stay resident that only its start needed", "reason", err.Error())
	}
}

// dropProgram unmaps the code and constants of this process, whose file is path. They are
// mapped again, from the page cache, where they are used. What the loader has
// written to, which a file does not have, is in segments that can be written and stays.
func dropProgram(path string) error {
	file, err := elf.Open(path)
	if err != nil {
		return fmt.Errorf("read the program's segments: %w", err)
	}
	defer file.Close()
	if file.Type != elf.ET_EXEC {
		return fmt.Errorf("the program is of type %s, which is loaded anywhere", file.Type)
	}
	page := uintptr(os.Getpagesize())
	var faults []error
	for _, segment := range file.Progs {
		if segment.Type != elf.PT_LOAD || segment.Flags&elf.PF_W != 0 {
			continue
		}
		// Whole pages only: the next segment may begin in the last one.
		from := (uintptr(segment.Vaddr) + page - 1) &^ (page - 1)
		to := uintptr(segment.Vaddr+segment.Filesz) &^ (page - 1)
		if from >= to {
			continue
		}
		// unix.Madvise takes memory that Go has allocated.
		if _, _, errno := unix.Syscall(unix.SYS_MADVISE, from, to-from, unix.MADV_DONTNEED); errno != 0 {
			faults = append(faults, fmt.Errorf("let go of %d bytes at %#x: %w", to-from, from, errno))
		}
	}
	return errors.Join(faults...)
}
