// A Session is one nvmlInit. It remembers each GPU by PCI address: its handle,
// its lane, and what was last read of it, which is all that remains
// knowable once the GPU has fallen off the bus.

package nvml

import (
	"cmp"
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/NVIDIA/go-nvml/pkg/nvml"

	"github.com/hostler-dev/hostler/topology"
)

// DefaultCallTimeout is long against NVML's slowest healthy answers (some
// 100 ms after a GPU woke up) and short against a driver that is stuck.
const DefaultCallTimeout = 2 * time.Second

// Config says where the driver is.
type Config struct {
	// LibraryPath of libnvidia-ml.so.1; "" searches DriverRoot.
	LibraryPath string
	// DriverRoot is where the driver's files are seen from here; "" is "/".
	DriverRoot string
	// CallTimeout is the deadline of one NVML call, 0 is DefaultCallTimeout.
	CallTimeout time.Duration
}

// Session is an initialised NVML. Its methods may be called concurrently.
type Session struct {
	api     nvml.Interface
	has     func(symbol string) bool
	timeout time.Duration
	system  *lane // calls that concern no single GPU
	driver  topology.Driver
	// audience is told of events.
	audience audience

	mu    sync.Mutex
	slots map[int]*lane      // by NVML index: finding out who sits there
	gpus  map[string]*device // by canonical PCI address
}

// device is a GPU that NVML has listed at least once.
type device struct {
	pci  string
	lane *lane

	mu       sync.Mutex // never held during a call
	handle   nvml.Device
	known    topology.GPU // the last good reading
	complete bool         // the attributes that never change were all read
	// profiles of MIG, nil while the mode is off or they were not all read.
	profiles []gpuInstanceProfile
	nvlinks  [nvml.NVLINK_MAX_LINKS]nvlinkPort
}

// Open finds, loads and initialises NVML. Errors match ErrLibraryMissing,
// ErrLibraryTooOld, ErrLibraryReplaced, ErrHung or ErrDriverGone.
func Open(cfg Config) (*Session, error) {
	path, err := findLibrary(cfg)
	if err != nil {
		return nil, err
	}
	has, system, err := pinLibrary(path, cmp.Or(cfg.CallTimeout, DefaultCallTimeout))
	if err != nil {
		return nil, err
	}
	s := newSession(nvml.New(nvml.WithLibraryPath(path)), has, cfg.CallTimeout)
	s.system = system
	if err := s.initialise(path); err != nil {
		return nil, err
	}
	return s, nil
}

// newSession wraps any implementation of NVML; tests pass go-nvml's mock.
func newSession(api nvml.Interface, has func(string) bool, timeout time.Duration) *Session {
	timeout = cmp.Or(timeout, DefaultCallTimeout)
	return &Session{
		api: api, has: has, timeout: timeout, system: newLane("NVML", timeout),
		slots: map[int]*lane{}, gpus: map[string]*device{},
	}
}

func (s *Session) initialise(path string) error {
	ctx := context.Background() // every call is bounded by the lane's deadline
	if _, err := call(ctx, s.system, "nvmlInit_v2", func() (struct{}, nvml.Return) { return struct{}{}, s.api.Init() }); err != nil {
		return fmt.Errorf("initialise the NVIDIA driver through %s: %w; check on the host that nvidia-smi works", path, err)
	}
	version, err := call(ctx, s.system, "nvmlSystemGetDriverVersion", s.api.SystemGetDriverVersion)
	if err != nil {
		return fmt.Errorf("ask %s for the driver's version: %w", path, err)
	}
	s.driver = topology.Driver{State: topology.DriverReady, Version: clean(version), Library: path}
	if s.has("nvmlSystemGetCudaDriverVersion_v2") {
		// 12080 means 12.8. A driver that does not say leaves the version empty.
		if cuda, err := call(ctx, s.system, "nvmlSystemGetCudaDriverVersion_v2", s.api.SystemGetCudaDriverVersion_v2); err == nil && cuda > 0 {
			s.driver.CUDAVersion = fmt.Sprintf("%d.%d", cuda/1000, cuda%1000/10)
		}
	}
	return nil
}

// Driver describes the driver as it was when the session was opened.
func (s *Session) Driver() topology.Driver { return s.driver }

// Close ends the session. The library stays mapped. If the driver does not
// answer, the error is ErrHung and the session is abandoned.
func (s *Session) Close() error {
	_, err := call(context.Background(), s.system, "nvmlShutdown", func() (struct{}, nvml.Return) { return struct{}{}, s.api.Shutdown() })
	if err != nil {
		return fmt.Errorf("close the NVML session: %w", err)
	}
	return nil
}

// device returns what the session knows of the GPU at a canonical PCI address,
// enumerating once if it has not been seen yet.
func (s *Session) device(ctx context.Context, pci string) (*device, error) {
	if d := s.lookup(pci); d != nil {
		return d, nil
	}
	if _, _, err := s.enumerate(ctx); err != nil {
		return nil, err
	}
	if d := s.lookup(pci); d != nil {
		return d, nil
	}
	return nil, fmt.Errorf("GPU %s: %w", pci, ErrUnknownGPU)
}

func (s *Session) lookup(pci string) *device {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.gpus[pci]
}
