// Package pcibus plays the kernel's part on the PCI bus of a rendered machine: a
// write to driver_override, unbind, bind or drivers_probe has the effect that
// drivers/base/bus.c, drivers/base/dd.c and drivers/pci/pci-driver.c give it, and the
// writer gets the kernel's answer. What a driver makes of its function comes and goes
// with it: the GPU that NVML counts, a NIC's netdev and RDMA device, vfio's device node.
//
// Ordinary files cannot answer, so those few are served by FUSE (Mount).
package pcibus

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
)

// VFIO is the driver that gives functions to user space. It takes none by its IDs.
const VFIO = "vfio-pci"

// Function is a PCI function of the machine.
type Function struct {
	// PCI address, "0000:17:00.0".
	PCI string
	// Native is the driver that takes the function by its IDs, and is bound at first.
	Native string
	// Come and Go are told when the native driver has got the function and when it
	// loses it; nil where nothing lies outside the device's folder.
	Come, Go func() error
}

// Config of a Bus.
type Config struct {
	// Machine is the folder that machine.Render wrote.
	Machine   string
	Functions []Function
}

// Bus is the PCI bus of one machine. It is safe for concurrent use. Its state is
// the rendered tree's own: which driver is bound is what the links say.
type Bus struct {
	sys, dev, aside string
	functions       map[string]Function

	mu        sync.Mutex
	overrides map[string]string
}

// New returns a Bus and adds vfio-pci to the machine's drivers.
func New(cfg Config) (*Bus, error) {
	b := &Bus{sys: filepath.Join(cfg.Machine, "sys"), dev: filepath.Join(cfg.Machine, "dev"), aside: filepath.Join(cfg.Machine, "unbound"),
		functions: map[string]Function{}, overrides: map[string]string{}}
	for _, f := range cfg.Functions {
		b.functions[f.PCI] = f
	}
	if err := os.MkdirAll(b.driver(VFIO), 0o755); err != nil {
		return nil, fmt.Errorf("load %s: %w", VFIO, err)
	}
	return b, nil
}

func (b *Bus) driver(name string) string  { return filepath.Join(b.sys, "bus/pci/drivers", name) }
func (b *Bus) function(pci string) string { return filepath.Join(b.sys, "bus/pci/devices", pci) }

// bound is the driver of a function, "" if none.
func (b *Bus) bound(pci string) string { return linkBase(filepath.Join(b.function(pci), "driver")) }

func linkBase(path string) string {
	target, err := os.Readlink(path)
	if err != nil {
		return ""
	}
	return filepath.Base(target)
}

// Override is what driver_override shows.
func (b *Bus) Override(pci string) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	if override := b.overrides[pci]; override != "" {
		return override
	}
	return "(null)"
}

// SetOverride is a write to driver_override; an empty line removes it.
func (b *Bus) SetOverride(pci, driver string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.overrides[pci] = driver
	return nil
}

// Unbind is a write of the function's address to the driver's unbind.
func (b *Bus) Unbind(driver, pci string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	f, known := b.functions[pci]
	if !known || b.bound(pci) != driver {
		return syscall.ENODEV
	}
	return b.detach(f, driver)
}

// Bind is a write of the function's address to the driver's bind.
func (b *Bus) Bind(driver, pci string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	f, known := b.functions[pci]
	if !known || !b.matches(driver, f) {
		return syscall.ENODEV
	}
	if b.bound(pci) != "" {
		return syscall.EBUSY
	}
	return b.attach(f, driver)
}

// Probe is a write of the function's address to drivers_probe: a driver that
// matches takes it. It is no error if none does.
func (b *Bus) Probe(pci string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	f, known := b.functions[pci]
	if !known {
		return syscall.ENODEV
	}
	for _, driver := range []string{VFIO, f.Native} {
		if b.bound(pci) == "" && driver != "" && b.matches(driver, f) {
			return b.attach(f, driver)
		}
	}
	return nil
}

// matches as pci_match_device does: an override alone decides where there is one.
func (b *Bus) matches(driver string, f Function) bool {
	if override := b.overrides[f.PCI]; override != "" {
		return driver == override
	}
	return driver == f.Native
}

// attach binds a driver; if what it brings does not come, nothing is bound.
func (b *Bus) attach(f Function, driver string) error {
	switch driver {
	case VFIO:
		if err := b.makeNode(f.PCI); err != nil {
			return err
		}
	case f.Native:
		if err := b.restore(f); err != nil {
			return err
		}
	}
	folder, err := filepath.EvalSymlinks(b.function(f.PCI))
	if err != nil {
		return err
	}
	return errors.Join(link(filepath.Join(folder, "driver"), b.driver(driver)), link(filepath.Join(b.driver(driver), f.PCI), folder), tellDriver(folder, driver))
}

func (b *Bus) detach(f Function, driver string) error {
	folder, err := filepath.EvalSymlinks(b.function(f.PCI))
	if err != nil {
		return err
	}
	if err := errors.Join(os.Remove(filepath.Join(folder, "driver")), os.Remove(filepath.Join(b.driver(driver), f.PCI)), tellDriver(folder, "")); err != nil {
		return err
	}
	switch driver {
	case VFIO:
		return b.removeNode(f.PCI)
	case f.Native:
		return b.setAside(f)
	}
	return nil
}

// link makes a relative one, as sysfs has them. Its folder may be reached by links itself.
func link(path, target string) error {
	folder, err := filepath.EvalSymlinks(filepath.Dir(path))
	if err != nil {
		return err
	}
	text, err := filepath.Rel(folder, target)
	if err != nil {
		return err
	}
	if err := os.Symlink(text, path); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

// tellDriver writes the line DRIVER= of a function's uevent, or leaves it out.
func tellDriver(folder, driver string) error {
	path := filepath.Join(folder, "uevent")
	old, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var lines []string
	if driver != "" {
		lines = append(lines, "DRIVER="+driver+"\n")
	}
	for line := range strings.Lines(string(old)) {
		if !strings.HasPrefix(line, "DRIVER=") {
			lines = append(lines, line)
		}
	}
	return os.WriteFile(path, []byte(strings.Join(lines, "")), 0o444)
}
