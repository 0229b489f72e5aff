package attach

// What devices have on the host, written down before anything of it is changed. An
// attachment that was cut short has it in its record, and so has one that is over but
// for a device that has yet to come home. What the claim wants of a device is never
// taken from a record.

import (
	"context"
	"slices"

	"k8s.io/apimachinery/pkg/types"

	"github.com/hostler-dev/hostler/netattach"
	"github.com/hostler-dev/hostler/netattach/link"
)

// remember fills in the devices of the intents.
func (a *Attacher) remember(ctx context.Context, pod types.UID, in namespace, intents []netattach.Intent) ([]netattach.Intent, error) {
	records, err := a.records.list()
	if err != nil {
		return nil, err
	}
	filled := slices.Clone(intents)
	for i := range filled {
		record, found, err := a.records.read(filled[i].ClaimUID, pod)
		if err != nil {
			return nil, err
		}
		if record.BootID != a.records.bootID {
			record, found = Record{}, false
		}
		here := found && record.in(in)
		filled[i].Devices = slices.Clone(filled[i].Devices)
		for j, device := range filled[i].Devices {
			if k := slices.IndexFunc(record.Intent.Devices, func(d netattach.DeviceIntent) bool { return sameDevice(d, device) }); k >= 0 {
				filled[i].Devices[j], err = a.recall(ctx, records, device, record.Intent.Devices[k], here)
			} else {
				a.settle(ctx, records, device)
				filled[i].Devices[j], err = a.rememberDevice(ctx, device)
			}
			if err != nil {
				return nil, err
			}
		}
	}
	return filled, nil
}

// sameDevice says of two devices of one claim that they are one.
func sameDevice(x, y netattach.DeviceIntent) bool {
	share := func(d netattach.DeviceIntent) types.UID {
		if d.ShareID == nil {
			return ""
		}
		return *d.ShareID
	}
	return x.Request == y.Request && x.Pool == y.Pool && x.Device == y.Device && share(x) == share(y)
}

// recall is the device with what a record has of it. Here says that the record is of
// the namespace to which the device goes.
func (a *Attacher) recall(ctx context.Context, records []Record, device, known netattach.DeviceIntent, here bool) (_ netattach.DeviceIntent, err error) {
	device.HostName, device.HostMAC = known.HostName, known.HostMAC
	device.HostMTU, device.HostUp = known.HostMTU, known.HostUp
	device.HostAddresses, device.HostState = known.HostAddresses, known.HostState
	device.Child, device.RDMA = known.Child, known.RDMA
	if here {
		device.PodIndex = known.PodIndex
	}
	if here && device.External {
		device.PodName = known.PodName // which Multus chose
	}
	// It was not to be found then, and may be on the host now.
	if device.HasNetdev() && !device.External && !link.Remembered(device) {
		a.settle(ctx, records, device)
		if device, err = a.rememberDevice(ctx, device); err != nil {
			return device, err
		}
	}
	if here {
		return device, nil
	}
	return a.rdma.Remember(ctx, device)
}
