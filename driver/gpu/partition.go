// PartitionStep brings one partition of a claim into being. It may have been
// interrupted at any instruction: between the GPU instance and its compute
// instance, between these and the caller's next line. So it never asks what it
// did, but what is there. Only the first attempt knows more: the place was empty
// when the claim was admitted, so that what it finds there is somebody else's.

package gpu

import (
	"context"
	"errors"
	"fmt"

	"k8s.io/klog/v2"

	"github.com/hostler-dev/hostler/topology"
)

// PartitionConfig describes one partition and how to get at it.
type PartitionConfig struct {
	// Name of the partition; GPU and PCI are its GPU's name and address.
	Name, GPU, PCI string
	// Profile is for people; ProfileID and Placement are what counts.
	Profile   string
	ProfileID int
	Placement topology.MIGPlacement
	// Static partitions existed before the claim was prepared and are not the claim's to remove.
	Static bool
	// OtherBoot says that the claim was prepared before the machine rebooted, which
	// removed all partitions: what is in the place now is somebody else's.
	OtherBoot bool
	// First says that nothing was begun for the claim yet.
	First bool

	Partitioner Partitioner
	// Gone returns why partitions of the GPU cannot exist any more ("it was
	// unplugged"), "" if they can. It is asked when the GPU does not answer.
	Gone func(gpu string) string
	// Silent returns why GPUs cannot be asked at present, though their partitions may
	// still exist ("the driver does not work"), "" if they can.
	Silent func() string
	// Changed is called after a partition was made or removed.
	Changed func()
}

// UnansweredError says that a partition may still exist: the driver that would
// have to remove it does not work. It is removed when the driver is back.
type UnansweredError struct {
	Partition, Reason string
	// Answer of the GPU.
	Answer error
}

func (e *UnansweredError) Error() string {
	return fmt.Sprintf("partition %s cannot be removed now (%s), and is when that has changed: %v", e.Partition, e.Reason, e.Answer)
}

// Unwrap returns what the GPU answered.
func (e *UnansweredError) Unwrap() error { return e.Answer }

// PartitionStep implements claim.Step.
type PartitionStep struct {
	cfg PartitionConfig
	// instance is known after Do; made says that Do made it and did not just read it.
	instance *topology.MIGInstance
	made     bool
}

// NewPartitionStep returns the step.
func NewPartitionStep(cfg PartitionConfig) *PartitionStep { return &PartitionStep{cfg: cfg} }

// Name implements claim.Step.
func (s *PartitionStep) Name() string { return "make GPU partition " + s.cfg.Name }

// Kind implements claim.Step.
func (s *PartitionStep) Kind() string { return "partition" }

// Instance is the GPU instance that Do found or made, nil before.
func (s *PartitionStep) Instance() *topology.MIGInstance { return s.instance }

// Made reports whether Do made the instance.
func (s *PartitionStep) Made() bool { return s.made }

// Do implements claim.Step. Errors of a first attempt match topology.ErrNothingMade
// if no part of the partition was made for the claim.
func (s *PartitionStep) Do(ctx context.Context) error {
	there, err := s.read(ctx)
	if err != nil {
		return s.unmade(err)
	}
	switch {
	case there != nil && s.cfg.First && !s.cfg.Static:
		return s.unmade(fmt.Errorf("%s was made by somebody else a moment ago; the kubelet tries again, and then takes it as it is", s.subject()))
	case there != nil && len(there.ComputeInstances) == 1:
		s.instance = there
		return nil
	case s.cfg.Static && there == nil:
		return fmt.Errorf("%s was there when the claim was planned and is not any more; somebody removed it; the kubelet tries again", s.subject())
	case there != nil && (s.cfg.Static || len(there.ComputeInstances) > 1):
		return fmt.Errorf("%s is cut into %d compute instances; only one that is whole can be given to a pod", s.subject(), len(there.ComputeInstances))
	case there != nil:
		// Ours, and an earlier attempt ended between its two halves.
		if err := s.destroy(ctx, there); err != nil {
			return err
		}
	}
	made, err := s.cfg.Partitioner.CreatePartition(ctx, s.cfg.PCI, s.cfg.ProfileID, s.cfg.Placement)
	if err != nil {
		return fmt.Errorf("%s cannot be made: %w", s.subject(), err)
	}
	klog.FromContext(ctx).V(2).Info("Made a GPU partition", "device", s.cfg.Name, "profile", s.cfg.Profile, "gpuInstance", made.GPUInstance)
	s.instance, s.made = &made, true
	s.cfg.Changed()
	return nil
}

// unmade is for errors from before anything was made by this step.
func (s *PartitionStep) unmade(err error) error {
	if s.cfg.First {
		return fmt.Errorf("%w: %w", topology.ErrNothingMade, err)
	}
	return err
}

// Verify implements claim.Step. It follows Do at once, so that what Do has read it
// need not read again.
func (s *PartitionStep) Verify(ctx context.Context) error {
	if s.instance != nil && !s.made {
		return nil
	}
	there, err := s.read(ctx)
	switch {
	case err != nil:
		return err
	case there == nil || s.instance == nil || there.GPUInstance != s.instance.GPUInstance || len(there.ComputeInstances) != 1:
		return fmt.Errorf("%s is not there as it was made; something else changes the partitions of this GPU", s.subject())
	}
	return nil
}

// Undo implements claim.Step. It returns an UnansweredError if the partition may
// still exist and nobody can tell now.
func (s *PartitionStep) Undo(ctx context.Context) error {
	if s.cfg.Static || s.cfg.OtherBoot {
		return nil
	}
	err := s.remove(ctx)
	if err == nil {
		return nil
	}
	// A pod must not hang in its termination for the sake of a GPU that has to be
	// reset anyway: that removes its partitions.
	if reason := s.cfg.Gone(s.cfg.GPU); reason != "" {
		klog.FromContext(ctx).Info("Taking a GPU partition for gone with its GPU", "device", s.cfg.Name, "reason", reason, "answer", err.Error())
		return nil
	}
	if reason := s.cfg.Silent(); reason != "" {
		return &UnansweredError{Partition: s.cfg.Name, Reason: reason, Answer: err}
	}
	return err
}

func (s *PartitionStep) remove(ctx context.Context) error {
	there, err := s.read(ctx)
	if err != nil || there == nil {
		return err
	}
	return s.destroy(ctx, there)
}

func (s *PartitionStep) read(ctx context.Context) (*topology.MIGInstance, error) {
	if s.cfg.Partitioner == nil {
		return nil, errors.New("this agent runs without access to GPU partitions")
	}
	there, err := s.cfg.Partitioner.Partition(ctx, s.cfg.PCI, s.cfg.ProfileID, s.cfg.Placement)
	if err != nil {
		return nil, fmt.Errorf("look for %s: %w", s.subject(), err)
	}
	return there, nil
}

func (s *PartitionStep) destroy(ctx context.Context, there *topology.MIGInstance) error {
	if err := s.cfg.Partitioner.DestroyPartition(ctx, s.cfg.PCI, there.GPUInstance); err != nil {
		return fmt.Errorf("%s (GPU instance %d) cannot be removed: %w; the kubelet tries again", s.subject(), there.GPUInstance, err)
	}
	klog.FromContext(ctx).V(2).Info("Removed a GPU partition", "device", s.cfg.Name, "profile", s.cfg.Profile, "gpuInstance", there.GPUInstance)
	s.cfg.Changed()
	return nil
}

func (s *PartitionStep) subject() string {
	return fmt.Sprintf("partition %s (%s) of GPU %s", s.cfg.Name, s.cfg.Profile, s.cfg.GPU)
}
