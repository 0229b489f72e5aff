package nri

// What the runtime did while no plugin was connected. Pods that started then met
// the gate, but only with the containers that name their claims: the others run
// in a network namespace without rules. So every sandbox that lives is attached
// when the connection stands, in the background, because the runtime starts no
// pod while it waits for a plugin to synchronize.

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/containerd/nri/pkg/api"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"

	"github.com/hostler-dev/hostler/netattach/attach"
)

// patience bounds the attachment of one sandbox that was missed.
const patience = 30 * time.Second

// Synchronize comes with each connection and names the sandboxes that run.
func (p *plugin) Synchronize(_ context.Context, pods []*api.PodSandbox, containers []*api.Container) ([]*api.ContainerUpdate, error) {
	running := alive(pods, containers)
	p.cfg.Living.Are(running)
	klog.FromContext(p.ctx).Info("Connected to the container runtime's NRI", "socket", p.cfg.Socket, "sandboxes", len(pods))
	living := p.missed.list(pods, running)
	p.background.Go(func() { p.catchUp(living) })
	// The runtime calls hooks of a plugin once it is synchronized, not before.
	p.cfg.Ready(true)
	return nil, nil
}

// alive are the sandboxes that have a process: the runtime lists those that have
// ended and are not removed yet, too. Containers that have ended it does not
// list. One that tells no sandbox's process is taken at its word.
func alive(pods []*api.PodSandbox, containers []*api.Container) []attach.Sandbox {
	running := map[string]bool{}
	for _, container := range containers {
		running[container.GetPodSandboxId()] = true
	}
	tells := slices.ContainsFunc(pods, func(pod *api.PodSandbox) bool { return pod.GetPid() > 0 })
	var living []attach.Sandbox
	for _, pod := range pods {
		if !tells || pod.GetPid() > 0 || running[pod.GetId()] {
			living = append(living, sandboxOf(pod))
		}
	}
	return living
}

// catchUp dissolves what ended unseen, then attaches what lives.
func (p *plugin) catchUp(living []*sandbox) {
	log := klog.FromContext(p.ctx)
	if err := p.cfg.Attacher.Reconcile(p.ctx); err != nil && p.ctx.Err() == nil {
		log.Error(err, "Not everything that was attached could be reconciled")
	}
	for _, s := range living {
		if p.ctx.Err() != nil {
			return
		}
		ctx, cancel := context.WithTimeout(p.ctx, patience)
		err := s.unlessSuperseded(ctx, func(ctx context.Context) error { return p.cfg.Attacher.AttachMissed(ctx, s.Sandbox) })
		cancel()
		switch {
		case errors.Is(err, errSuperseded):
			log.V(2).Info("Left a running pod to the hook that came for it", "pod", klog.KRef(s.Pod.Namespace, s.Pod.Name), "sandbox", s.ID, "reason", err.Error())
		case err != nil:
			log.Error(err, "A running pod does not have what its claims say; delete it if it does not recover", "pod", klog.KRef(s.Pod.Namespace, s.Pod.Name), "sandbox", s.ID)
		}
	}
}

// missed are the sandboxes that a synchronization listed, by pod.
type missed struct {
	mutex sync.Mutex
	pods  map[types.UID]*sandbox
}

// sandbox is one of them, until a hook knows better.
type sandbox struct {
	attach.Sandbox
	mutex      sync.Mutex
	superseded bool
	// cancel ends its attachment if that is under way.
	cancel context.CancelCauseFunc
}

// errSuperseded ends the attachment of a sandbox for whose pod a hook has come.
var errSuperseded = errors.New("a hook has come for the pod meanwhile")

// list leaves out pods on the host's network, which the gate records, and pods
// with two sandboxes of which not exactly one is known to be running: which one lives,
// the next hook or the gate says.
func (m *missed) list(pods []*api.PodSandbox, running []attach.Sandbox) []*sandbox {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	m.pods = map[types.UID]*sandbox{}
	runs := func(s *sandbox) bool {
		return slices.ContainsFunc(running, func(r attach.Sandbox) bool { return r.ID == s.ID })
	}
	var living []*sandbox
	for _, pod := range pods {
		s := &sandbox{Sandbox: sandboxOf(pod)}
		if s.NetNS == "" {
			continue
		}
		twin, twice := m.pods[s.Pod.UID]
		if twice && (runs(twin) || !runs(s)) {
			twin.superseded = twin.superseded || runs(twin) == runs(s)
			continue
		}
		if twice {
			twin.superseded = true
		}
		m.pods[s.Pod.UID] = s
		living = append(living, s)
	}
	return living
}

// supersede says that a hook has come for the pod's sandbox: a listed one that it
// names has ended, and so has any other if it has begun. What is under way for the
// listed one ends, and the hook need not wait for that.
func (m *missed) supersede(pod types.UID, id string, begun bool) {
	m.mutex.Lock()
	s := m.pods[pod]
	if s == nil || s.ID != id && !begun {
		m.mutex.Unlock()
		return
	}
	delete(m.pods, pod)
	m.mutex.Unlock()
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.superseded = true
	if s.cancel != nil {
		s.cancel(errSuperseded)
	}
}

func (s *sandbox) unlessSuperseded(ctx context.Context, attach func(context.Context) error) error {
	s.mutex.Lock()
	if s.superseded {
		s.mutex.Unlock()
		return nil
	}
	ctx, s.cancel = context.WithCancelCause(ctx)
	s.mutex.Unlock()
	defer s.cancel(nil)
	return attach(ctx)
}
