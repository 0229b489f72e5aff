package attach

// Devices that a Multus of the cluster brings into the pod and home. The agent finds
// them there, has its rules on them before a container starts, and tells how they
// are known. On the way home it lets Multus go first: the runtime says that a
// sandbox stops before it has Multus take its networks apart.

import (
	"context"
	"errors"
	"fmt"

	"github.com/hostler-dev/hostler/netattach"
	"github.com/hostler-dev/hostler/netattach/link"
)

// findExternal completes the device by what it is in the pod.
func (r *run) findExternal(device *netattach.DeviceIntent) error {
	found, err := link.Find(r.namespace.descriptor, *device)
	if errors.Is(err, link.ErrNotFound) {
		pod := r.sandbox.Pod
		return fmt.Errorf("NIC %s (PCI address %s) was not brought into pod %s/%s by Multus, as its NICConfig (attach: Multus) has it: the pod needs the annotation k8s.v1.cni.cncf.io/networks with the name of a NetworkAttachmentDefinition that has the annotation k8s.v1.cni.cncf.io/resourceName: %s and a plugin that takes the device by its deviceID (host-device, sriov), and the node needs Multus in its CNI configuration; with attach: Hostler no Multus is needed", device.Device, device.PCI, pod.Namespace, pod.Name, device.ResourceName)
	}
	if err != nil {
		return err
	}
	*device = found
	return r.record(StateAttaching)
}

// bringExternalHome puts the device in order if it is on the host. It takes it out of
// a living pod only if nobody else will do that any more. It reports whether the
// device is home.
func (a *Attacher) bringExternalHome(ctx context.Context, in *namespace, device netattach.DeviceIntent, last bool) (bool, error) {
	if in != nil {
		_, err := link.Find(in.descriptor, device)
		switch {
		case err == nil && last:
			return a.host.Home(ctx, in.descriptor, device)
		case err == nil:
			return false, nil
		case !errors.Is(err, link.ErrNotFound):
			return false, err
		}
	}
	return a.host.Restore(ctx, device)
}

// HostState returns the device with its state on the host as it is now, for those
// who note it before somebody else takes the device.
func (a *Attacher) HostState(device netattach.DeviceIntent) (netattach.DeviceIntent, error) {
	return a.host.Remember(device)
}
