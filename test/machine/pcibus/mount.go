// The files by which drivers are changed. A write to a file of an ordinary file
// system succeeds whatever it says, and its effect would come later; these are served
// by FUSE, whose writes return when the Bus has answered, as those of sysfs do.

package pcibus

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
	"k8s.io/klog/v2"
)

// mountPoint is where in sysfs the files lie to which the tree's links lead.
const mountPoint = "module/pcibus"

// Server answers for the files until it is unmounted.
type Server struct{ server *fuse.Server }

// Mount serves the bus's files and links them into the tree, over what an earlier
// server has left there. It needs CAP_SYS_ADMIN.
func Mount(b *Bus) (*Server, error) {
	root := &directory{files: b.files()}
	where := filepath.Join(b.sys, mountPoint)
	// A server that was killed leaves a mount that answers nothing (ENOTCONN).
	if err := unix.Unmount(where, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return nil, fmt.Errorf("unmount what an earlier PCI bus left at %s: %w", where, err)
	}
	if err := os.MkdirAll(where, 0o755); err != nil {
		return nil, fmt.Errorf("make room for the PCI bus: %w", err)
	}
	server, err := fs.Mount(where, root, &fs.Options{MountOptions: fuse.MountOptions{
		AllowOther: true, DirectMountStrict: true, FsName: "pcibus", Name: "pcibus",
	}})
	if err != nil {
		return nil, fmt.Errorf("mount the PCI bus at %s: %w", where, err)
	}
	for path := range root.files {
		if err := link(filepath.Join(b.sys, "bus/pci", path), filepath.Join(where, flat(path))); err != nil {
			return nil, errors.Join(fmt.Errorf("link %s into the tree: %w", path, err), server.Unmount())
		}
	}
	return &Server{server: server}, nil
}

// Wait returns when the file system is unmounted.
func (s *Server) Wait() { s.server.Wait() }

// Unmount ends it.
func (s *Server) Unmount() error { return s.server.Unmount() }

// flat is a path as one name.
func flat(path string) string { return strings.ReplaceAll(path, "/", "!") }

// attribute is a file of sysfs: show gives its content, store takes a line.
type attribute struct {
	fs.Inode
	show  func() string
	store func(line string) error
}

// files are the bus's, by their path below bus/pci.
func (b *Bus) files() map[string]*attribute {
	files := map[string]*attribute{"drivers_probe": {store: b.Probe}}
	for _, f := range b.functions {
		files["devices/"+f.PCI+"/driver_override"] = &attribute{
			show:  func() string { return b.Override(f.PCI) + "\n" },
			store: func(line string) error { return b.SetOverride(f.PCI, line) },
		}
		for _, driver := range []string{f.Native, VFIO} {
			if driver != "" {
				files["drivers/"+driver+"/bind"] = &attribute{store: func(line string) error { return b.Bind(driver, line) }}
				files["drivers/"+driver+"/unbind"] = &attribute{store: func(line string) error { return b.Unbind(driver, line) }}
			}
		}
	}
	return files
}

type directory struct {
	fs.Inode
	files map[string]*attribute
}

// OnAdd is called once, when the directory is mounted.
func (d *directory) OnAdd(ctx context.Context) {
	for path, file := range d.files {
		d.AddChild(flat(path), d.NewPersistentInode(ctx, file, fs.StableAttr{Mode: fuse.S_IFREG}), false)
	}
}

var (
	_ fs.NodeOnAdder   = (*directory)(nil)
	_ fs.NodeOpener    = (*attribute)(nil)
	_ fs.NodeReader    = (*attribute)(nil)
	_ fs.NodeWriter    = (*attribute)(nil)
	_ fs.NodeGetattrer = (*attribute)(nil)
	_ fs.NodeSetattrer = (*attribute)(nil)
)

// Getattr tells the mode; like sysfs it says one page of every file.
func (a *attribute) Getattr(_ context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	out.Mode, out.Size = fuse.S_IFREG|0o200, 4096
	if a.show != nil {
		out.Mode |= 0o444
	}
	return 0
}

// Setattr lets a shell's > truncate what has no length.
func (a *attribute) Setattr(ctx context.Context, file fs.FileHandle, _ *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	return a.Getattr(ctx, file, out)
}

// Open has every read and write come here, past the page cache.
func (a *attribute) Open(context.Context, uint32) (fs.FileHandle, uint32, syscall.Errno) {
	return nil, fuse.FOPEN_DIRECT_IO, 0
}

func (a *attribute) Read(_ context.Context, _ fs.FileHandle, into []byte, offset int64) (fuse.ReadResult, syscall.Errno) {
	if a.show == nil {
		return nil, syscall.EIO // as sysfs answers where there is nothing to show
	}
	content := a.show()
	content = content[min(int(offset), len(content)):]
	return fuse.ReadResultData([]byte(content[:min(len(content), len(into))])), 0
}

func (a *attribute) Write(ctx context.Context, _ fs.FileHandle, data []byte, _ int64) (uint32, syscall.Errno) {
	if err := a.store(strings.TrimSuffix(string(data), "\n")); err != nil {
		var number syscall.Errno
		if errors.As(err, &number) {
			return 0, number
		}
		klog.FromContext(ctx).Error(err, "The simulated PCI bus failed")
		return 0, syscall.EIO
	}
	return uint32(len(data)), 0
}
