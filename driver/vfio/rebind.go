// One function's way there and back, as the kernel's ABI documents it
// (Documentation/ABI/testing/sysfs-bus-pci: driver_override): the override says which
// driver alone may be bound, unbind takes the present one away, and drivers_probe has
// the kernel look for one anew.

package vfio

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"syscall"

	"k8s.io/klog/v2"
)

// present reports whether the kernel shows the function.
func (b *Bus) present(pci string) bool { return exists(b.function(pci)) }

// give binds a function to vfio-pci.
func (s *Step) give(ctx context.Context, f Function) error {
	bus := s.cfg.Bus
	driver := bus.driverOf(f.PCI)
	if driver == Driver {
		return nil // as an interrupted attempt or, before the claim, an administrator left it
	}
	if driver != "" && driver != f.Driver {
		return fmt.Errorf("it is bound to %s, and was bound to %s when the claim was admitted; somebody else changes it; the kubelet tries again", driver, driverName(f.Driver))
	}
	if err := bus.override(ctx, f.PCI, Driver); err != nil {
		return err
	}
	if err := bus.unbind(ctx, f.PCI); err != nil {
		return err
	}
	probe := bus.write(ctx, f.PCI, f.PCI, "bus", "pci", "drivers_probe")
	if now := bus.driverOf(f.PCI); now == Driver {
		return nil
	} else if probe == nil {
		return fmt.Errorf("the kernel bound %s and not %s; look for %s in the kernel log", driverName(now), Driver, f.PCI)
	}
	return fmt.Errorf("have the kernel bind %s: %w; look for %s in the kernel log", Driver, probe, f.PCI)
}

// bringBack restores what the function was. A function that somebody else has
// bound to something since is left to them.
func (s *Step) bringBack(ctx context.Context, f Function) error {
	bus := s.cfg.Bus
	if !bus.present(f.PCI) {
		return nil // and with it went whatever was bound
	}
	switch driver := bus.driverOf(f.PCI); {
	case driver == f.Driver:
	case driver != "" && driver != Driver:
		klog.FromContext(ctx).Info("Leaving a PCI function to the driver that somebody bound meanwhile", "device", s.cfg.Device, "function", f.PCI, "driver", driver, "before", driverName(f.Driver))
	default:
		if err := s.rebind(ctx, f); err != nil {
			return err
		}
	}
	return bus.override(ctx, f.PCI, f.Override)
}

// rebind has the function's own driver take it again. The override names that
// driver meanwhile: so nothing binds it to vfio-pci any more, and a driver that was
// bound against the function's IDs can be bound again.
func (s *Step) rebind(ctx context.Context, f Function) error {
	bus := s.cfg.Bus
	there := f.Driver != "" && exists(bus.sys.Path("bus", "pci", "drivers", f.Driver))
	if there {
		if err := bus.override(ctx, f.PCI, f.Driver); err != nil {
			return err
		}
	}
	if err := bus.unbind(ctx, f.PCI); err != nil {
		return err
	}
	if !there {
		if f.Driver != "" { // it takes the function by itself when it is loaded
			klog.FromContext(ctx).Info("A PCI function's driver is not in the kernel any more; the function stays without one until it is loaded", "device", s.cfg.Device, "function", f.PCI, "driver", f.Driver)
		}
		return nil
	}
	err := bus.write(ctx, f.PCI, f.PCI, "bus", "pci", "drivers", f.Driver, "bind")
	switch now := bus.driverOf(f.PCI); {
	case now == f.Driver:
		return nil
	case err != nil:
		return fmt.Errorf("bind it to %s again: %w; look for %s in the kernel log, and write its address to /sys/bus/pci/drivers/%s/bind", f.Driver, err, f.PCI, f.Driver)
	default:
		return fmt.Errorf("the kernel took the order to bind it to %s, and bound %s; look for %s in the kernel log", f.Driver, driverName(now), f.PCI)
	}
}

// override says which driver alone may be bound, "" any.
func (b *Bus) override(ctx context.Context, pci, driver string) error {
	now, err := b.overrideOf(ctx, pci)
	if err != nil {
		return fmt.Errorf("read what may be bound to it: %w", err)
	}
	if now == driver {
		return nil
	}
	// A newline alone removes the override; the kernel is not told of an empty write.
	if err := b.write(ctx, pci, driver+"\n", "bus", "pci", "devices", pci, "driver_override"); err != nil {
		return fmt.Errorf("write driver_override %q: %w", driver, err)
	}
	return nil
}

// unbind takes the function's driver away, if it has one.
func (b *Bus) unbind(ctx context.Context, pci string) error {
	driver := b.driverOf(pci)
	if driver == "" {
		return nil
	}
	err := b.write(ctx, pci, pci, "bus", "pci", "devices", pci, "driver", "unbind")
	// The driver may have gone since: by an earlier write that was waited for, say.
	if gone := errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENODEV); err != nil && (!gone || b.driverOf(pci) != "") {
		return fmt.Errorf("unbind it from %s: %w", driver, err)
	}
	if now := b.driverOf(pci); now != "" {
		return fmt.Errorf("unbind it from %s: the kernel took the order, and the function is bound to %s; look for it in the kernel log", driver, now)
	}
	return nil
}
