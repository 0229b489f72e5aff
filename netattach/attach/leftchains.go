package attach

// Chains of which there is no record any more: a reboot takes the records, which lie on
// a tmpfs, and one that could not be undone does not keep its claim's.

import (
	"context"
	"slices"

	"k8s.io/apimachinery/pkg/types"

	"github.com/hostler-dev/hostler/netattach/multus"
)

// collectChains undoes them.
func (a *Attacher) collectChains(ctx context.Context) error {
	return a.chain.Collect(ctx, &keeper{attacher: a})
}

// keeper knows the attachments of which there are records.
type keeper struct {
	attacher *Attacher
	// records as they were when they were last listed.
	records []Record
	listed  bool
}

var _ multus.Keeper = (*keeper)(nil)

func (k *keeper) Keeps(sandboxID string, claim types.UID) (bool, error) {
	if !k.listed {
		records, err := k.attacher.records.list()
		if err != nil {
			return false, err
		}
		k.records, k.listed = records, true
	}
	return slices.ContainsFunc(k.records, func(r Record) bool {
		return r.SandboxID == sandboxID && (claim == "" || r.Intent.ClaimUID == claim)
	}), nil
}

func (k *keeper) Take(ctx context.Context, pod types.UID) (leave func(), err error) {
	leave, err = k.attacher.turns.take(ctx, pod, "undoing CNI chains that were left of it")
	k.listed = false
	return leave, err
}
