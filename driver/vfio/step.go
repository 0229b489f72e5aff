// Step binds one device to vfio-pci and brings it back. It may have been
// interrupted between any two writes, so it never asks what it did, but what
// the kernel shows: a function is on its way there, there, or on its way back, and
// each of these can be told from the driver that is bound and the one that may be.

package vfio

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"k8s.io/klog/v2"
)

// StepConfig describes one device and how to get at it.
type StepConfig struct {
	// Device is its name.
	Device  string
	Binding *Binding
	// OtherBoot says that the claim was prepared before the machine rebooted:
	// bindings do not outlive that.
	OtherBoot bool
	Bus       *Bus
	// LetGo runs an action while nobody of ours has the device open, and has its
	// driver looked at anew after it. Nil: nobody of ours ever opens the device.
	LetGo func(ctx context.Context, pci string, action func(context.Context) error) error
	// Nodes of the device's own driver, relative to /dev, that no process may have
	// open when the driver is taken away ("nvidia3").
	Nodes []string
	// Changed is called after drivers were changed.
	Changed func()
}

// Step implements claim.Step.
type Step struct{ cfg StepConfig }

// NewStep returns the step.
func NewStep(cfg StepConfig) *Step {
	if cfg.LetGo == nil {
		cfg.LetGo = func(ctx context.Context, _ string, action func(context.Context) error) error { return action(ctx) }
	}
	if cfg.Changed == nil {
		cfg.Changed = func() {}
	}
	return &Step{cfg: cfg}
}

// Name implements claim.Step.
func (s *Step) Name() string { return "bind device " + s.cfg.Device + " to " + Driver }

// Kind implements claim.Step.
func (s *Step) Kind() string { return "vfio" }

// Do implements claim.Step.
func (s *Step) Do(ctx context.Context) error {
	binding := s.cfg.Binding
	if err := s.sameGroup(); err != nil {
		return err
	}
	if s.bound() == nil {
		return nil
	}
	defer s.cfg.Changed()
	return s.cfg.LetGo(ctx, binding.Functions[0].PCI, func(ctx context.Context) error {
		if err := s.unused(); err != nil {
			return err
		}
		for _, f := range binding.Functions {
			if err := s.give(ctx, f); err != nil {
				return fmt.Errorf("device %s: give PCI function %s to user space: %w", s.cfg.Device, f.PCI, err)
			}
		}
		klog.FromContext(ctx).V(2).Info("Gave a device to user space", "device", s.cfg.Device, "iommuGroup", binding.Group, "functions", len(binding.Functions))
		return nil
	})
}

// Verify implements claim.Step.
func (s *Step) Verify(context.Context) error {
	if err := s.sameGroup(); err != nil {
		return err
	}
	if err := s.bound(); err != nil {
		return err
	}
	if _, err := s.cfg.Bus.Nodes(s.cfg.Binding); err != nil {
		return fmt.Errorf("device %s: %w", s.cfg.Device, err)
	}
	return nil
}

// Undo implements claim.Step. Every function gets its turn, whatever becomes of
// the others.
func (s *Step) Undo(ctx context.Context) error {
	if s.cfg.OtherBoot {
		return nil
	}
	if home, err := s.home(ctx); home || err != nil {
		return err
	}
	self := s.cfg.Binding.Functions[0]
	if s.cfg.Bus.driverOf(self.PCI) == self.Driver {
		// It is in use again, perhaps: what is left to do takes it from nobody.
		return s.bringAllBack(ctx)
	}
	defer s.cfg.Changed()
	return s.cfg.LetGo(ctx, self.PCI, s.bringAllBack)
}

func (s *Step) bringAllBack(ctx context.Context) error {
	var faults []error
	for _, f := range slices.Backward(s.cfg.Binding.Functions) {
		if err := s.bringBack(ctx, f); err != nil {
			faults = append(faults, fmt.Errorf("device %s: bring PCI function %s back from user space: %w", s.cfg.Device, f.PCI, err))
		}
	}
	if len(faults) == 0 {
		klog.FromContext(ctx).V(2).Info("Brought a device back from user space", "device", s.cfg.Device)
	}
	return errors.Join(faults...)
}

// sameGroup refuses a device that is another one than it was: plugged anew, it may
// share its group with others.
func (s *Step) sameGroup() error {
	b := s.cfg.Binding
	for _, f := range b.Functions {
		switch now := s.cfg.Bus.groupOf(f.PCI); {
		case !s.cfg.Bus.present(f.PCI):
			return fmt.Errorf("device %s: PCI function %s is not there any more: it was unplugged, or its PF lost its VFs; delete the pod to have another device allocated", s.cfg.Device, f.PCI)
		case now != b.Group:
			return fmt.Errorf("device %s: PCI function %s has moved from IOMMU group %s to %q since the claim was prepared; delete the pod to have a device allocated anew", s.cfg.Device, f.PCI, b.Group, now)
		}
	}
	return nil
}

// bound is nil if all functions are bound to vfio-pci.
func (s *Step) bound() error {
	for _, f := range s.cfg.Binding.Functions {
		if driver := s.cfg.Bus.driverOf(f.PCI); driver != Driver {
			return fmt.Errorf("device %s: PCI function %s is bound to %s and not to %s; somebody took it; prepare the claim again by deleting its pod", s.cfg.Device, f.PCI, driverName(driver), Driver)
		}
	}
	return nil
}

// home reports whether all functions are as they were.
func (s *Step) home(ctx context.Context) (bool, error) {
	for _, f := range s.cfg.Binding.Functions {
		if !s.cfg.Bus.present(f.PCI) {
			continue
		}
		if s.cfg.Bus.driverOf(f.PCI) != f.Driver {
			return false, nil
		}
		override, err := s.cfg.Bus.overrideOf(ctx, f.PCI)
		if err != nil {
			return false, fmt.Errorf("device %s: read what may be bound to PCI function %s: %w", s.cfg.Device, f.PCI, err)
		}
		if override != f.Override {
			return false, nil
		}
	}
	return true, nil
}

// unused is nil if no process has the device open by its driver's nodes.
func (s *Step) unused() error {
	self := s.cfg.Binding.Functions[0]
	if driver := s.cfg.Bus.driverOf(self.PCI); driver == "" || driver == Driver {
		return nil
	}
	users, err := s.cfg.Bus.users(s.cfg.Nodes)
	if err != nil {
		return fmt.Errorf("device %s: %w", s.cfg.Device, err)
	}
	if len(users) > 0 {
		return &InUseError{Device: s.cfg.Device, Processes: users}
	}
	return nil
}

func driverName(driver string) string {
	if driver == "" {
		return "no driver"
	}
	return driver
}
