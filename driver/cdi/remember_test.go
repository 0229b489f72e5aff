package cdi

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"tags.cncf.io/container-device-interface/specs-go"

	"github.com/hostler-dev/hostler/topology"
)

func TestNvcdiIsAskedAgainWhenTheMachineHasChanged(t *testing.T) {
	b := builder(t)
	n := b.GPUs.(*NVIDIA)
	driver := topology.Driver{Version: "570.124.06"}
	gpu := theGPU()
	asked := 0
	ask := func() (*specs.ContainerEdits, error) {
		asked++
		return &specs.ContainerEdits{}, nil
	}
	for _, step := range []struct {
		name   string
		change func() error
		asks   bool
	}{
		{"first", func() error { return nil }, true},
		{"nothing has changed", func() error { return nil }, false},
		{"a DRM node directory appears", func() error { return os.Mkdir(filepath.Join(b.Dev, "dri"), 0o755) }, true},
		// The directory's time is set, since file systems may keep it no finer than the clock's tick.
		{"a DRM node appears", func() error { return os.Chtimes(filepath.Join(b.Dev, "dri"), time.Time{}, time.Unix(1, 0)) }, true},
		{"its links appear", func() error { return os.Mkdir(filepath.Join(b.Dev, "dri", "by-path"), 0o755) }, true},
		{"the GPU has another number", func() error { gpu.Minor = 5; return nil }, true},
		{"the hook appears", func() error { return os.WriteFile(n.cfg.Hook, nil, 0o700) }, true},
		{"the driver is another", func() error { driver.Version = "580.65.06"; return nil }, true},
		{"nothing has changed since", func() error { return nil }, false},
	} {
		if err := step.change(); err != nil {
			t.Fatal(err)
		}
		asked = 0
		if _, err := n.remembered(driver, gpu, ask); err != nil {
			t.Fatal(err)
		}
		if (asked > 0) != step.asks {
			t.Errorf("%s: asked %d times", step.name, asked)
		}
	}
}

func TestAFailureOfNvcdiIsNotRemembered(t *testing.T) {
	n := builder(t).GPUs.(*NVIDIA)
	driver := topology.Driver{Version: "570.124.06"}
	if _, err := n.remembered(driver, theGPU(), func() (*specs.ContainerEdits, error) { return nil, errors.New("no driver") }); err == nil {
		t.Error("the failure is lost")
	}
	edits, err := n.remembered(driver, theGPU(), func() (*specs.ContainerEdits, error) {
		return &specs.ContainerEdits{Env: []string{"A=1"}}, nil
	})
	if err != nil || len(edits.Env) != 1 {
		t.Errorf("after it: %v, %v", edits, err)
	}
}

// What one claim's containers get must not reach those of the next by way of what is remembered.
func TestAClaimAddsNothingToWhatIsRemembered(t *testing.T) {
	b := builder(t)
	claim := withDriverFiles(t, b)
	first := build(t, b, claim)
	with := *claim
	with.Devices = append([]Device(nil), claim.Devices...)
	with.Devices[0].Capabilities = []string{"graphics"}
	with.Devices[0].RDMA = &topology.RDMADevice{Name: "mlx5_0", CharDevices: []string{"/dev/infiniband/uverbs0"}}
	with.Devices[0].Mounts = []Mount{{Host: "/a", Container: "/b"}}
	if more := build(t, b, &with); reflect.DeepEqual(first, more) {
		t.Fatal("a claim that asks for more gets no more")
	}
	if again := build(t, b, claim); !reflect.DeepEqual(first, again) {
		t.Errorf("after another claim asked for more: %+v, before: %+v", again.Devices, first.Devices)
	}
}

func TestAllEditsAreShared(t *testing.T) {
	edits, err := (&NVIDIA{cfg: NVIDIAConfig{}, answers: map[string]answer{}}).remembered(topology.Driver{}, nil, func() (*specs.ContainerEdits, error) {
		full := &specs.ContainerEdits{}
		value := reflect.ValueOf(full).Elem()
		for i := range value.NumField() {
			if field := value.Field(i); field.Kind() == reflect.Slice {
				field.Set(reflect.MakeSlice(field.Type(), 1, 8))
			}
		}
		return full, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	value := reflect.ValueOf(edits).Elem()
	for i := range value.NumField() {
		if field := value.Field(i); field.Kind() == reflect.Slice && (field.Len() != 1 || field.Cap() != 1) {
			t.Errorf("%s has room that two claims would write to", value.Type().Field(i).Name)
		}
	}
}
