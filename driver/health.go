// The health stream: the kubelet puts what it says into the status of the pods
// that hold the devices.

package driver

import (
	"context"
	"time"

	"k8s.io/dynamic-resource-allocation/kubeletplugin"

	"github.com/hostler-dev/hostler/driver/publish"
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

// healthReport says "unknown" of everything until health has spoken.
func (d *Driver) healthReport() kubeletplugin.DeviceHealthReport {
	var report kubeletplugin.DeviceHealthReport
	in, _ := d.publishInput(time.Now())
	d.machine.mu.Lock()
	defer d.machine.mu.Unlock()
	for pool, contents := range publish.Resources(in).Pools {
		for _, slice := range contents.Slices {
			for _, device := range slice.Devices {
				health := kubeletplugin.DeviceHealth{PoolName: pool, DeviceName: device.Name, LastUpdated: d.machine.judged}
				if !d.machine.judged.IsZero() {
					health.Health = kubeletplugin.HealthStatusHealthy
				}
				if verdict, ok := d.machine.health[device.Name]; ok {
					health.Health, health.Message = verdict.Health, verdict.Message
				}
				report.Devices = append(report.Devices, health)
			}
		}
	}
	return report
}
