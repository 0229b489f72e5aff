package attach

// What chains say that they made in a pod, held against the kernel: when they have been
// run, and whenever a container starts, by the agent and, while that is away, by the
// gate's hook. The claimed device itself is proven otherwise, by its index, and its
// addresses a pod may change.

import (
	"fmt"
	"slices"

	"github.com/hostler-dev/hostler/netattach"
	"github.com/hostler-dev/hostler/netattach/link"
)

// promises are what the device's chains say, with the index of each interface that they
// made. What a chain promised and is not there fails its pod: nobody knows what it is
// that works upon an interface that does not exist.
func (r *run) promises(device netattach.DeviceIntent, said []netattach.NetworkState) ([]netattach.NetworkState, error) {
	said = slices.Clone(said)
	for i := range said {
		said[i].Interfaces = slices.Clone(said[i].Interfaces)
		for j, one := range said[i].Interfaces {
			if one.Name == device.PodName {
				continue
			}
			made, err := link.Made(r.namespace.descriptor, one)
			if err != nil {
				return nil, brokenPromise(said[i], one, err)
			}
			said[i].Interfaces[j] = made
		}
	}
	return said, nil
}

// kept returns an error unless the pod has all that chains made for the claim's devices.
func (r Record) kept(pod int) error {
	for _, device := range r.Devices {
		for _, network := range device.Networks {
			for _, one := range network.Interfaces {
				if one.Index == 0 {
					continue
				}
				if _, err := link.Made(pod, one); err != nil {
					return brokenPromise(network, one, err)
				}
			}
		}
	}
	return nil
}

func brokenPromise(network netattach.NetworkState, promised netattach.InterfaceState, err error) error {
	return fmt.Errorf("the CNI chain of NetworkAttachmentDefinition %s/%s made interface %s with addresses %v, but %w; delete the pod to have it made anew, and see what in the pod or in the chain changes it", network.Namespace, network.Name, promised.Name, promised.Addresses, err)
}

// recall takes from its record how devices of a complete attachment are known in the pod,
// and what their chains said.
func (r *run) recall(record Record) {
	r.states[record.Intent.ClaimUID] = record.Devices
	for i, device := range record.Devices {
		r.networks[deviceKey{record.Intent.ClaimUID, i}] = device.Networks
	}
}
