package guest

// Functions that go to user space and come back, with the kernel's own vfio-pci
// and an emulated IOMMU.

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hostler-dev/hostler/driver/vfio"
	"github.com/hostler-dev/hostler/topology"
)

// QEMU's own devices: an education device that no driver of the kernel takes, and
// two test devices behind one bridge to conventional PCI, which tells the IOMMU
// nothing of who is behind it.
const (
	educationID  = "0x11e8"
	testDeviceID = "0x0005"
)

// functionsOf finds the functions with a device ID.
func functionsOf(t *testing.T, id string) []string {
	t.Helper()
	files, err := filepath.Glob("/sys/bus/pci/devices/*/device")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, file := range files {
		if text, err := os.ReadFile(file); err == nil && strings.TrimSpace(string(text)) == id {
			found = append(found, filepath.Base(filepath.Dir(file)))
		}
	}
	return found
}

func linkBase(path string) string {
	target, err := os.Readlink(path)
	if err != nil {
		return ""
	}
	return filepath.Base(target)
}

// bindingState is what has to be the same after as before. A VF's address is not
// part of it: igbvf makes a new one up at each start unless the PF has one for it.
func bindingState(t *testing.T, pci string) string {
	t.Helper()
	folder := "/sys/bus/pci/devices/" + pci
	override, err := os.ReadFile(folder + "/driver_override")
	if err != nil {
		t.Fatal(err)
	}
	var netdevs []string
	if linkBase(folder+"/driver") != vfio.Driver {
		found, err := filepath.Glob(folder + "/net/*")
		if err != nil {
			t.Fatal(err)
		}
		for _, netdev := range found {
			netdevs = append(netdevs, filepath.Base(netdev))
		}
	}
	return fmt.Sprintf("driver %q, override %q, netdevs %q", linkBase(folder+"/driver"), strings.TrimSpace(string(override)), netdevs)
}

// judged reads and judges a function as the agent does.
func judged(t *testing.T, bus *vfio.Bus, pci string) (*vfio.Binding, error) {
	t.Helper()
	group, err := bus.Group(t.Context(), pci)
	if err != nil {
		t.Fatal(err)
	}
	return vfio.Judge(pci, group)
}

func TestFunctionsGoToUserSpaceAndBack(t *testing.T) {
	needMachine(t)
	education := functionsOf(t, educationID)
	if len(education) != 1 {
		t.Fatalf("the machine has %d education devices, want one", len(education))
	}
	for name, pci := range map[string]string{"a VF with a netdev": "0000:21:10.0", "a function without a driver": education[0]} {
		t.Run(name, func(t *testing.T) {
			bus := vfio.NewBus(vfio.BusConfig{})
			before := bindingState(t, pci)
			t.Logf("%s is: %s", pci, before)
			binding, err := judged(t, bus, pci)
			if err != nil {
				t.Fatal(err)
			}
			step := vfio.NewStep(vfio.StepConfig{Device: pci, Binding: binding, Bus: bus})
			for range 2 { // the second time there is nothing to do
				if err := step.Do(t.Context()); err != nil {
					t.Fatal(err)
				}
				if err := step.Verify(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			nodes, err := bus.Nodes(binding)
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("in user space it is group %s with the nodes %v", binding.Group, nodes)
			group, err := os.OpenFile("/dev/vfio/"+binding.Group, os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			if err := group.Close(); err != nil {
				t.Error(err)
			}
			for range 2 {
				if err := step.Undo(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			// udev, which would name the netdev, is not there: the kernel's name is the same again.
			eventually(t, func() string {
				if after := bindingState(t, pci); after != before {
					return fmt.Sprintf("the function is: %s; before: %s", after, before)
				}
				return ""
			})
			if err := step.Verify(t.Context()); err == nil {
				t.Error("it still counts as bound to vfio-pci")
			}
		})
	}
	if n := find(t, discover(t, noUplink), "0000:21:10.0"); n.Driver != "igbvf" || n.Link == nil || n.Kind != topology.VF {
		t.Errorf("discovery shows the VF as %+v", n)
	}
}

func TestUserSpaceGetsNoFunctionThatSharesItsGroup(t *testing.T) {
	needMachine(t)
	devices := functionsOf(t, testDeviceID)
	if len(devices) != 2 {
		t.Fatalf("the machine has %d test devices, want two", len(devices))
	}
	if a, b := linkBase("/sys/bus/pci/devices/"+devices[0]+"/iommu_group"), linkBase("/sys/bus/pci/devices/"+devices[1]+"/iommu_group"); a != b {
		t.Fatalf("the two test devices are in groups %s and %s, want one", a, b)
	}
	_, err := judged(t, vfio.NewBus(vfio.BusConfig{}), devices[0])
	if err == nil || !strings.Contains(err.Error(), devices[1]) {
		t.Errorf("%s: %v, want a refusal that names %s", devices[0], err, devices[1])
	}
	t.Logf("refused: %v", err)
}

func TestUserSpaceGetsNoPFWithVFs(t *testing.T) {
	needMachine(t)
	_, err := judged(t, vfio.NewBus(vfio.BusConfig{}), pf0)
	if err == nil || !strings.Contains(err.Error(), "VFs") {
		t.Errorf("%v, want a refusal", err)
	}
}
