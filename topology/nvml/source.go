// A Source is NVML for the life of an agent: it opens a Session when the driver
// is there, closes it when the driver goes away, and opens the next one when it is
// back. Everyone who measures or judges GPUs shares one Source.

package nvml

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"k8s.io/klog/v2"

	"github.com/hostler-dev/hostler/topology"
)

// Source implements topology.GPUReader.
type Source struct {
	open func() (*Session, error)
	// installed identifies the library file that would be opened now, "" if there is none.
	installed func() string

	opening sync.Mutex // one attempt at a time, and no reader of session waits for it
	mu      sync.Mutex
	session *Session
	reason  error // why there is no session
	hints   map[*hint]struct{}
	traffic traffic
	// interrupt is closed when a pause begins, for those who watch; nil while nobody does.
	interrupt chan struct{}
}

// NewSource makes a source; the first read opens the driver.
func NewSource(cfg Config) *Source {
	return &Source{
		open: func() (*Session, error) { return Open(cfg) }, installed: func() string { return installedLibrary(cfg) },
		reason: errNotOpened, hints: map[*hint]struct{}{},
	}
}

var errNotOpened = fmt.Errorf("NVML was not opened yet: %w", topology.ErrDriverMissing)

// ReadGPUs reads all GPUs, opening the driver if necessary. What is wrong with
// the driver is in its state.
func (s *Source) ReadGPUs(ctx context.Context) (topology.Driver, []topology.GPU, []topology.Problem) {
	leave, err := s.enter(ctx)
	if err != nil {
		return driverWithout(err), nil, nil
	}
	defer leave()
	var last error
	for range 2 { // the second time round with a new session, after the first found the driver reloaded
		session, err := s.ensure(ctx)
		if err != nil {
			return driverWithout(err), nil, nil
		}
		gpus, problems, err := session.GPUs(ctx)
		if err == nil {
			return session.Driver(), gpus, problems
		}
		last = err
		if !errors.Is(err, ErrDriverGone) {
			break
		}
		s.drop(ctx, session, err)
	}
	return driverWithout(last), nil, nil
}

// driverWithout words the state of a driver that does not work.
func driverWithout(err error) topology.Driver {
	state := topology.DriverFailed
	if errors.Is(err, topology.ErrDriverMissing) {
		state = topology.DriverMissing
	}
	return topology.Driver{State: state, Message: err.Error()}
}

// ensure returns the session, opening one if there is none.
func (s *Source) ensure(ctx context.Context) (*Session, error) {
	s.opening.Lock()
	defer s.opening.Unlock()
	if session, _ := s.current(); session != nil {
		return session, nil
	}
	session, err := s.open()
	s.mu.Lock()
	s.session, s.reason = session, err
	s.mu.Unlock()
	if err != nil {
		return nil, err
	}
	driver := session.Driver()
	klog.FromContext(ctx).Info("Opened the NVIDIA driver", "version", driver.Version, "cuda", driver.CUDAVersion, "library", driver.Library)
	return session, nil
}

func (s *Source) current() (*Session, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.session, s.reason
}

// drop forgets a session whose driver went away, unless another has replaced it already.
func (s *Source) drop(ctx context.Context, session *Session, reason error) {
	s.mu.Lock()
	ours := s.session == session
	if ours {
		s.session, s.reason = nil, reason
	}
	s.mu.Unlock()
	if !ours {
		return
	}
	s.hint()
	klog.FromContext(ctx).Info("The NVIDIA driver went away; it is opened again when it is back", "reason", reason.Error())
	if err := session.Close(); err != nil && !errors.Is(err, ErrDriverGone) {
		klog.FromContext(ctx).Error(err, "Closing NVML failed")
	}
}

// Session is the open session, nil while the driver is not there.
func (s *Source) Session() *Session {
	session, _ := s.current()
	return session
}

// Sample measures a GPU, see Session.Sample. Without a driver the error says why.
// During a pause it is ErrPaused.
func (s *Source) Sample(ctx context.Context, pci string) (Sample, error) {
	leave, _ := s.tryEnter()
	if leave == nil {
		return Sample{}, ErrPaused
	}
	defer leave()
	session, err := s.current()
	if session == nil {
		return Sample{}, err
	}
	return session.Sample(ctx, pci)
}

// Probe examines a GPU, see Session.Probe. Without a driver the error says why.
// During a pause it is ErrPaused.
func (s *Source) Probe(ctx context.Context, pci string) (Probe, error) {
	leave, _ := s.tryEnter()
	if leave == nil {
		return Probe{Silent: true, RecoveryAction: RecoveryUnknown, Err: ErrPaused}, ErrPaused
	}
	defer leave()
	session, err := s.current()
	if session == nil {
		return Probe{Silent: true, RecoveryAction: RecoveryUnknown, Err: err}, err
	}
	return session.Probe(ctx, pci)
}

// WatchEvents delivers the events of the current session, see Session.WatchEvents.
// It returns when the session ends or is paused, or at once without a driver: call it again.
func (s *Source) WatchEvents(ctx context.Context, deliver func(Event)) error {
	ctx, leave, err := s.watching(ctx)
	if err != nil {
		return nil // ctx is done
	}
	defer leave()
	session, err := s.current()
	if session == nil {
		return err
	}
	err = session.WatchEvents(ctx, deliver)
	if ctx.Err() != nil {
		return nil // whatever the end of the watch cut short
	}
	if errors.Is(err, ErrDriverGone) {
		s.drop(ctx, session, err)
	}
	return err
}

// Partition looks for a MIG device, see Session.Partition, opening the driver if
// necessary: the kubelet may ask for a claim to be undone before the first poll.
func (s *Source) Partition(ctx context.Context, pci string, profileID int, place topology.MIGPlacement) (*topology.MIGInstance, error) {
	leave, err := s.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	session, err := s.ensure(ctx)
	if err != nil {
		return nil, err
	}
	found, err := session.Partition(ctx, pci, profileID, place)
	if errors.Is(err, ErrDriverGone) {
		s.drop(ctx, session, err)
	}
	return found, err
}

// CreatePartition makes a MIG device, see Session.CreatePartition, and has the
// machine observed anew. Without a driver the error says why.
func (s *Source) CreatePartition(ctx context.Context, pci string, profileID int, place topology.MIGPlacement) (topology.MIGInstance, error) {
	leave, err := s.enter(ctx)
	if err != nil {
		return topology.MIGInstance{}, fmt.Errorf("%w: %w", topology.ErrNothingMade, err)
	}
	defer leave()
	session, err := s.current()
	if session == nil {
		return topology.MIGInstance{}, fmt.Errorf("%w: %w", topology.ErrNothingMade, err)
	}
	defer s.hint() // a failure may have changed something too
	return session.CreatePartition(ctx, pci, profileID, place)
}

// DestroyPartition removes a MIG device, see Session.DestroyPartition, and has the
// machine observed anew. Without a driver the error says why.
func (s *Source) DestroyPartition(ctx context.Context, pci string, gpuInstance int) error {
	leave, err := s.enter(ctx)
	if err != nil {
		return err
	}
	defer leave()
	session, err := s.current()
	if session == nil {
		return err
	}
	defer s.hint()
	return session.DestroyPartition(ctx, pci, gpuInstance)
}

// Close ends the session, if one is open.
func (s *Source) Close() error {
	s.mu.Lock()
	session := s.session
	s.session, s.reason = nil, errNotOpened
	s.mu.Unlock()
	if session == nil {
		return nil
	}
	return session.Close()
}
