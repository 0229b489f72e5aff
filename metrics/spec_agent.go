// What the agent says about devices beside measuring them: what they are, who
// holds them, what is wrong with them, and how old their numbers are.

package metrics

import "strconv"

func agentFamilies() []family {
	return []family{
		{"hostler_device_info", gauge, "1 for each device and each partition that exists; its labels say what it is and where it sits, and the GPU of a GPU or partition.",
			[]string{"device", "type", "uuid", "pci", "model", "pcie_root", "numa_node", "interface", "rdma_device", "gpu", "profile"}, collectDevices},
		{"hostler_driver_info", gauge, "1; the accelerator driver's state and versions.", []string{"state", "version", "cuda_version"},
			func(v *View, emit emitter) {
				if v.Snapshot != nil {
					emit(1, string(v.Snapshot.Driver.State), v.Snapshot.Driver.Version, v.Snapshot.Driver.CUDAVersion)
				}
			}},
		{"hostler_rdma_info", gauge, "1; whether the node's kernel has RDMA devices shared between network namespaces or each exclusive to one. Absent where it has no RDMA.", []string{"namespaces"},
			func(v *View, emit emitter) {
				if v.Snapshot != nil && v.Snapshot.RDMANamespaces != "" {
					emit(1, v.Snapshot.RDMANamespaces)
				}
			}},
		{"hostler_claim_info", gauge, "1 for each device, claim, pod and container that uses it; join it with device metrics on (instance, device). A pair has a series for its GPU and one for its NIC, whose allocated_device is the pair. Administrators' access is left out.",
			[]string{"device", "uuid", "pool", "claim", "claim_namespace", "claim_uid", "request", "pod", "namespace", "pod_uid", "container", "allocated_device", "gpu"}, collectClaims},
		{"hostler_sample_age_seconds", gauge, "Time since the device was last measured. The device's gauges and counters are left out once it exceeds three sampling intervals.",
			[]string{"device", "pci"}, collectAges},
		{"hostler_sample_errors_total", counter, "Measurements of the device that failed wholly or in part.", []string{"device", "pci"}, collectErrors},
		{"hostler_device_fault_severity", gauge, "Severity of each standing fault: 1 information, 2 degraded, 3 needs a reset, 4 fatal. A fault of the whole node has an empty device.",
			[]string{"device", "family", "reason"},
			func(v *View, emit emitter) {
				for _, f := range v.Faults {
					emit(float64(f.Severity), f.Device, f.Family, f.Reason)
				}
			}},
		{"hostler_claims_prepared", gauge, "Claims that are prepared on the node.", nil,
			func(v *View, emit emitter) {
				claims := map[string]bool{}
				for _, h := range v.Holders {
					claims[h.ClaimUID] = true
				}
				emit(float64(len(claims)))
			}},
		{"hostler_devices_prepared", gauge, "Devices that prepared claims hold, shares and administrators' access counted.", nil,
			func(v *View, emit emitter) { emit(float64(len(v.Holders))) }},
	}
}

func collectDevices(v *View, emit emitter) {
	for i := range v.GPUs {
		d := &v.GPUs[i].Device
		emit(1, d.Name, "gpu", d.UUID, d.Placement.PCI, d.ProductName, d.Placement.PCIeRoot, strconv.Itoa(d.Placement.NUMANode), "", "", d.Name, "")
	}
	for i := range v.Partitions {
		p := &v.Partitions[i]
		emit(1, p.Name, "mig", p.UUID, p.Placement.PCI, p.Model, p.Placement.PCIeRoot, strconv.Itoa(p.Placement.NUMANode), "", "", p.GPU, p.Profile)
	}
	for i := range v.NICs {
		d := &v.NICs[i].Device
		var netdev, rdma string
		if d.Link != nil {
			netdev = d.Link.Name
		}
		if d.RDMA != nil {
			rdma = d.RDMA.Name
		}
		emit(1, d.Name, string(d.Kind), "", d.Placement.PCI, d.VendorID+":"+d.DeviceID, d.Placement.PCIeRoot, strconv.Itoa(d.Placement.NUMANode), netdev, rdma, "", "")
	}
}

// collectClaims emits one series per container; while the kubelet has not yet
// said which containers use the claim, one per pod with an empty container. A
// prepared claim that no pod is known for is shown with an empty pod. The kubelet
// names devices as they were allocated, a pair as the pair.
func collectClaims(v *View, emit emitter) {
	uuids := map[string]string{}
	for i := range v.GPUs {
		uuids[v.GPUs[i].Device.Name] = v.GPUs[i].Device.UUID
	}
	for i := range v.Partitions {
		uuids[v.Partitions[i].Name] = v.Partitions[i].UUID
	}
	for _, h := range v.Holders {
		if h.AdminAccess {
			continue
		}
		devices, pods := h.devices(), h.Pods
		if len(pods) == 0 {
			pods = []Pod{{}}
		}
		for _, pod := range pods {
			containers := v.Containers.of(pod, h)
			if len(containers) == 0 {
				containers = []string{""}
			}
			for _, container := range containers {
				for _, device := range devices {
					if device == "" {
						continue
					}
					gpu := h.GPU
					if device == h.NIC {
						gpu = ""
					}
					emit(1, device, uuids[device], h.Pool, h.ClaimName, h.ClaimNamespace, h.ClaimUID, h.Request, pod.Name, pod.Namespace, pod.UID, container, h.Device, gpu)
				}
			}
		}
	}
}

func collectAges(v *View, emit emitter) {
	for i := range v.GPUs {
		if gpu := &v.GPUs[i]; !gpu.SampledAt.IsZero() {
			emit(v.Now.Sub(gpu.SampledAt).Seconds(), gpu.Device.Name, gpu.Device.Placement.PCI)
		}
	}
	for i := range v.NICs {
		if nic := &v.NICs[i]; !nic.SampledAt.IsZero() {
			emit(v.Now.Sub(nic.SampledAt).Seconds(), nic.Device.Name, nic.Device.Placement.PCI)
		}
	}
}

func collectErrors(v *View, emit emitter) {
	for i := range v.GPUs {
		emit(float64(v.GPUs[i].Errors), v.GPUs[i].Device.Name, v.GPUs[i].Device.Placement.PCI)
	}
	for i := range v.NICs {
		emit(float64(v.NICs[i].Errors), v.NICs[i].Device.Name, v.NICs[i].Device.Placement.PCI)
	}
}
