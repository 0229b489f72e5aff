// The table of every device metric: name, type, meaning, labels, and how it is
// read off a View. The page, the documentation and the linter all come from it.
//
// Names follow OpenTelemetry's hardware conventions where those have one (hw.gpu.*,
// hw.temperature, hw.network.*; unit suffixes by the OTLP-to-Prometheus rules)
// and begin with hostler_ where they do not. A device's series keep their labels
// for as long as the device exists: who uses it is said by hostler_claim_info
// alone, so a graph of a GPU does not break when a pod comes or goes.

package metrics

import (
	"strconv"

	"github.com/hostler-dev/hostler/topology/nvml"
)

type metricType string

const (
	gauge   metricType = "gauge"
	counter metricType = "counter"
)

// family is one metric.
type family struct {
	name   string
	kind   metricType
	help   string
	labels []string
	// collect emits each series: a value, and a label value for each label.
	collect func(v *View, emit emitter)
}

type emitter func(value float64, labels ...string)

// specification lists the families in the order of the page.
func specification() []family {
	families := gpuFamilies()
	families = append(families, networkFamilies()...)
	return append(families, agentFamilies()...)
}

func gpuFamilies() []family {
	labels := []string{"device", "uuid", "pci", "model"}
	// each reads one number of a fresh sample; nil (not supported, not read) is left out, never 0.
	each := func(read func(*nvml.Sample) *float64) func(*View, emitter) {
		return func(v *View, emit emitter) {
			for i := range v.GPUs {
				gpu := &v.GPUs[i]
				if gpu.Sample == nil {
					continue
				}
				if value := read(gpu.Sample); value != nil {
					emit(*value, gpu.Device.Name, gpu.Device.UUID, gpu.Device.Placement.PCI, gpu.Device.ProductName)
				}
			}
		}
	}
	return []family{
		{"hw_gpu_utilization_ratio", gauge, "Share of the last sampling period in which a kernel ran on the GPU, 0 to 1 (hw.gpu.utilization).", labels,
			each(func(s *nvml.Sample) *float64 { return s.Utilization })},
		{"hw_gpu_memory_usage_bytes", gauge, "GPU memory in use (hw.gpu.memory.usage).", labels,
			each(func(s *nvml.Sample) *float64 { return number(s.MemoryUsedBytes) })},
		{"hw_gpu_memory_limit_bytes", gauge, "GPU memory there is (hw.gpu.memory.limit).", labels,
			each(func(s *nvml.Sample) *float64 { return number(s.MemoryTotalBytes) })},
		{"hw_gpu_memory_utilization_ratio", gauge, "Share of the GPU memory that is in use, 0 to 1 (hw.gpu.memory.utilization).", labels,
			each(memoryUtilization)},
		{"hostler_gpu_memory_busy_ratio", gauge, "Share of the last sampling period in which GPU memory was read or written, 0 to 1.", labels,
			each(func(s *nvml.Sample) *float64 { return s.MemoryUtilization })},
		{"hw_temperature_celsius", gauge, "Temperature of the GPU's die (hw.temperature).", labels,
			each(func(s *nvml.Sample) *float64 { return s.TemperatureCelsius })},
		{"hw_power_watts", gauge, "Power that the GPU's board draws (hw.power).", labels,
			each(func(s *nvml.Sample) *float64 { return s.PowerWatts })},
		{"hw_energy_joules_total", counter, "Energy that the GPU used since its driver was loaded (hw.energy).", labels,
			each(func(s *nvml.Sample) *float64 { return s.EnergyJoules })},
		{"hostler_gpu_sm_clock_hertz", gauge, "Clock of the streaming multiprocessors.", labels,
			each(func(s *nvml.Sample) *float64 { return s.SMClockHertz })},
		{"hostler_gpu_memory_clock_hertz", gauge, "Clock of the GPU memory.", labels,
			each(func(s *nvml.Sample) *float64 { return s.MemoryClockHertz })},
	}
}

func memoryUtilization(s *nvml.Sample) *float64 {
	if s.MemoryUsedBytes == nil || s.MemoryTotalBytes == nil || *s.MemoryTotalBytes == 0 {
		return nil
	}
	ratio := float64(*s.MemoryUsedBytes) / float64(*s.MemoryTotalBytes)
	return &ratio
}

func number(v *uint64) *float64 {
	if v == nil {
		return nil
	}
	f := float64(*v)
	return &f
}

func networkFamilies() []family {
	link := []string{"device", "pci"}
	direction := []string{"device", "pci", "network_io_direction"}
	port := []string{"device", "pci", "rdma_device", "port"}
	portDirection := []string{"device", "pci", "rdma_device", "port", "network_io_direction"}
	eachLink := func(emitLink func(*LinkReading, func(float64, ...string))) func(*View, emitter) {
		return func(v *View, emit emitter) {
			for i := range v.NICs {
				nic := &v.NICs[i]
				if nic.Reading == nil || nic.Reading.Link == nil {
					continue
				}
				emitLink(nic.Reading.Link, func(value float64, rest ...string) {
					emit(value, append([]string{nic.Device.Name, nic.Device.Placement.PCI}, rest...)...)
				})
			}
		}
	}
	eachPort := func(emitPort func(*PortReading, func(float64, ...string))) func(*View, emitter) {
		return func(v *View, emit emitter) {
			for i := range v.NICs {
				nic := &v.NICs[i]
				if nic.Reading == nil {
					continue
				}
				for j := range nic.Reading.Ports {
					p := &nic.Reading.Ports[j]
					emitPort(p, func(value float64, rest ...string) {
						emit(value, append([]string{nic.Device.Name, nic.Device.Placement.PCI, p.RDMADevice, strconv.Itoa(p.Port)}, rest...)...)
					})
				}
			}
		}
	}
	both := func(received, transmitted *float64, emit func(float64, ...string)) {
		if received != nil {
			emit(*received, "receive")
		}
		if transmitted != nil {
			emit(*transmitted, "transmit")
		}
	}
	return []family{
		{"hw_network_io_bytes_total", counter, "Bytes that the NIC's netdev received and transmitted, without RDMA (hw.network.io). Absent while the netdev is in a pod.", direction,
			eachLink(func(l *LinkReading, emit func(float64, ...string)) { both(&l.ReceivedBytes, &l.TransmittedBytes, emit) })},
		{"hw_network_packets_total", counter, "Packets that the NIC's netdev received and transmitted (hw.network.packets). Absent while the netdev is in a pod.", direction,
			eachLink(func(l *LinkReading, emit func(float64, ...string)) {
				both(&l.ReceivedPackets, &l.TransmittedPackets, emit)
			})},
		{"hw_network_up", gauge, "1 if the NIC's netdev is up with carrier, else 0 (hw.network.up). Absent while the netdev is in a pod.", link,
			eachLink(func(l *LinkReading, emit func(float64, ...string)) { emit(truth(l.Up)) })},
		{"hw_network_bandwidth_limit_bytes_per_second", gauge, "Speed of the NIC's link, one direction (hw.network.bandwidth.limit).", link, collectBandwidth},
		{"hostler_rdma_port_up", gauge, "1 if the RDMA port is ACTIVE, else 0.", port,
			eachPort(func(p *PortReading, emit func(float64, ...string)) {
				if p.State != "" {
					emit(truth(p.State == "ACTIVE"))
				}
			})},
		{"hostler_rdma_port_io_bytes_total", counter, "Bytes that the RDMA port received and transmitted (port_rcv_data and port_xmit_data, in bytes).", portDirection,
			eachPort(func(p *PortReading, emit func(float64, ...string)) { both(p.ReceivedBytes, p.TransmittedBytes, emit) })},
		{"hostler_rdma_port_link_downed_total", counter, "How often the RDMA port lost its link.", port,
			eachPort(func(p *PortReading, emit func(float64, ...string)) {
				if p.LinkDowned != nil {
					emit(*p.LinkDowned)
				}
			})},
	}
}

func collectBandwidth(v *View, emit emitter) {
	for _, nic := range v.NICs {
		if nic.Device.Link != nil && nic.Device.Link.SpeedMbps > 0 {
			emit(float64(nic.Device.Link.SpeedMbps)*1e6/8, nic.Device.Name, nic.Device.Placement.PCI)
		}
	}
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
