package attach

// What another attachment owes the host. A device may come home without the agent,
// from a namespace that died, and be claimed again before it was put in order: what it
// has then is not what it is to have when it is home the next time.

import (
	"cmp"
	"context"
	"slices"

	"k8s.io/klog/v2"

	"github.com/hostler-dev/hostler/netattach"
)

// settle gives the device what other attachments that are over wrote down of it, as
// far as it is on the host. Their records are left to Reconcile.
func (a *Attacher) settle(ctx context.Context, records []Record, device netattach.DeviceIntent) {
	if device.Child != nil || device.External || !device.HasNetdev() {
		return
	}
	for _, record := range records {
		if record.State != StateDetached || record.BootID != a.records.bootID {
			continue
		}
		for _, other := range record.Intent.Devices {
			if other.Pool != device.Pool || other.Device != device.Device || other.Child != nil || other.External {
				continue
			}
			if _, prepared := a.cfg.Intents.Intent(record.Intent.ClaimUID); !prepared {
				other = unclaimed(other)
			}
			if device.UnclaimedMAC != "" { // it has the next claim's address by now
				other.HostMAC = device.HostMAC
			}
			if _, err := a.host.Restore(ctx, other); err != nil {
				// It stays so; whoever has the device now is not to suffer for it.
				klog.FromContext(ctx).Error(err, "A network device is not as it was before another claim had it", "device", device.Device, "claim", klog.KRef(record.Intent.ClaimNamespace, record.Intent.ClaimName))
			}
		}
	}
}

// Settled reports whether claims that are over have left nothing to be put in order of the
// network device of the PCI function; what of it is on the host is put in order now. It is
// false while the device has yet to come home. For who notes how the device is before the
// next claim changes that.
func (a *Attacher) Settled(ctx context.Context, pci string) (bool, error) {
	records, err := a.records.list()
	if err != nil {
		return false, err
	}
	awaits := func(r Record) bool {
		return r.State == StateDetached && slices.ContainsFunc(r.Intent.Devices, func(d netattach.DeviceIntent) bool { return d.PCI == pci && d.Child == nil })
	}
	for _, record := range records {
		if !awaits(record) {
			continue
		}
		if err := a.reconcile(ctx, record); err != nil {
			if ctx.Err() != nil {
				return false, context.Cause(ctx)
			}
			klog.FromContext(ctx).Error(err, "A network device is not as it was before another claim had it", "pci", pci)
		}
		record, found, err := a.records.read(record.Intent.ClaimUID, record.Pod.UID)
		if err != nil {
			return false, err
		}
		if found && awaits(record) && !a.netdevHome(ctx, record, pci) {
			return false, nil
		}
	}
	return true, nil
}

// netdevHome reports whether the PCI function's netdev is on the host, and puts it in order
// as far as that can be. The record may wait for its RDMA device, or for a setting that
// cannot be given back: whoever gets the netdev next is not to suffer for either.
func (a *Attacher) netdevHome(ctx context.Context, record Record, pci string) bool {
	for _, device := range record.Intent.Devices {
		if device.PCI != pci || device.Child != nil || !device.HasNetdev() {
			continue
		}
		if _, prepared := a.cfg.Intents.Intent(record.Intent.ClaimUID); !prepared {
			device = unclaimed(device)
		}
		if found, _ := a.host.Restore(ctx, device); !found { // what cannot be restored was told above
			return false
		}
	}
	return true
}

// unclaimed is a device whose claim is over, with the address that it had before that.
// The claim's is one to find it by.
func unclaimed(device netattach.DeviceIntent) netattach.DeviceIntent {
	if device.UnclaimedMAC == "" {
		return device
	}
	device.HardwareAddress = cmp.Or(device.HardwareAddress, device.HostMAC)
	device.HostMAC = device.UnclaimedMAC
	return device
}
