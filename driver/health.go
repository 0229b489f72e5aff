// The health stream: the kubelet puts what it says into the status of the pods
// that hold the devices.

package driver

import (
	"context"
	"strings"
	"time"

	"k8s.io/dynamic-resource-allocation/kubeletplugin"
)

// WatchHealthStatus is as in kubeletplugin.DRAPlugin. Reports cover all
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
	devices := d.offer(time.Now()).devices
	report := kubeletplugin.DeviceHealthReport{Devices: make([]kubeletplugin.DeviceHealth, 0, len(devices))}
	d.machine.mu.Lock()
	defer d.machine.mu.Unlock()
	for _, device := range devices {
		health := d.machine.worst(device.hardware)
		health.PoolName, health.DeviceName = device.pool, device.name
		report.Devices = append(report.Devices, health)
	}
	return report
}

// worst is called with the lock held.
func (m *machine) worst(devices []string) kubeletplugin.DeviceHealth {
	health := kubeletplugin.DeviceHealth{LastUpdated: m.judged}
	if !m.judged.IsZero() {
		health.Health = kubeletplugin.HealthStatusHealthy
	}
	var messages []string
	for _, device := range devices {
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
