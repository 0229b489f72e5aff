package attach

// CNI's CHECK for what an earlier agent attached. While no agent was there, something may
// have changed what plugins made on the node or in the pod, and only they know what that
// was. What they find is told and nothing is taken from the pod, whose containers may be
// doing well without it; it is asked again until it is mended or gone.

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"

	"github.com/hostler-dev/hostler/netattach"
	"github.com/hostler-dev/hostler/netattach/link"
	"github.com/hostler-dev/hostler/netattach/multus"
)

// adopted are the attachments that were there when the agent began, and whose plugins
// have not said yet that all is well.
type adopted struct {
	mutex sync.Mutex
	all   map[adoption]bool
}

type adoption struct {
	claim, pod types.UID
	sandboxID  string
}

// adopt is for the beginning.
func (a *Attacher) adopt() error {
	records, err := a.records.list()
	if err != nil {
		return err
	}
	a.adopted.all = map[adoption]bool{}
	for _, r := range records {
		if r.State == StateAttached && r.BootID == a.records.bootID && hasChains(r.Intent) {
			a.adopted.all[adoption{r.Intent.ClaimUID, r.Pod.UID, r.SandboxID}] = true
		}
	}
	return nil
}

// CheckAdopted asks the plugins of adopted attachments, one after the other, which may
// take long: nothing should wait for it. Its error is that they could not be asked.
func (a *Attacher) CheckAdopted(ctx context.Context) error {
	a.adopted.mutex.Lock()
	all := slices.Collect(maps.Keys(a.adopted.all))
	a.adopted.mutex.Unlock()
	slices.SortFunc(all, func(x, y adoption) int {
		return strings.Compare(string(x.claim)+"/"+string(x.pod), string(y.claim)+"/"+string(y.pod))
	})
	var faults []error
	for _, one := range all {
		done, err := a.checkOne(ctx, one)
		if done && ctx.Err() == nil {
			a.adopted.mutex.Lock()
			delete(a.adopted.all, one)
			a.adopted.mutex.Unlock()
		}
		faults = append(faults, err)
	}
	return errors.Join(faults...)
}

// checkOne reports whether there is nothing to ask any more. Plugins take their time, so
// it is in the pod's turn only to write down what they said.
func (a *Attacher) checkOne(ctx context.Context, one adoption) (done bool, err error) {
	record, found, err := a.records.read(one.claim, one.pod)
	if err != nil || !found || !one.is(record) {
		return err == nil, err
	}
	said, err := a.ask(ctx, record)
	if err != nil || ctx.Err() != nil {
		return false, err
	}
	leave, err := a.turns.take(ctx, one.pod, "writing down what CNI plugins found of "+claimOf(record))
	if err != nil {
		return false, err
	}
	defer leave()
	if record, found, err = a.records.read(one.claim, one.pod); err != nil || !found || !one.is(record) {
		return err == nil, err // what they missed was being taken back
	}
	told := strings.Join(slices.DeleteFunc(slices.Clone(said.words), func(s string) bool { return s == "" }), "; ")
	if !said.into(&record) {
		return told == "", nil
	}
	if err := a.records.write(record); err != nil {
		return false, err
	}
	klog.FromContext(ctx).Info("CNI plugins were asked for what they made for a pod", "pod", klog.KRef(record.Pod.Namespace, record.Pod.Name), "claim", klog.KRef(record.Intent.ClaimNamespace, record.Intent.ClaimName), "wrong", told)
	if a.cfg.Checked != nil {
		a.cfg.Checked(record.Pod, one.claim, told)
	}
	return told == "", nil
}

func (o adoption) is(record Record) bool {
	return record.SandboxID == o.sandboxID && record.State == StateAttached
}

// answers are what the plugins said, "" for nothing, of the chains in the order in which they were run.
type answers struct {
	chains []chain
	words  []string
}

// into reports whether the record said otherwise.
func (s answers) into(record *Record) (changed bool) {
	at := map[int]int{} // of each device its chains are in this order, too
	for i, c := range s.chains {
		position := at[c.device]
		at[c.device]++
		if c.device >= len(record.Devices) || position >= len(record.Devices[c.device].Networks) {
			continue
		}
		network := &record.Devices[c.device].Networks[position]
		changed = changed || network.Fault != s.words[i]
		network.Fault = s.words[i]
	}
	return changed
}

func (a *Attacher) ask(ctx context.Context, record Record) (answers, error) {
	said := answers{chains: chainsOf(record.Intent)}
	said.words = make([]string, len(said.chains))
	namespace, alive, err := record.open()
	if err != nil || !alive {
		return said, err
	}
	defer namespace.Close()
	routed, err := a.setsDefaultRoute(record.Pod.UID)
	if err != nil {
		return said, err
	}
	for i, c := range said.chains {
		device := record.Intent.Devices[c.device]
		attachment := c.attachment(record.Intent, record.Pod, record.SandboxID, namespace.path(record.NetNS))
		promiscuous, err := link.Promiscuous(namespace.descriptor, attachment.InterfaceName())
		if err != nil {
			return said, err
		}
		altered := multus.Altered{DefaultRoutes: routed, HardwareAddress: device.HardwareAddress != "", Promiscuous: promiscuous}
		if err := a.chain.Check(ctx, attachment, altered); err != nil {
			said.words[i] = fmt.Sprintf("device %s: %v", device.Device, err)
		}
	}
	return said, nil
}

// setsDefaultRoute reports whether the agent has taken default routes out of the pod.
func (a *Attacher) setsDefaultRoute(pod types.UID) (bool, error) {
	records, err := a.records.list()
	if err != nil {
		return false, err
	}
	sets := func(n netattach.NetworkIntent) bool { return len(n.DefaultRoute) > 0 }
	return slices.ContainsFunc(records, func(r Record) bool {
		return r.Pod.UID == pod && slices.ContainsFunc(r.Intent.Devices, func(d netattach.DeviceIntent) bool { return slices.ContainsFunc(d.Networks, sets) })
	}), nil
}
