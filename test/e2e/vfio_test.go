package e2e

// Devices in user space: the pod gets them by their IOMMU groups, their own
// drivers lose them, and nobody else notices. Afterwards they serve the next pod as before.

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	resourceapi "k8s.io/api/resource/v1"

	"github.com/hostler-dev/hostler/test/machine/pcibus"
)

// inUserSpace has a claim's GPU and NIC bound to vfio-pci.
const inUserSpace = `config:
- requests: [gpu]
  opaque: {driver: hostler.dev, parameters: {apiVersion: hostler.dev/v1alpha1, kind: GPUConfig, mode: vfio}}
- requests: [nic]
  opaque: {driver: hostler.dev, parameters: {apiVersion: hostler.dev/v1alpha1, kind: NICConfig, mode: vfio}}
`

func TestDevicesInUserSpace(t *testing.T) {
	s := newScenario(t)
	if _, err := os.Stat("/dev/fuse"); err != nil {
		t.Skip("without FUSE the simulated PCI bus is a picture: ", err)
	}
	before, home := s.devices(), s.node.snapshot(t)
	s.apply(template("user-space", requests(request("gpu", oneGPU), request("nic", anyNIC))+samePCIeRoot+inUserSpace),
		template("ordinary", requests(request("gpu", oneGPU))), pod("user-space", "user-space", ""), pod("ordinary", "ordinary", ""))
	s.awaitReady("user-space", "ordinary")
	devices := map[string]resourceapi.Device{}
	groups := []string{"vfio"}
	for _, result := range s.claimOf("user-space").Status.Allocation.Devices.Results {
		device := s.device(result.Device)
		devices[result.Request] = device
		groups = append(groups, s.node.function(device).group)
	}
	slices.Sort(groups)

	if seen := s.sh("user-space", "ls /dev/vfio"); seen != strings.Join(groups, "\n") {
		t.Errorf("the pod has %q of /dev/vfio, want its groups and vfio itself: %q", seen, groups)
	}
	if seen := s.sh("user-space", listGPUs); seen != "" {
		t.Errorf("the pod sees GPU nodes %q of the node's own driver", seen)
	}
	if out, err := s.trySh("user-space", "ls /dev/infiniband"); err == nil {
		t.Errorf("the pod has RDMA devices of a NIC in user space: %s", out)
	}
	// No driver stands behind the simulated nodes: ENXIO is the device cgroup's yes, EPERM its no.
	own := filepath.Join("/dev/vfio", s.node.function(devices["gpu"]).group)
	if out, _ := s.trySh("user-space", "cat "+own); !strings.Contains(out, "No such device or address") {
		t.Errorf("opening the pod's own group: %q, want ENXIO", out)
	}
	if out, _ := s.trySh("ordinary", fmt.Sprintf("mknod /tmp/group c %d %s && cat /tmp/group", pcibus.VFIOGroupMajor, filepath.Base(own))); !strings.Contains(out, "Operation not permitted") {
		t.Errorf("another pod opening the group by its number: %q, want EPERM", out)
	}
	for request, device := range devices {
		if driver := s.node.function(device).driver; driver != "vfio-pci" {
			t.Errorf("the %s %s is bound to %q, want vfio-pci", request, device.Name, driver)
		}
	}
	if name := attribute(devices["nic"], "hostler.dev/ifName"); s.node.snapshot(t).links[name] != "" {
		t.Errorf("the node still has the netdev %s of the NIC that is in user space", name)
	}
	if diff := cmp.Diff(before, s.devices()); diff != "" {
		t.Errorf("what is published changed while a pod had devices in user space (-before +meanwhile):\n%s", diff)
	}

	s.kubectl("delete", "pod", "user-space")
	s.eventually("both devices are back", func() error {
		for request, want := range map[string]string{"gpu": "nvidia", "nic": "mlx5_core"} {
			if driver := s.node.function(devices[request]).driver; driver != want {
				return fmt.Errorf("the %s is bound to %q, want %s", request, driver, want)
			}
		}
		if nodes, err := filepath.Glob(filepath.Join(s.node.MachineRoot, "dev/vfio/*")); err != nil || len(nodes) != 1 {
			return fmt.Errorf("left in /dev/vfio: %v, %w", nodes, err)
		}
		return s.node.asBefore(home)
	})
	gpu := s.node.gpu(t, devices["gpu"].Name)
	s.apply(template("next", requests(request("gpu", oneGPU, fmt.Sprintf(`device.attributes["hostler.dev"].uuid == %q`, gpu.UUID)))), pod("next", "next", ""))
	s.awaitReady("next")
	if list := s.sh("next", "/usr/bin/nvidia-smi -L"); !strings.Contains(list, gpu.UUID) {
		t.Errorf("nvidia-smi -L in the next pod: %q, want %s", list, gpu.UUID)
	}
	if diff := cmp.Diff(before, s.devices()); diff != "" {
		t.Errorf("what is published changed (-before +after):\n%s", diff)
	}
}

// pciFunction is what the node's sysfs says of a device.
type pciFunction struct{ driver, group string }

func (b *bed) function(d resourceapi.Device) pciFunction {
	base := func(link string) string {
		target, err := os.Readlink(filepath.Join(b.MachineRoot, "sys/bus/pci/devices", attribute(d, "resource.kubernetes.io/pciBusID"), link))
		if err != nil {
			return ""
		}
		return filepath.Base(target)
	}
	return pciFunction{driver: base("driver"), group: base("iommu_group")}
}
