// The health stream: the kubelet puts what it says into the status of the pods
// that hold the devices.

package driver

import (
	"context"
	"slices"
	"strings"
	"time"

	"k8s.io/dynamic-resource-allocation/kubeletplugin"

	"github.com/hostler-dev/hostler/driver/claim"
	"github.com/hostler-dev/hostler/driver/publish"
	"github.com/hostler-dev/hostler/topology"
)

// WatchHealthStatus implements kubeletplugin.DRAPlugin. Reports cover all
// devices and are sent at once when a verdict changes, and again and again in
// between, because the kubelet takes silence for "unknown".
func (d *Driver) WatchHealthStatus(ctx context.Context, reports chan<- kubeletplugin.DeviceHealthReport) error {
	again := time.NewTicker(d.cfg.HealthInterval)
	defer again.Stop()
	for {
		changed := d.machine.watch()
		select {
		case <-ctx.Done():
			return nil
		case reports <- d.healthReport():
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		case <-again.C:
		}
	}
}

// healthReport says "unknown" of everything until health has spoken. It lists
// what is published, partitions and pairs too, of which health says nothing by
// their own names: they are as well as the worst of what they are made of.
func (d *Driver) healthReport() kubeletplugin.DeviceHealthReport {
	var report kubeletplugin.DeviceHealthReport
	in, ready := d.publishInput(time.Now())
	if !ready {
		return report
	}
	parts := partsOf(in)
	d.machine.mu.Lock()
	defer d.machine.mu.Unlock()
	for pool, contents := range publish.Resources(in).Pools {
		for _, slice := range contents.Slices {
			for _, device := range slice.Devices {
				made, known := parts[device.Name]
				if !known {
					made = claim.Parts(in.Snapshot, in.Held, device.Name)
				}
				health := d.machine.worst(append(made, device.Name))
				health.PoolName, health.DeviceName = pool, device.Name
				report.Devices = append(report.Devices, health)
			}
		}
	}
	return report
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
	return parts
}

// worst is called with the lock held.
func (m *machine) worst(devices []string) kubeletplugin.DeviceHealth {
	health := kubeletplugin.DeviceHealth{LastUpdated: m.judged}
	if !m.judged.IsZero() {
		health.Health = kubeletplugin.HealthStatusHealthy
	}
	slices.Sort(devices)
	var messages []string
	for _, device := range slices.Compact(devices) {
		verdict, ok := m.health[device]
		if !ok {
			continue
		}
		if gravity(verdict.Health) > gravity(health.Health) {
			health.Health = verdict.Health
		}
		if verdict.Message != "" {
			messages = append(messages, verdict.Message)
		}
	}
	health.Message = strings.Join(messages, "; ")
	return health
}

// gravity puts what is known to be broken above what is not known.
func gravity(status kubeletplugin.HealthStatus) int {
	switch status {
	case kubeletplugin.HealthStatusHealthy:
		return 0
	case kubeletplugin.HealthStatusUnhealthy:
		return 2
	}
	return 1
}
