package attach

// Who still uses a claim that nobody wants any more: a pod that was deleted with
// force runs on until its sandbox ends. Of a pod with a network namespace of its
// own that tells. Of one on the host's network the runtime tells while its NRI is
// connected, and where it is not, or has none, the node's processes do: a pod
// that has none has nothing open, and each container that it may start again
// needs the claim's CDI spec and passes the gate.

import (
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/types"

	"github.com/hostler-dev/hostler/netattach"
)

// Running says of a pod whether a process of it is there.
type Running func(pod types.UID) bool

// InUse reports whether a sandbox of one of the claim's pods still lives. Its
// error says that it cannot be told, and then the claim waits for the runtime's
// word, the kubelet's, or `hostler release`.
//
// A pod that no record is of has no container that uses the claim: each of them
// passes the gate, which makes a record.
func (a *Attacher) InUse(claim types.UID) (bool, error) {
	records, err := a.records.list()
	if err != nil {
		return false, err
	}
	intent, _ := a.cfg.Intents.Intent(claim)
	pods := slices.Clone(intent.Pods)
	var untold []Record
	for _, record := range records {
		if record.Intent.ClaimUID != claim || record.BootID != a.records.bootID || record.State == StateDetached {
			continue
		}
		pods = append(pods, record.Pod)
		namespace, alive, err := record.open()
		if err != nil {
			return false, err
		}
		if alive {
			return true, namespace.Close()
		}
		if record.NetNS == "" {
			untold = append(untold, record)
		}
	}
	if a.cfg.Living == nil {
		return false, nil
	}
	if lives, known := a.cfg.Living.any(pods); known {
		return lives, nil
	}
	if len(untold) == 0 {
		return false, nil
	}
	running, err := a.running()
	if err != nil {
		first := untold[0]
		return false, fmt.Errorf("claim %s/%s is not wanted any more, but pod %s/%s is on the host's network and may still use it: the container runtime's NRI, which would tell, is not connected, and %w; check that NRI is enabled and paths.nri is its socket, or run `hostler release` with the agent stopped", first.Intent.ClaimNamespace, first.Intent.ClaimName, first.Pod.Namespace, first.Pod.Name, err)
	}
	return slices.ContainsFunc(untold, func(r Record) bool { return running(r.Pod.UID) }), nil
}

// running asks the kernel.
func (a *Attacher) running() (Running, error) {
	if a.cfg.Running == nil {
		return nil, fmt.Errorf("nobody looks at the node's processes")
	}
	return a.cfg.Running()
}

// ended reports whether the record is of a pod on the host's network that has no
// sandbox any more, by the runtime's word, or no process.
func (a *Attacher) ended(record Record) bool {
	if record.NetNS != "" || a.cfg.Living == nil {
		return false
	}
	if lives, known := a.cfg.Living.any([]netattach.PodReference{record.Pod}); known {
		return !lives
	}
	running, err := a.running()
	return err == nil && !running(record.Pod.UID)
}
