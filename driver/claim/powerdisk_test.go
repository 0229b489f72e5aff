package claim

// A disk with a memory: real files are what the kernel has in its page cache, and
// beside each is what power failure leaves of it. It fails, or dies, at a drawn point.

import (
	"bytes"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"pgregory.net/rapid"
)

// inode is a file under whatever name.
type inode struct{ durable []byte }

type powerDisk struct {
	t         *rapid.T
	directory string
	// names are those of now, history what they were since the directory was synced,
	// the first of which is durable.
	names   map[string]*inode
	history []map[string]*inode
	// killed and fails count down the operations to the agent's end and to an error; below 0 there is none.
	killed, fails int
}

func newPowerDisk(t *rapid.T, directory string) *powerDisk {
	return &powerDisk{t: t, directory: directory, names: map[string]*inode{}, history: []map[string]*inode{{}}, killed: -1, fails: -1}
}

// next returns how the next operation ends; what it does then is up to itself.
func (d *powerDisk) next() error {
	if d.killed == 0 {
		return errCrashed
	}
	d.killed--
	d.fails--
	if d.fails == -1 {
		return syscall.EIO
	}
	return nil
}

func (d *powerDisk) renamed() { d.history = append(d.history, maps.Clone(d.names)) }

type powerFile struct {
	diskFile
	disk *powerDisk
	path string
}

func (d *powerDisk) Create(path string) (diskFile, error) {
	if err := d.next(); err != nil {
		return nil, err
	}
	file, err := realDisk{}.Create(path)
	if err != nil {
		return nil, err
	}
	d.names[path] = &inode{}
	d.renamed()
	return powerFile{file, d, path}, nil
}

func (f powerFile) Write(data []byte) (int, error) {
	if err := f.disk.next(); err != nil {
		n, fault := f.diskFile.Write(data[:rapid.IntRange(0, len(data)).Draw(f.disk.t, "written")])
		return n, errors.Join(err, fault)
	}
	return f.diskFile.Write(data)
}

func (f powerFile) Sync() (err error) {
	if err := f.disk.next(); err != nil {
		return err
	}
	f.disk.names[f.path].durable, err = os.ReadFile(f.path)
	return err
}

// Rename may have been done though it says that it failed.
func (d *powerDisk) Rename(from, to string) error {
	err := d.next()
	if err != nil && (errors.Is(err, errCrashed) || rapid.Bool().Draw(d.t, "not renamed")) {
		return err
	}
	if fault := os.Rename(from, to); fault != nil {
		return fault
	}
	d.names[to] = d.names[from]
	delete(d.names, from)
	d.renamed()
	return err
}

func (d *powerDisk) Link(file, name string) error {
	if err := d.next(); err != nil {
		return err
	}
	if err := os.Link(file, name); err != nil {
		return err
	}
	d.names[name] = d.names[file]
	d.renamed()
	return nil
}

func (d *powerDisk) Remove(path string) error {
	if err := d.next(); err != nil {
		return err
	}
	if err := (realDisk{}).Remove(path); err != nil {
		return err
	}
	delete(d.names, path)
	d.renamed()
	return nil
}

func (d *powerDisk) SyncDirectory(string) error {
	if err := d.next(); err != nil {
		return err
	}
	d.history = []map[string]*inode{maps.Clone(d.names)}
	return nil
}

// Overwrite that fails has changed any part of the slot, in the cache and on the disk.
func (d *powerDisk) Overwrite(path string, offset int64, data []byte) error {
	file := d.names[path]
	if file == nil {
		return realDisk{}.Overwrite(path, offset, data)
	}
	err := d.next()
	parts := [2][]byte{data, data}
	if err != nil {
		cached, fault := os.ReadFile(path)
		if fault != nil {
			return errors.Join(err, fault)
		}
		parts = [2][]byte{d.torn(cached, offset, data), d.torn(file.durable, offset, data)}
	}
	file.durable = spliced(file.durable, offset, parts[1])
	return errors.Join(err, realDisk{}.Overwrite(path, offset, parts[0]))
}

func spliced(file []byte, offset int64, data []byte) []byte {
	file = append(bytes.Clone(file), make([]byte, max(0, int(offset)+len(data)-len(file)))...)
	copy(file[offset:], data)
	return file
}

// torn is what is at the place when some sectors of data have arrived.
func (d *powerDisk) torn(file []byte, offset int64, data []byte) []byte {
	const sector = 128 // small, so that short journals have several
	torn := bytes.Clone(spliced(file, offset, nil)[offset:])
	torn = spliced(torn, 0, torn[:min(len(torn), len(data))])[:min(len(torn), len(data))]
	torn = append(torn, make([]byte, len(data)-len(torn))...)
	for at := 0; at < len(data); at += sector {
		if rapid.Bool().Draw(d.t, "sector") {
			copy(torn[at:], data[at:min(at+sector, len(data))])
		}
	}
	return torn
}

// powerFails leaves what is durable, and by chance what the kernel had written back.
func (d *powerDisk) powerFails() error {
	names := d.history[rapid.IntRange(0, len(d.history)-1).Draw(d.t, "directory of")]
	left, paths := map[*inode][]byte{}, slices.Sorted(maps.Keys(names))
	for _, path := range paths {
		file := names[path]
		if left[file] != nil {
			continue
		}
		left[file] = bytes.Clone(file.durable)
		for now, other := range d.names {
			if other != file || !rapid.Bool().Draw(d.t, "written back") {
				continue
			}
			var err error
			if left[file], err = os.ReadFile(now); err != nil {
				return err
			}
		}
	}
	files, err := filepath.Glob(filepath.Join(d.directory, "*"))
	for _, file := range files {
		err = errors.Join(err, os.Remove(file))
	}
	d.names = map[string]*inode{}
	first := map[*inode]string{}
	for _, path := range paths {
		file := names[path]
		if other, is := first[file]; is {
			err = errors.Join(err, os.Link(other, path))
			d.names[path] = d.names[other]
			continue
		}
		first[file] = path
		err = errors.Join(err, os.WriteFile(path, left[file], 0o600))
		d.names[path] = &inode{durable: left[file]}
	}
	d.history = []map[string]*inode{maps.Clone(d.names)}
	return err
}
