// An offer is what the driver publishes as of one moment, worked out once for
// everyone who asks until something changes: a node may have thousands of devices,
// and the kubelet wants to hear of each of them every few seconds.

package driver

import (
	"slices"
	"sync"
	"time"

	"k8s.io/dynamic-resource-allocation/resourceslice"

	"github.com/hostler-dev/hostler/driver/claim"
	"github.com/hostler-dev/hostler/driver/publish"
	"github.com/hostler-dev/hostler/topology"
)

// offer is not changed after it was made.
type offer struct {
	// ready is false while it is not known what there is or what the API server
	// takes; the fields behind it are empty then.
	ready      bool
	resources  resourceslice.DriverResources
	shortfalls []string
	devices    []offered
	// machine and ledger are closed when there is something new.
	machine, ledger <-chan struct{}
	made            time.Time
}

// offered is one device of a pool.
type offered struct {
	pool, name string
	// hardware are the names by which health may speak of it: its own and its parts', sorted.
	hardware []string
}

// offers keeps the newest one.
type offers struct {
	mu     sync.Mutex
	newest *offer
}

// offer returns what there is to publish now.
func (d *Driver) offer(now time.Time) *offer {
	d.offers.mu.Lock()
	defer d.offers.mu.Unlock()
	if last := d.offers.newest; last != nil && last.stands(now) {
		return last
	}
	d.offers.newest = d.makeOffer(now)
	return d.offers.newest
}

// stands is false for one that is not ready: it costs nothing, and what it waits
// for need not be told. What came home counts as held for a while and then no more,
// which is a change that nobody tells.
func (o *offer) stands(now time.Time) bool {
	select {
	case <-o.machine:
		return false
	case <-o.ledger:
		return false
	default:
		return o.ready && now.Sub(o.made) <= homecoming
	}
}

func (d *Driver) makeOffer(now time.Time) *offer {
	// Taken before reading, so that nothing that changes later is missed.
	o := &offer{machine: d.machine.watch(), ledger: d.cfg.Journal.Changed(), made: now}
	in, ready := d.publishInput(now)
	if !ready {
		return o
	}
	o.ready = true
	o.resources, o.shortfalls = publish.Offer(in)
	parts := partsOf(in)
	whole, _ := withGPUs(in.Snapshot, in.HeldGPUs)
	for pool, contents := range o.resources.Pools {
		for _, slice := range contents.Slices {
			for _, device := range slice.Devices {
				hardware, known := parts[device.Name]
				if !known {
					hardware = claim.Parts(whole, in.Held, device.Name)
				}
				hardware = append(hardware, device.Name)
				slices.Sort(hardware)
				o.devices = append(o.devices, offered{pool: pool, name: device.Name, hardware: slices.Compact(hardware)})
			}
		}
	}
	return o
}

// publishInput reports false while it is not known what there is or what the API server takes.
func (d *Driver) publishInput(now time.Time) (publish.Input, bool) {
	features, known := d.cfg.Features()
	held := d.machine.held(d.ledger.Held(), now)
	heldGPUs := d.inUserSpace()
	made := d.machine.made(d.ledger.Made(d.cfg.BootID), now)
	d.machine.mu.Lock()
	defer d.machine.mu.Unlock()
	return publish.Input{
		NodeName: d.cfg.NodeName, Features: features, Publish: d.cfg.Publish,
		Snapshot: d.machine.snapshot, Taints: d.machine.taints, Held: held, HeldGPUs: heldGPUs, Made: made, InUse: d.ledger.InUse(),
	}, known && d.machine.snapshot != nil
}

// partsOf lists, for all devices but pairs, the GPU or NIC that they are part of
// where that is another one: a node may have thousands, too many to look up one by one.
func partsOf(in publish.Input) map[string][]string {
	parts := map[string][]string{publish.EgressDevice: nil}
	for i := range in.Snapshot.GPUs {
		gpu := &in.Snapshot.GPUs[i]
		parts[gpu.Name] = nil
		for _, partition := range topology.Partitions(gpu) {
			parts[partition.Name] = []string{gpu.Name}
		}
	}
	for i := range in.Snapshot.NICs {
		parts[in.Snapshot.NICs[i].Name] = nil
	}
	for name := range in.Held {
		parts[name] = nil
	}
	for name := range in.HeldGPUs {
		parts[name] = nil
	}
	return parts
}
