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
	owner := map[string]string{}
	for i := range in.Snapshot.GPUs {
		for _, partition := range topology.Partitions(&in.Snapshot.GPUs[i]) {
			owner[partition.Name] = partition.Parent
		}
	}
	d.machine.mu.Lock()
	defer d.machine.mu.Unlock()
	for pool, contents := range publish.Resources(in).Pools {
		for _, slice := range contents.Slices {
			for _, device := range slice.Devices {
				made := []string{owner[device.Name]}
				if made[0] == "" {
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
