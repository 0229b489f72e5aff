package driver

// Devices that a claim changed on the node itself, VFs and PCI functions in user space,
// are as they were after a release, whatever was lost and whenever it was killed.

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/hostler-dev/hostler/api/v1alpha1"
	"github.com/hostler-dev/hostler/driver/publish"
	"github.com/hostler-dev/hostler/driver/sriov/sriovtest"
	"github.com/hostler-dev/hostler/driver/vfio/vfiotest"
	"github.com/hostler-dev/hostler/topology"
)

const (
	bootGPU, bootVF = "0000:20:00.0", "0000:1d:00.2"
	vfSettings      = `{"apiVersion": "hostler.dev/v1alpha1", "kind": "NICConfig", "vf": {"mac": "02:00:5e:10:00:01", "vlan": 100, "trust": true}}`
	gpuToUserSpace  = `{"apiVersion": "hostler.dev/v1alpha1", "kind": "GPUConfig", "mode": "vfio"}`
	nicToUserSpace  = `{"apiVersion": "hostler.dev/v1alpha1", "kind": "NICConfig", "mode": "vfio", "vf": {"vlan": 200}}`
)

// changed is a node that its agent has left with claims on a VF that was set up, a
// GPU in user space, and a VF that is both.
type changed struct {
	paths    v1alpha1.PathsConfig
	table    *sriovtest.Table
	kernel   *vfiotest.Kernel
	attached *attached
	proc     string
	// before is how the devices were without claims.
	before string
}

func change(t *testing.T) *changed {
	t.Helper()
	n := &changed{paths: pathsIn(t), proc: t.TempDir()}
	n.attached = &attached{interrupt: func(string) error { return nil }}
	n.boot(t)
	n.before = n.devices()
	d := n.driver(t, "boot")
	machine := machineOf(1)
	nic := topology.NIC{Name: "nic-0000-1d-00-0", Kind: topology.PF, VFID: -1, NumVFs: 2, Link: &topology.Link{Name: "eth3"}, Placement: topology.Placement{PCI: "0000:1d:00.0"}}
	machine.NICs = append(machine.NICs, nic)
	for index := range 2 {
		pci := sriovtest.VF(index).PCI
		machine.NICs = append(machine.NICs, topology.NIC{Name: topology.NICName(pci), Kind: topology.VF, Parent: nic.Name, VFID: index, Link: &topology.Link{Name: fmt.Sprintf("eth%d", 4+index)}, Placement: topology.Placement{PCI: pci}})
	}
	d.SetSnapshot(machine)
	for _, c := range []*resourceapi.ResourceClaim{
		configured(claimOn("vf", publish.NICPool(node), "nic-0000-1d-00-1"), vfSettings),
		configured(claimOn("gpu", publish.GPUPool(node), "gpu-0000-20-00-0"), gpuToUserSpace),
		configured(claimOn("both", publish.NICPool(node), "nic-0000-1d-00-2"), nicToUserSpace),
	} {
		if err := prepareOnly(d, c); err != nil {
			t.Fatal(err)
		}
	}
	if now := n.devices(); strings.Count(now, "vfio-pci override=vfio-pci") != 3 || strings.Count(now, "vlan 7,") != 0 {
		t.Fatalf("prepared, the devices are\n%s", now)
	}
	return n
}

// configured gives the claim's class a config.
func configured(c *resourceapi.ResourceClaim, config string) *resourceapi.ResourceClaim {
	c.Status.Allocation.Devices.Config = []resourceapi.DeviceAllocationConfiguration{{
		Source: resourceapi.AllocationConfigSourceClass,
		DeviceConfiguration: resourceapi.DeviceConfiguration{Opaque: &resourceapi.OpaqueDeviceConfiguration{
			Driver: publish.DriverName, Parameters: runtime.RawExtension{Raw: []byte(config)},
		}},
	}}
	return c
}

// boot has the devices as they are after the machine started.
func (n *changed) boot(t *testing.T) {
	t.Helper()
	n.table = sriovtest.New()
	var err error
	n.kernel, err = vfiotest.New(t.TempDir(), []vfiotest.Function{
		{PCI: bootGPU, Group: "1", Class: "0x030200", Native: []string{"nvidia"}, Driver: "nvidia"},
		{PCI: "0000:20:00.1", Group: "1", Class: "0x040300", Native: []string{"snd"}, Driver: "snd", Override: "snd"},
		{PCI: bootVF, PF: "0000:1d:00.0", Group: "2", Native: []string{"igbvf"}, Driver: "igbvf"},
	}, "nvidia", "snd", "igbvf")
	if err != nil {
		t.Fatal(err)
	}
	n.paths.Dev = n.kernel.Dev
}

// devices says how everything is that claims can change.
func (n *changed) devices() string {
	lines := []string{n.kernel.State()}
	for index := range 2 {
		if vf := sriovtest.VF(index); n.table.VFs[vf] != nil {
			state := n.table.State(vf)
			lines = append(lines, fmt.Sprintf("VF %d: %s, netdev %s", index, state.Settings, state.NetdevMAC))
		}
	}
	return strings.Join(lines, "\n")
}

// driver starts on what is on disk, as a process would.
func (n *changed) driver(t *testing.T, bootID string) *Driver {
	t.Helper()
	d, _ := newDriver(t, fake.NewClientset(), n.paths, func(c *Config) {
		c.KubeClient, c.Attacher, c.VFs, c.VFIO, c.BootID = nil, n.attached, n.table, n.kernel.Bus(), bootID
	})
	return d
}

// release runs once, and returns what it left.
func (n *changed) release(t *testing.T, bootID string, o ReleaseOptions) (all, left []Released) {
	t.Helper()
	o.Records, o.Proc = n.attached.Records, n.proc
	all, err := n.driver(t, bootID).Release(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return all, slices.DeleteFunc(slices.Clone(all), func(r Released) bool { return r.Err == nil })
}

func TestReleaseLeavesVFsAndFunctionsAsTheyWere(t *testing.T) {
	for name, lose := range map[string]func(*changed) error{
		"nothing is lost":     func(*changed) error { return nil },
		"the journal is gone": func(n *changed) error { return os.Remove(journalPath(n.paths)) },
		"the CDI directory was wiped": func(n *changed) error {
			return os.RemoveAll(n.paths.CDI)
		},
		"somebody has set a VF meanwhile": func(n *changed) error {
			n.table.VFs[sriovtest.VF(0)].Settings.VLAN = new(9)
			return nil
		},
		"somebody has bound a function to its driver": func(n *changed) error {
			devices := filepath.Join(n.kernel.Sys, "bus/pci/devices", bootVF)
			return errors.Join(n.kernel.Write(filepath.Join(devices, "driver_override"), "\n"), n.kernel.Write(filepath.Join(devices, "driver/unbind"), bootVF),
				n.kernel.Write(filepath.Join(n.kernel.Sys, "bus/pci/drivers/igbvf/bind"), bootVF))
		},
	} {
		t.Run(name, func(t *testing.T) {
			n := change(t)
			if err := lose(n); err != nil {
				t.Fatal(err)
			}
			all, left := n.release(t, "boot", ReleaseOptions{})
			if len(all) != 3 || len(left) > 0 {
				t.Errorf("%d claims, left are %v", len(all), left)
			}
			if diff := gocmp.Diff(n.before, n.devices()); diff != "" {
				t.Errorf("the devices (-before +after):\n%s", diff)
			}
		})
	}
}

func TestReleaseTakesVFsAndFunctionsThatAreGoneForReleased(t *testing.T) {
	n := change(t)
	delete(n.table.VFs, sriovtest.VF(0))
	delete(n.table.VFs, sriovtest.VF(1))
	if err := n.kernel.Unplug(bootVF); err != nil {
		t.Fatal(err)
	}
	if _, left := n.release(t, "boot", ReleaseOptions{}); len(left) > 0 {
		t.Errorf("left are %v", left)
	}
	if now := n.devices(); strings.Contains(now, "vfio-pci") {
		t.Errorf("the devices that are still there are\n%s", now)
	}
}

func TestReleaseAfterARebootTouchesNoVFAndNoFunction(t *testing.T) {
	n := change(t)
	n.boot(t)
	n.kernel.Before = func(what string) error { return fmt.Errorf("%s: nothing is to be written", what) }
	all, left := n.release(t, "later boot", ReleaseOptions{})
	if len(all) != 3 || len(left) > 0 || n.table.Requests > 0 || n.devices() != n.before {
		t.Errorf("%d claims, left are %v; %d settings; the devices are\n%s", len(all), left, n.table.Requests, n.devices())
	}
	for _, r := range all {
		for _, line := range r.Devices("later boot") {
			if !strings.Contains(line, "reboot") {
				t.Errorf("%s: %s", r.Name(), line)
			}
		}
	}
}

func TestReleaseOfHardwareKilledAtAnyMomentIsCompletedByTheNext(t *testing.T) {
	moments, at := 1, 0
	for at < moments {
		at++
		n, seen, when := change(t), 0, ""
		pass := func(moment string) error {
			if seen++; seen < at {
				return nil
			}
			when = cmp.Or(when, moment)
			return errKilled
		}
		n.table.Interrupt, n.attached.interrupt = pass, pass
		n.kernel.Before = func(what string) error { return pass("before " + what) }
		n.kernel.After = func(what string) { _ = pass("after " + what) } // the write itself was done
		_, left := n.release(t, "boot", ReleaseOptions{})
		if moments = max(moments, seen); len(left) == 0 && at < seen {
			t.Fatalf("nobody noticed the end at moment %d (%s)", at, when)
		}
		n.table.Interrupt, n.attached.interrupt, n.kernel.Before, n.kernel.After = nil, func(string) error { return nil }, nil, nil
		if _, left := n.release(t, "boot", ReleaseOptions{}); len(left) > 0 {
			t.Errorf("killed at moment %d (%s), the next leaves %v", at, when, left)
		}
		if diff := gocmp.Diff(n.before, n.devices()); diff != "" {
			t.Errorf("killed at moment %d (%s), the devices (-before +after):\n%s", at, when, diff)
		}
	}
	if moments < 25 {
		t.Errorf("there were %d moments only", moments)
	}
}

func TestReleaseSaysWhichDeviceItCouldNotBringBack(t *testing.T) {
	n := change(t)
	n.table.Fail = errors.New("the PF's netdev is not in the host's network namespace")
	n.kernel.Before = func(what string) error {
		if strings.HasSuffix(what, bootGPU) {
			return errors.New("input/output error")
		}
		return nil
	}
	_, left := n.release(t, "boot", ReleaseOptions{})
	var said []string
	for _, r := range left {
		said = append(said, r.Name()+": "+r.Err.Error())
	}
	all := strings.Join(said, "\n")
	for _, words := range []string{"team/vf", "set up VF nic-0000-1d-00-1", "not in the host's network namespace", "team/gpu", "PCI function " + bootGPU, "input/output error", "team/both"} {
		if !strings.Contains(all, words) {
			t.Errorf("it says %q, want %q in it", all, words)
		}
	}
	n.table.Fail, n.kernel.Before = nil, nil
	if _, left := n.release(t, "boot", ReleaseOptions{}); len(left) > 0 || n.devices() != n.before {
		t.Errorf("once mended: left are %v, the devices are\n%s", left, n.devices())
	}
}

func TestDryRunNamesWhatWasChanged(t *testing.T) {
	n := change(t)
	now := n.devices()
	all, _ := n.release(t, "boot", ReleaseOptions{DryRun: true})
	var lines []string
	for _, r := range all {
		lines = append(lines, r.Devices("boot")...)
	}
	want := []string{
		"nic-0000-1d-00-2: NIC in user space, IOMMU group 2: 0000:1d:00.2",
		"nic-0000-1d-00-2: VF settings that the claim changed (vlan 200, vlanQoS 0), of VF 1 of 0000:1d:00.0",
		"gpu-0000-20-00-0: GPU in user space, IOMMU group 1: 0000:20:00.0, 0000:20:00.1",
		"nic-0000-1d-00-1: netdev eth4",
		"nic-0000-1d-00-1: VF settings that the claim changed (mac 02:00:5e:10:00:01, vlan 100, vlanQoS 0, trust true), of VF 0 of 0000:1d:00.0",
	}
	if diff := gocmp.Diff(want, lines); diff != "" || n.devices() != now {
		t.Errorf("a dry run says (-want +got):\n%s\nand leaves\n%s", diff, n.devices())
	}
}
