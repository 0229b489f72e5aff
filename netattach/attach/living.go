package attach

// Which pods have a sandbox now, by the runtime's word. A network namespace tells
// that of the pods that have one of their own; of pods on the host's network the
// runtime knows, and says so while its NRI is connected. While it is not, see InUse.

import (
	"slices"
	"strings"
	"sync"

	"k8s.io/apimachinery/pkg/types"

	"github.com/hostler-dev/hostler/netattach"
)

// Living is the set of sandboxes that live. Its zero value knows nothing yet.
type Living struct {
	// Left, if set, is called when sandboxes have ended, or may have while nobody told.
	// It must not block, and is set before anything is told.
	Left func()

	mu sync.Mutex
	// known is false from the end of a connection until the next one's list of sandboxes.
	known bool
	pods  map[types.UID]map[string]bool
}

// Are says that these are all sandboxes that live.
func (l *Living) Are(sandboxes []Sandbox) {
	defer l.left()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.known, l.pods = true, map[types.UID]map[string]bool{}
	for _, s := range sandboxes {
		l.add(s.Pod.UID, s.ID)
	}
}

// Forget says that nobody tells any more who has ended.
func (l *Living) Forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.known = false
}

// Began says that the sandbox lives.
func (l *Living) Began(sandbox Sandbox) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.add(sandbox.Pod.UID, sandbox.ID)
}

// Ended says that the sandbox does not live any more.
func (l *Living) Ended(sandbox Sandbox) {
	defer l.left()
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.pods[sandbox.Pod.UID], sandbox.ID)
	if len(l.pods[sandbox.Pod.UID]) == 0 {
		delete(l.pods, sandbox.Pod.UID)
	}
}

func (l *Living) left() {
	if l.Left != nil {
		l.Left()
	}
}

func (l *Living) add(pod types.UID, sandbox string) {
	if l.pods == nil {
		l.pods = map[types.UID]map[string]bool{}
	}
	if l.pods[pod] == nil {
		l.pods[pod] = map[string]bool{}
	}
	l.pods[pod][sandbox] = true
}

// String lists the pods, or says that they are unknown, for logs.
func (l *Living) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.known {
		return "unknown"
	}
	var pods []string
	for pod := range l.pods {
		pods = append(pods, string(pod))
	}
	slices.Sort(pods)
	return strings.Join(pods, " ")
}

// any reports whether one of the pods has a sandbox that lives, if that is known.
func (l *Living) any(pods []netattach.PodReference) (lives, known bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.ContainsFunc(pods, func(p netattach.PodReference) bool { return len(l.pods[p.UID]) > 0 }), l.known
}
