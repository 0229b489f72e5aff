package link

// BPF programs on the way of packets in and out (tcx, kernel 6.6). Unlike tc's
// filters they stay on a netdev that changes namespaces: the kernel takes them off only
// one that ends (dev_tcx_uninstall). What a pod left there would see its successor's.

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"unsafe"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// tcxHooks are BPF_TCX_INGRESS and BPF_TCX_EGRESS of linux/bpf.h.
func tcxHooks() []uint32 { return []uint32{46, 47} }

// tcxProgram is one that is attached, by itself or by a link that lives elsewhere, 0 for none.
type tcxProgram struct{ hook, program, link uint32 }

// bpfQuery, bpfAttach and bpfByID are the kernel's union bpf_attr for what is asked here.
type bpfQuery struct {
	interfaceIndex, hook, flags, attachFlags uint32
	programs                                 uint64
	count, _                                 uint32
	programFlags, links, linkFlags, revision uint64
}

type bpfAttach struct {
	interfaceIndex, program, hook, flags, replaced, relative uint32
	revision                                                 uint64
}

type bpfByID struct{ id, next, flags uint32 }

// tcxPrograms lists what is attached to the interface; on a kernel without, nothing.
func (s *space) tcxPrograms(index int) (programs []tcxProgram, err error) {
	err = s.inside(func() error {
		for _, hook := range tcxHooks() {
			const most = 64 // of one hook, of which the kernel has BPF_MPROG_MAX
			ids, links := make([]uint32, most), make([]uint32, most)
			var pinner runtime.Pinner // the kernel is told addresses as numbers
			defer pinner.Unpin()
			pinner.Pin(&ids[0])
			pinner.Pin(&links[0])
			query := bpfQuery{interfaceIndex: uint32(index), hook: hook, count: most,
				programs: uint64(uintptr(unsafe.Pointer(&ids[0]))), links: uint64(uintptr(unsafe.Pointer(&links[0])))}
			_, err := bpf(unix.BPF_PROG_QUERY, unsafe.Pointer(&query), unsafe.Sizeof(query))
			if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EOPNOTSUPP) {
				return nil
			}
			if err != nil && !errors.Is(err, unix.ENOENT) {
				return err
			}
			for i := range min(query.count, most) {
				if ids[i] != 0 {
					programs = append(programs, tcxProgram{hook, ids[i], links[i]})
				}
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("cannot list its BPF programs: %w", err)
	}
	return programs, nil
}

// tcxIDs are the numbers of an interface's programs.
func (s *space) tcxIDs(index int) ([]uint32, error) {
	programs, err := s.tcxPrograms(index)
	var ids []uint32
	for _, p := range programs {
		ids = append(ids, p.program)
	}
	return ids, err
}

// removeTCX takes off the programs that the netdev did not have on the host.
func (s *space) removeTCX(link netlink.Link, had []uint32) error {
	programs, err := s.tcxPrograms(link.Attrs().Index)
	if err != nil {
		return err
	}
	var faults []error
	for _, p := range programs {
		if slices.Contains(had, p.program) {
			continue
		}
		if err := s.inside(func() error { return p.detach(link.Attrs().Index) }); err != nil && !errors.Is(err, unix.ENOENT) {
			faults = append(faults, fmt.Errorf("the BPF program %d that its pod left on it: %w", p.program, err))
		}
	}
	return errors.Join(faults...)
}

// detach is called on a thread in the interface's namespace.
func (p tcxProgram) detach(index int) error {
	if p.link != 0 {
		link, err := bpfObject(unix.BPF_LINK_GET_FD_BY_ID, p.link)
		if err != nil {
			return err
		}
		defer unix.Close(link)
		descriptor := uint32(link)
		_, err = bpf(unix.BPF_LINK_DETACH, unsafe.Pointer(&descriptor), unsafe.Sizeof(descriptor))
		return err
	}
	program, err := bpfObject(unix.BPF_PROG_GET_FD_BY_ID, p.program)
	if err != nil {
		return err
	}
	defer unix.Close(program)
	request := bpfAttach{interfaceIndex: uint32(index), program: uint32(program), hook: p.hook}
	_, err = bpf(unix.BPF_PROG_DETACH, unsafe.Pointer(&request), unsafe.Sizeof(request))
	return err
}

func bpfObject(command int, id uint32) (descriptor int, err error) {
	request := bpfByID{id: id}
	return bpf(command, unsafe.Pointer(&request), unsafe.Sizeof(request))
}

func bpf(command int, attributes unsafe.Pointer, size uintptr) (int, error) {
	result, _, errno := unix.Syscall(unix.SYS_BPF, uintptr(command), uintptr(attributes), size)
	if errno != 0 {
		return 0, errno
	}
	return int(result), nil
}
