// How the journal replaces its file as a whole: written beside, synced, renamed, and the
// directory synced. After a crash at any moment, of the whole machine too, either the
// old or the new content is there.
//
// A sync that failed is not tried again on the same file: the kernel may have
// dropped the pages that it could not write and call the next sync a success
// (fsync(2), "Rewriting data and error reporting"; PostgreSQL's fsyncgate of 2018).
// So every write begins with a file of its own.

package claim

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// disk is what the journal asks of the file system.
type disk interface {
	// Create makes a file that was not there.
	Create(path string) (diskFile, error)
	Rename(from, to string) error
	// Link gives a file a second name, which nothing has. It does not read the file.
	Link(file, name string) error
	// Remove deletes a file, no directory.
	Remove(path string) error
	SyncDirectory(path string) error
	// Overwrite puts data at an offset of a file that is there, and returns when it
	// has reached the disk. The error is fs.ErrNotExist if nothing was done because it is not there.
	Overwrite(path string, offset int64, data []byte) error
}

type diskFile interface {
	io.WriteCloser
	Sync() error
}

// replaceFile puts data in place of path. It says whether path may say something
// else than before, which an error leaves open once the file has been renamed.
func replaceFile(d disk, path string, data []byte) (touched bool, err error) {
	temporary := temporaryPath(path)
	if err := writeFile(d, temporary, data); err != nil {
		return false, err
	}
	if err := d.Rename(temporary, path); err != nil {
		// A file system that fails may have done it all the same.
		return true, errors.Join(err, discard(d, temporary))
	}
	return true, d.SyncDirectory(filepath.Dir(path))
}

// temporaryPath is where what will be at path is written.
func temporaryPath(path string) string { return path + ".tmp" }

func writeFile(d disk, path string, data []byte) error {
	f, err := d.Create(path)
	if errors.Is(err, fs.ErrExist) {
		// Left by an agent that was killed here.
		if err = d.Remove(path); err == nil {
			f, err = d.Create(path)
		}
	}
	if err != nil {
		return err
	}
	n, err := f.Write(data)
	if err == nil && n < len(data) {
		err = io.ErrShortWrite
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, discard(d, path))
	}
	return nil
}

// discard gives back the space that a failed attempt took: the disk may be full.
func discard(d disk, path string) error {
	if err := d.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// realDisk is the file system.
type realDisk struct{}

func (realDisk) Create(path string) (diskFile, error) {
	return os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
}

func (realDisk) Rename(from, to string) error { return os.Rename(from, to) }

func (realDisk) Link(file, name string) error { return os.Link(file, name) }

// Remove leaves directories alone, which os.Remove would not.
func (realDisk) Remove(path string) error {
	if err := syscall.Unlink(path); err != nil {
		return &os.PathError{Op: "remove", Path: path, Err: err}
	}
	return nil
}

func (realDisk) SyncDirectory(path string) error {
	directory, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(directory.Sync(), directory.Close())
}

func (realDisk) Overwrite(path string, offset int64, data []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|unix.O_DSYNC, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(data, offset)
	return errors.Join(err, f.Close())
}

// remedy says what to do about a directory that cannot be written.
func remedy(err error, directory string) string {
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return "free space on the file system of " + directory
	case errors.Is(err, syscall.EROFS):
		return "remount the file system of " + directory + " for writing; the kernel makes it read-only when the disk fails, see dmesg"
	case errors.Is(err, syscall.EIO):
		return "the disk of " + directory + " fails, see dmesg"
	}
	return "check free space and permissions of " + directory
}
