// Package vfiotest plays the kernel's part in changing the drivers of PCI functions:
// a sysfs tree in a folder, in which writes have the effects that the kernel's
// drivers/base/bus.c, drivers/pci/pci-driver.c and vfio give them.
package vfiotest

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"

	"github.com/hostler-dev/hostler/driver/vfio"
)

// Function is one PCI function as it is made.
type Function struct {
	PCI string
	// Group is the IOMMU group, "" for none.
	Group string
	// Class in hexadecimal. Default: "0x020000", an Ethernet controller.
	Class string
	// Native are the drivers that take it by its IDs, the preferred one first.
	Native []string
	// Driver bound and Override set at first.
	Driver, Override string
	// PF makes it a virtual function; VFs is the number of its own.
	PF  string
	VFs int
}

// Kernel is a machine. It is safe for concurrent use.
type Kernel struct {
	// Sys and Dev are its folders.
	Sys, Dev string
	// Before is asked before each write that takes effect, "unbind 0000:17:00.0";
	// an error is the kernel's answer, and nothing is done. After is told when it did.
	Before func(what string) error
	After  func(what string)

	mu        sync.Mutex
	functions map[string]Function
}

// New makes a machine below a folder with an IOMMU, vfio-pci and the named drivers.
func New(folder string, functions []Function, drivers ...string) (*Kernel, error) {
	k := &Kernel{Sys: filepath.Join(folder, "sys"), Dev: filepath.Join(folder, "dev"), functions: map[string]Function{}}
	for _, path := range []string{k.Sys + "/bus/pci/devices", k.Sys + "/kernel/iommu_groups", k.Dev + "/vfio"} {
		if err := os.MkdirAll(path, 0o755); err != nil {
			return nil, err
		}
	}
	if err := os.WriteFile(k.Dev+"/vfio/vfio", nil, 0o600); err != nil {
		return nil, err
	}
	for _, driver := range append(drivers, vfio.Driver) {
		if err := os.MkdirAll(k.driver(driver), 0o755); err != nil {
			return nil, err
		}
	}
	for _, f := range functions {
		if err := k.Plug(f); err != nil {
			return nil, err
		}
	}
	return k, nil
}

// Bus is the machine as the product sees it.
func (k *Kernel) Bus() *vfio.Bus {
	return vfio.NewBus(vfio.BusConfig{Sys: k.Sys, Dev: k.Dev, Write: k.Write})
}

func (k *Kernel) device(pci string) string  { return filepath.Join(k.Sys, "bus/pci/devices", pci) }
func (k *Kernel) driver(name string) string { return filepath.Join(k.Sys, "bus/pci/drivers", name) }

// Plug adds a function.
func (k *Kernel) Plug(f Function) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.functions[f.PCI] = f
	at := k.device(f.PCI)
	if f.Class == "" {
		f.Class = "0x020000"
	}
	if err := os.MkdirAll(at, 0o755); err != nil {
		return err
	}
	files := map[string]string{"class": f.Class, "driver_override": orNull(f.Override)}
	if f.PF == "" {
		files["sriov_numvfs"] = fmt.Sprint(f.VFs)
	} else if err := os.Symlink(k.device(f.PF), at+"/physfn"); err != nil {
		return err
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(at, name), []byte(content+"\n"), 0o644); err != nil {
			return err
		}
	}
	if f.Group != "" {
		group := filepath.Join(k.Sys, "kernel/iommu_groups", f.Group)
		if err := os.MkdirAll(group+"/devices", 0o755); err != nil {
			return err
		}
		if err := os.Symlink(at, filepath.Join(group, "devices", f.PCI)); err != nil {
			return err
		}
		if err := os.Symlink(group, at+"/iommu_group"); err != nil {
			return err
		}
	}
	if f.Driver == "" {
		return nil
	}
	return k.attach(f.PCI, f.Driver)
}

// Unplug removes a function, whatever is bound to it.
func (k *Kernel) Unplug(pci string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	f := k.functions[pci]
	if err := k.detach(pci); err != nil {
		return err
	}
	delete(k.functions, pci)
	if err := os.Remove(filepath.Join(k.Sys, "kernel/iommu_groups", f.Group, "devices", pci)); err != nil {
		return err
	}
	return os.RemoveAll(k.device(pci))
}

// Unload removes a driver from the kernel and with it its bindings.
func (k *Kernel) Unload(driver string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	for pci := range k.functions {
		if k.bound(pci) == driver {
			if err := k.detach(pci); err != nil {
				return err
			}
		}
	}
	return os.RemoveAll(k.driver(driver))
}

// State of all functions in a line each: "0000:17:00.0 nvidia override=vfio-pci".
func (k *Kernel) State() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	var lines []string
	for pci := range k.functions {
		lines = append(lines, fmt.Sprintf("%s %s override=%s", pci, k.bound(pci), k.override(pci)))
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// Write is what the product writes by.
func (k *Kernel) Write(path, value string) error {
	path, inside := strings.CutPrefix(path, k.Sys+"/bus/pci/")
	if !inside {
		return &fs.PathError{Op: "write", Path: path, Err: fs.ErrNotExist}
	}
	value = strings.TrimSuffix(value, "\n")
	at := strings.Split(path, "/")
	pci, attribute := value, at[len(at)-1]
	if at[0] == "devices" {
		pci = at[1]
	}
	what := strings.TrimSpace(attribute + " " + pci)
	k.mu.Lock()
	before, after := k.Before, k.After
	k.mu.Unlock()
	if before != nil {
		if err := before(what); err != nil {
			return &fs.PathError{Op: "write", Path: path, Err: err}
		}
	}
	k.mu.Lock()
	err := k.obey(at, pci, value)
	k.mu.Unlock()
	if err != nil {
		return &fs.PathError{Op: "write", Path: path, Err: err}
	}
	if after != nil {
		after(what)
	}
	return nil
}

func (k *Kernel) obey(at []string, pci, value string) error {
	if _, known := k.functions[pci]; !known {
		return syscall.ENODEV
	}
	switch strings.Join(append(slices.Clone(at[:1]), at[min(2, len(at)):]...), "/") {
	case "devices/driver_override":
		return os.WriteFile(k.device(pci)+"/driver_override", []byte(orNull(value)+"\n"), 0o644)
	case "devices/driver/unbind":
		if k.bound(pci) == "" {
			return fs.ErrNotExist
		}
		return k.detach(pci)
	case "drivers/bind":
		switch {
		case k.bound(pci) != "":
			return syscall.EBUSY
		case !k.matches(pci, at[1]):
			return syscall.ENODEV
		}
		return k.attach(pci, at[1])
	case "drivers_probe":
		candidates := append(slices.Clone(k.functions[pci].Native), k.override(pci))
		for _, driver := range candidates {
			if k.bound(pci) == "" && driver != "" && k.matches(pci, driver) {
				return k.attach(pci, driver)
			}
		}
		return nil
	}
	return fs.ErrNotExist
}

// matches is pci_match_device.
func (k *Kernel) matches(pci, driver string) bool {
	if _, err := os.Stat(k.driver(driver)); err != nil {
		return false
	}
	if override := k.override(pci); override != "" {
		return override == driver
	}
	return slices.Contains(k.functions[pci].Native, driver)
}

func (k *Kernel) attach(pci, driver string) error {
	if err := os.Symlink(k.driver(driver), k.device(pci)+"/driver"); err != nil {
		return err
	}
	if driver != vfio.Driver {
		return nil
	}
	return os.WriteFile(k.node(pci), nil, 0o600)
}

func (k *Kernel) detach(pci string) error {
	driver := k.bound(pci)
	if driver == "" {
		return nil
	}
	if err := os.Remove(k.device(pci) + "/driver"); err != nil {
		return err
	}
	group := k.functions[pci].Group
	shared := false
	for other, f := range k.functions {
		shared = shared || f.Group == group && k.bound(other) == vfio.Driver
	}
	if driver == vfio.Driver && !shared {
		return os.Remove(k.node(pci))
	}
	return nil
}

func (k *Kernel) node(pci string) string {
	return filepath.Join(k.Dev, "vfio", k.functions[pci].Group)
}

func (k *Kernel) bound(pci string) string {
	target, err := os.Readlink(k.device(pci) + "/driver")
	if err != nil {
		return ""
	}
	return filepath.Base(target)
}

func (k *Kernel) override(pci string) string {
	raw, err := os.ReadFile(k.device(pci) + "/driver_override")
	if text := strings.TrimSpace(string(raw)); err == nil && text != "(null)" {
		return text
	}
	return ""
}

func orNull(override string) string {
	if override == "" {
		return "(null)"
	}
	return override
}
