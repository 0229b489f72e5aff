// Claims that nobody wants any more, while a pod of theirs that was deleted with force
// still runs. The kubelet unprepares them in time: it looks for such claims once a
// minute (defaultReconcilePeriod in k8s.io/kubernetes/pkg/kubelet/cm/dra). The devices
// are free from the moment when the last sandbox ends, and whoever hears of that
// need not wait.

package claim

import "k8s.io/apimachinery/pkg/types"

// Orphans reports whether the last reconciliation left such claims. When one of their
// sandboxes has ended, another reconciliation releases them.
func (r *Runner) Orphans() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.orphans) > 0
}

func (r *Runner) orphaned(claim types.UID, orphan bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if orphan {
		r.orphans[claim] = true
	} else {
		delete(r.orphans, claim)
	}
}
