package link

// The host's namespace, open as long as the agent lives, and those of pods, open as
// long as somebody works in them.

import (
	"fmt"
	"sync"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// HostConfig says which namespace is the host's.
type HostConfig struct {
	// Namespace is a descriptor of it, which the caller keeps open. Default: the
	// process's own.
	Namespace *int
}

// Host is the host's network namespace.
type Host struct {
	namespace int
	own       bool
	spaces    spaces
	mutex     sync.Mutex
	// here is the host's space, open from its first use on.
	here *space
}

// NewHost opens the host's namespace.
func NewHost(cfg HostConfig) (*Host, error) {
	if cfg.Namespace != nil {
		return &Host{namespace: *cfg.Namespace}, nil
	}
	namespace, err := netns.GetFromPid(unix.Getpid())
	if err != nil {
		return nil, fmt.Errorf("cannot open the host's network namespace: %w", err)
	}
	return &Host{namespace: int(namespace), own: true}, nil
}

// enter opens the host's space, and keeps it open for the calls to come.
func (h *Host) enter() (*space, error) {
	h.mutex.Lock()
	defer h.mutex.Unlock()
	if h.here == nil {
		here, err := h.spaces.enter(h.namespace)
		if err != nil {
			return nil, err
		}
		h.here = here
	}
	return h.spaces.enter(h.namespace)
}

// Close releases the namespace that NewHost opened.
func (h *Host) Close() error {
	h.mutex.Lock()
	defer h.mutex.Unlock()
	if h.here != nil {
		h.here.Close()
		h.here = nil
	}
	if h.own {
		return unix.Close(h.namespace)
	}
	return nil
}

// Hold keeps a pod's namespace open for the calls to come, which would otherwise
// open it one by one. The caller keeps the descriptor open until it calls release.
func (h *Host) Hold(pod int) (release func(), err error) {
	there, err := h.spaces.enter(pod)
	if err != nil {
		return nil, err
	}
	return there.Close, nil
}

// Inode tells the host's namespace from others.
func (h *Host) Inode() (uint64, error) {
	var stat unix.Stat_t
	if err := unix.Fstat(h.namespace, &stat); err != nil {
		return 0, fmt.Errorf("cannot look at the host's network namespace: %w", err)
	}
	return stat.Ino, nil
}
