package attach

// How devices are known in their pods. The workload reads it in a file that the
// driver writes, and is promised that it is there when its containers start: so it
// is on record before the attachment is complete, and one of which the driver
// could not tell its pod is not completed.

import (
	"context"
	"fmt"

	"k8s.io/apimachinery/pkg/types"

	"github.com/hostler-dev/hostler/netattach"
)

// tell records the devices as they are in the pod now and has the driver told. Of claims
// that are complete that was done when they became so: their containers run, and what
// has changed in the pod since is no reason to take anything from them, nor from others.
func (r *run) tell(ctx context.Context) error {
	for _, intent := range r.intents {
		if len(intent.Devices) == 0 || r.complete[intent.ClaimUID] {
			continue
		}
		var states []netattach.DeviceState
		for i, device := range intent.Devices {
			state, err := stateOf(r.namespace.descriptor, device)
			if err != nil {
				return err
			}
			state.Pool, state.Request, state.ShareID = device.Pool, device.Request, device.ShareID
			if state.Networks, err = r.promises(device, r.networks[deviceKey{intent.ClaimUID, i}]); err != nil {
				return err
			}
			states = append(states, state)
		}
		r.states[intent.ClaimUID] = states
		if err := r.write(intent, StateAttaching); err != nil {
			return err
		}
		if r.attacher.cfg.Attached == nil {
			continue
		}
		if err := r.attacher.cfg.Attached(ctx, intent.ClaimUID); err != nil {
			return fmt.Errorf("claim %s/%s: %w", intent.ClaimNamespace, intent.ClaimName, err)
		}
	}
	return nil
}

// InPods returns how the claim's devices are known in the pods that they are in,
// as far as that is on record.
func (a *Attacher) InPods(claim types.UID) ([]netattach.DeviceState, error) {
	records, err := a.records.list()
	if err != nil {
		return nil, err
	}
	var states []netattach.DeviceState
	for _, record := range records {
		if record.Intent.ClaimUID == claim && record.BootID == a.records.bootID && record.State != StateDetached {
			states = append(states, record.Devices...)
		}
	}
	return states, nil
}
