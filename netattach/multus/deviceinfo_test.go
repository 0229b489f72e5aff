package multus

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	nadv1 "github.com/k8snetworkplumbingwg/network-attachment-definition-client/pkg/apis/k8s.cni.cncf.io/v1"
	"sigs.k8s.io/yaml"
)

// The name is the one of nadutils.LoadDeviceInfoFromDP, by which Multus looks.
func TestDeviceInfoIsWhatMultusReads(t *testing.T) {
	d := DeviceInfo{Path: filepath.Join(t.TempDir(), "devinfo")}
	device := Device{ResourceName: "example.com/rail", PCI: "0000:18:00.2", RDMA: "mlx5_4"}
	if err := d.Verify(device); err == nil {
		t.Error("a file that is not there is taken for right")
	}
	for range 2 { // the second time it is there already
		if err := d.Write(device); err != nil {
			t.Fatal(err)
		}
		if err := d.Verify(device); err != nil {
			t.Fatal(err)
		}
	}
	file := filepath.Join(d.Path, "dp", "example.com-rail-0000:18:00.2-device.json")
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var got nadv1.DeviceInfo
	if err := yaml.UnmarshalStrict(raw, &got); err != nil {
		t.Fatal(err)
	}
	want := nadv1.DeviceInfo{Type: "pci", Version: "1.1.0", Pci: &nadv1.PciDevice{PciAddress: "0000:18:00.2", RdmaDevice: "mlx5_4"}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the file (-want +got):\n%s", diff)
	}
	other := device
	other.RDMA = "mlx5_5"
	if err := d.Verify(other); err == nil {
		t.Error("a file of another content is taken for right")
	}
	for range 2 {
		if err := d.Remove(device); err != nil {
			t.Fatal(err)
		}
	}
	if left, err := os.ReadDir(filepath.Dir(file)); err != nil || len(left) > 0 {
		t.Errorf("left in the directory: %v, %v", left, err)
	}
}

// An agent was killed in the middle of a write.
func TestUnfinishedDeviceInfoIsWrittenAnewOrRemoved(t *testing.T) {
	for _, again := range []bool{true, false} {
		d := DeviceInfo{Path: t.TempDir()}
		device := Device{ResourceName: "example.com/rail", PCI: "0000:18:00.0"}
		if err := d.Write(device); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(d.File(device), unfinished(d.File(device))); err != nil {
			t.Fatal(err)
		}
		if again {
			if err := errors.Join(d.Write(device), d.Verify(device)); err != nil {
				t.Error(err)
			}
		}
		if err := d.Remove(device); err != nil {
			t.Error(err)
		}
		if left, err := os.ReadDir(filepath.Dir(d.File(device))); err != nil || len(left) > 0 {
			t.Errorf("left in the directory: %v, %v", left, err)
		}
	}
}
