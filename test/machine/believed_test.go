package machine

import (
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/Mellanox/rdmamap"
	"github.com/NVIDIA/go-nvml/pkg/nvml"
	"github.com/NVIDIA/nvidia-container-toolkit/pkg/nvcdi"
	"golang.org/x/sys/unix"
)

// The libraries that the agent uses must take the rendered machine for a real
// one, without a hook in either.

// onMachine runs f where /sys and /dev are the machine's, in a mount namespace
// that ends with f's thread.
func onMachine(t *testing.T, r *Rendered, f func() error) {
	t.Helper()
	result := make(chan error)
	go func() {
		// Not unlocked, so that the thread and its namespace are thrown away.
		runtime.LockOSThread()
		err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_FS)
		if err == nil {
			err = unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
		}
		if err == nil {
			err = unix.Mount(r.Sys, "/sys", "", unix.MS_BIND|unix.MS_REC, "")
		}
		if err == nil {
			err = unix.Mount(r.Dev, "/dev", "", unix.MS_BIND|unix.MS_REC, "")
		}
		if err != nil {
			err = fmt.Errorf("mount: %w", err)
		} else {
			err = f()
		}
		result <- err
	}()
	err := <-result
	if errors.Is(err, unix.EPERM) {
		t.Skip("mounting needs CAP_SYS_ADMIN")
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestRDMAMapFindsTheRDMADevices(t *testing.T) {
	p := load(t, "dgx-h100")
	r := render(t, "dgx-h100", RenderOptions{})
	if len(r.Notes) > 0 {
		t.Skip(r.Notes)
	}
	onMachine(t, r, func() error {
		devices := rdmamap.GetRdmaDeviceList()
		slices.Sort(devices)
		if got, want := strings.Join(devices, " "), "mlx5_0 mlx5_1 mlx5_10 mlx5_11 mlx5_3 mlx5_4 mlx5_5 mlx5_6 mlx5_7 mlx5_9"; got != want {
			t.Errorf("RDMA devices: %s, want %s", got, want)
		}
		for _, n := range p.NICs {
			if got := rdmamap.GetRdmaDevicesForPcidev(n.PCI); !slices.Equal(got, []string{n.RDMA.Name}) {
				t.Errorf("RDMA devices of %s: %v, want %s", n.PCI, got, n.RDMA.Name)
			}
		}
		want := []string{"/dev/infiniband/issm9", "/dev/infiniband/umad9", "/dev/infiniband/uverbs9", "/dev/infiniband/rdma_cm"}
		if got := rdmamap.GetRdmaCharDevices("mlx5_9"); !slices.Equal(got, want) {
			t.Errorf("character devices of mlx5_9: %v, want %v", got, want)
		}
		stats, err := rdmamap.GetRdmaSysfsAllPortsStats("mlx5_9")
		if err != nil || len(stats.PortStats) != 1 || len(stats.PortStats[0].Stats) == 0 || len(stats.PortStats[0].HwStats) == 0 {
			t.Errorf("counters of mlx5_9: %+v, %v", stats, err)
		}
		return nil
	})
}

// An allowed node without a driver says so; isolation tests rely on that answer.
func TestDeviceNodesOpenAsDocumented(t *testing.T) {
	r := render(t, "dgx-h100", RenderOptions{})
	if len(r.Notes) > 0 {
		t.Skip(r.Notes)
	}
	onMachine(t, r, func() error {
		for path, want := range map[string]error{"/dev/null": nil, "/dev/urandom": nil, "/dev/nvidia7": unix.ENXIO, "/dev/infiniband/uverbs11": unix.ENXIO} {
			fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
			if err == nil {
				unix.Close(fd)
			}
			if !errors.Is(err, want) {
				t.Errorf("open %s: %v, want %v", path, err, want)
			}
		}
		return nil
	})
}

func TestNVCDIMakesFullSpecs(t *testing.T) {
	p := load(t, "dgx-h100")
	r := render(t, "dgx-h100", RenderOptions{})
	if len(r.Notes) > 0 {
		t.Skip(r.Notes)
	}
	library, err := nvcdi.New(
		nvcdi.WithMode("nvml"),
		nvcdi.WithDriverRoot(r.DriverRoot),
		nvcdi.WithDevRoot(filepath.Dir(r.Dev)),
		nvcdi.WithNvmlLib(nvml.New(nvml.WithLibraryPath(r.Library))),
		nvcdi.WithNVIDIACDIHookPath("/usr/bin/nvidia-cdi-hook"),
	)
	if err != nil {
		t.Fatal(err)
	}
	devices, err := library.GetDeviceSpecsByID(p.GPUUUID(0, p.GPUs[3].PCI))
	if err != nil {
		t.Fatal(err)
	}
	var nodes []string
	for _, n := range devices[0].ContainerEdits.DeviceNodes {
		nodes = append(nodes, n.Path)
	}
	if len(devices) != 1 || !slices.Equal(nodes, []string{"/dev/nvidia3"}) {
		t.Errorf("%d devices with nodes %v, want one with /dev/nvidia3", len(devices), nodes)
	}
	common, err := library.GetCommonEdits()
	if err != nil {
		t.Fatal(err)
	}
	var paths []string
	for _, n := range common.DeviceNodes {
		paths = append(paths, n.Path)
	}
	for _, m := range common.Mounts {
		paths = append(paths, m.ContainerPath)
	}
	for _, want := range []string{"/dev/nvidiactl", "/dev/nvidia-uvm", "/usr/lib64/libcuda.so." + p.Driver.Version, "/usr/lib64/libnvidia-ml.so." + p.Driver.Version, "/usr/bin/nvidia-smi"} {
		if !slices.Contains(paths, want) {
			t.Errorf("the common edits lack %s: %v", want, paths)
		}
	}
}
