package attach

// Containers that could undo what limits their pod: its egress scope, or the bandwidth
// that its share of a NIC is held to. With CAP_NET_ADMIN a container could add
// interfaces and delete tables and queues, with CAP_SYS_ADMIN leave the network
// namespace. What this does not see are containers of the pod that use no claim,
// sidecars for instance, because no hook runs for them: they need an admission policy.
//
// A pod may join a claim that was prepared for others, of which the agent hears with the
// first container that uses it. So it is written down which powers a pod's
// containers have, and whichever comes second is refused, the container or the limit.

import (
	"context"
	"fmt"
	"slices"

	"github.com/hostler-dev/hostler/netattach"
)

// powersOf are the capabilities among these that could undo limits.
func powersOf(capabilities []string) (powers []string) {
	for _, capability := range []string{"CAP_NET_ADMIN", "CAP_SYS_ADMIN"} {
		if slices.Contains(capabilities, capability) {
			powers = append(powers, capability)
		}
	}
	return powers
}

// limits says how a claim limits its pods, "" if it does not.
func limits(intent netattach.Intent) string {
	switch {
	case intent.Egress != nil:
		return "may reach"
	case slices.ContainsFunc(intent.Devices, func(d netattach.DeviceIntent) bool { return d.Bandwidth > 0 }):
		return "may send through a NIC that others share"
	}
	return ""
}

// overpowered refuses a container that could undo what limits its pod.
func overpowered(container Container, intents []netattach.Intent) error {
	powers := powersOf(container.Capabilities)
	for _, intent := range intents {
		if limited := limits(intent); limited != "" && len(powers) > 0 {
			pod := container.Sandbox.Pod
			return fmt.Errorf("claim %s/%s limits what pod %s/%s %s, and this container could undo that because it has %s; remove that from securityContext.capabilities (or \"privileged\"), or the claim from the pod", intent.ClaimNamespace, intent.ClaimName, pod.Namespace, pod.Name, limited, powers[0])
		}
	}
	return nil
}

// undermined refuses limits that a container which was let start before could undo.
func (a *Attacher) undermined(sandbox Sandbox, in namespace, intents []netattach.Intent) error {
	i := slices.IndexFunc(intents, func(i netattach.Intent) bool { return limits(i) != "" })
	if i < 0 {
		return nil
	}
	records, err := a.records.ofPod(sandbox.Pod.UID)
	if err != nil {
		return err
	}
	for _, record := range records {
		if record.Pod.UID == sandbox.Pod.UID && record.in(in) && len(record.Powers) > 0 {
			return fmt.Errorf("claim %s/%s limits what the pod %s, and a container that started before, with claim %s/%s, could undo that because it has %s; remove that from its securityContext.capabilities (or \"privileged\"), or one of the claims from the pod", intents[i].ClaimNamespace, intents[i].ClaimName, limits(intents[i]), record.Intent.ClaimNamespace, record.Intent.ClaimName, record.Powers[0])
		}
	}
	return nil
}

// remarkPowers writes down what the container may do, or refuses it if a limit has
// come since it was looked at.
func (a *Attacher) remarkPowers(ctx context.Context, container Container) error {
	powers, pod := powersOf(container.Capabilities), container.Sandbox.Pod
	if len(powers) == 0 {
		return nil
	}
	leave, err := a.turns.take(ctx, pod.UID, "writing down what a container may do")
	if err != nil {
		return cannotAttach(container.Sandbox, err)
	}
	defer leave()
	intents, err := a.intents(pod)
	if err != nil {
		return err
	}
	if err := overpowered(container, intents); err != nil {
		return err
	}
	record, found, err := a.records.read(container.Claim, pod.UID)
	if err != nil {
		return err
	}
	if !found {
		return fmt.Errorf("claim %s was taken back from pod %s/%s meanwhile; that is tried again", container.Claim, pod.Namespace, pod.Name)
	}
	all := powersOf(append(powers, record.Powers...))
	if slices.Equal(all, record.Powers) {
		return nil
	}
	record.Powers = all
	return a.records.write(record)
}
