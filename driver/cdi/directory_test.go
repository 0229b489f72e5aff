package cdi

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"k8s.io/apimachinery/pkg/types"
	tagscdi "tags.cncf.io/container-device-interface/pkg/cdi"
	"tags.cncf.io/container-device-interface/specs-go"

	"github.com/hostler-dev/hostler/topology"
)

const claimUID types.UID = "0c5a3b0e-8f4b-4c3c-9a55-0a6f5f0b7f10"

// builder makes specs for a machine in a directory, with one GPU's nodes and
// one RDMA device's.
func builder(t testing.TB) *Builder {
	t.Helper()
	dev := filepath.Join(t.TempDir(), "dev")
	if err := os.MkdirAll(filepath.Join(dev, "infiniband"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, node := range []string{"nvidia3", "nvidiactl", "nvidia-uvm", "infiniband/uverbs0", "infiniband/rdma_cm"} {
		if err := os.WriteFile(filepath.Join(dev, node), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	root := filepath.Dir(dev)
	return &Builder{
		GPUs: NewNVIDIA(NVIDIAConfig{DriverRoot: root, HostDriverRoot: "/host/driver", Dev: dev, HostDev: "/host/dev", Hook: filepath.Join(root, "hook")}),
		Gate: Gate{Path: "/var/lib/hostler/bin/hostler-gate", Socket: "/run/hostler/gate.sock", Records: "/run/hostler/attached"},
		Dev:  dev, HostDev: "/host/dev",
	}
}

func theGPU() *topology.GPU {
	return &topology.GPU{Name: "gpu-0000-17-00-0", Index: 3, Minor: 3, UUID: "GPU-4cf8db2d-06c0-7d70-1a51-e59b25b2c16c", Placement: topology.Placement{PCI: "0000:17:00.0"}}
}

func build(t *testing.T, b *Builder, claim *Claim) *specs.Spec {
	t.Helper()
	spec, err := b.Build(t.Context(), claim)
	if err != nil {
		t.Fatal(err)
	}
	return spec
}

func egressClaim() *Claim {
	return &Claim{UID: claimUID, Devices: []Device{{Name: "egress"}}, Entry: []byte(`{"claimUID":"x"}`)}
}

func TestEnsureRepairsTheFile(t *testing.T) {
	directory := Directory{Path: filepath.Join(t.TempDir(), "cdi")}
	spec := build(t, builder(t), egressClaim())
	for _, step := range []struct {
		name    string
		before  func() error
		written bool
	}{
		{"first prepare", func() error { return nil }, true},
		{"second prepare finds it right", func() error { return nil }, false},
		{"someone deleted the file", func() error { return os.Remove(directory.File(claimUID)) }, true},
		{"someone deleted the directory", func() error { return os.RemoveAll(directory.Path) }, true},
		{"someone emptied the file", func() error { return os.Truncate(directory.File(claimUID), 0) }, true},
		{"an interrupted write left its temporary file", func() error {
			return os.WriteFile(filepath.Join(directory.Path, "."+filepath.Base(directory.File(claimUID))+".tmp"), []byte("half"), 0o600)
		}, false},
	} {
		if err := step.before(); err != nil {
			t.Fatal(err)
		}
		if err := directory.Verify(claimUID, encoded(t, spec)); (err != nil) != step.written {
			t.Errorf("%s: before Ensure, Verify says %v", step.name, err)
		}
		written, err := directory.Ensure(claimUID, encoded(t, spec))
		if err != nil || written != step.written {
			t.Errorf("%s: wrote %v, %v; want %v", step.name, written, err, step.written)
		}
		if err := directory.Verify(claimUID, encoded(t, spec)); err != nil {
			t.Errorf("%s: %v", step.name, err)
		}
	}
}

// An agent that takes over finds the specs of its predecessor's claims, in other words.
func TestTheSameSpecInOtherWordsIsLeftAlone(t *testing.T) {
	directory := Directory{Path: t.TempDir()}
	now := encoded(t, build(t, builder(t), egressClaim()))
	var indented bytes.Buffer
	if err := json.Indent(&indented, now, "", "  "); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(directory.File(claimUID), indented.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := directory.Verify(claimUID, now); err != nil {
		t.Error(err)
	}
	if written, err := directory.Ensure(claimUID, now); written || err != nil {
		t.Errorf("written: %t, %v", written, err)
	}
	other := bytes.Replace(indented.Bytes(), []byte("NVIDIA_VISIBLE_DEVICES=void"), []byte("NVIDIA_VISIBLE_DEVICES=all"), 1)
	if err := os.WriteFile(directory.File(claimUID), other, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := directory.Verify(claimUID, now); err == nil {
		t.Error("a spec that gives every GPU passes for ours")
	}
}

func TestRuntimeReadsTheSpec(t *testing.T) {
	directory := Directory{Path: t.TempDir()}
	if _, err := directory.Ensure(claimUID, encoded(t, build(t, builder(t), egressClaim()))); err != nil {
		t.Fatal(err)
	}
	cache, err := tagscdi.NewCache(tagscdi.WithSpecDirs(directory.Path), tagscdi.WithAutoRefresh(false))
	if err != nil {
		t.Fatal(err)
	}
	if err := cache.Refresh(); err != nil {
		t.Fatal(err)
	}
	if got, want := cache.ListDevices(), []string{DeviceID(claimUID, "egress")}; !slices.Equal(got, want) {
		t.Errorf("the runtime sees %v, want %v", got, want)
	}
}

func TestListAndRemove(t *testing.T) {
	directory := Directory{Path: filepath.Join(t.TempDir(), "cdi")}
	if claims, err := directory.List(); err != nil || len(claims) != 0 {
		t.Errorf("a directory that does not exist yet lists %v, %v", claims, err)
	}
	if _, err := directory.Ensure(claimUID, encoded(t, build(t, builder(t), egressClaim()))); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(directory.Path, "nvidia.com-gpu.json"), []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	if claims, err := directory.List(); err != nil || !slices.Equal(claims, []types.UID{claimUID}) {
		t.Errorf("lists %v, %v; want ours alone", claims, err)
	}
	if entry, err := directory.Entry(claimUID); err != nil || string(entry) != `{"claimUID":"x"}` {
		t.Errorf("the spec carries entry %q, %v", entry, err)
	}
	for range 2 {
		if err := directory.Remove(claimUID); err != nil {
			t.Fatal(err)
		}
	}
	if claims, err := directory.List(); err != nil || len(claims) != 0 {
		t.Errorf("after Remove: %v, %v", claims, err)
	}
}

func encoded(t *testing.T, spec *specs.Spec) []byte {
	t.Helper()
	raw, err := Encode(claimUID, spec)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func TestUnfinishedSpecIsRemoved(t *testing.T) {
	d := Directory{Path: t.TempDir()}
	for range 2 { // the second time there is none
		if err := d.RemoveUnfinished("uid"); err != nil {
			t.Fatal(err)
		}
		if _, err := d.Ensure("uid", []byte("{}")); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(d.File("uid"), unfinished(d.File("uid"))); err != nil {
			t.Fatal(err)
		}
		if err := d.RemoveUnfinished("uid"); err != nil {
			t.Fatal(err)
		}
		if left, err := os.ReadDir(d.Path); err != nil || len(left) > 0 {
			t.Fatalf("left in the directory: %v, %v", left, err)
		}
	}
	if err := (Directory{Path: d.Path + "/none"}).RemoveUnfinished("uid"); err != nil {
		t.Errorf("without a directory: %v", err)
	}
}
