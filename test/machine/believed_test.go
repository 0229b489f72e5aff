package machine

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
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

// onMachine runs f where the machine's folders are mounted over the real ones,
// in a mount namespace that ends with f's thread.
func onMachine(t *testing.T, mounts []mount, f func() error) {
	t.Helper()
	result := make(chan error)
	go func() {
		// Not unlocked, so that the thread and its namespace are thrown away.
		runtime.LockOSThread()
		err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_FS)
		if err == nil {
			err = unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
		}
		for _, m := range mounts {
			if err == nil {
				err = unix.Mount(m.source, m.target, "", unix.MS_BIND|unix.MS_REC, "")
			}
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

type mount struct{ source, target string }

func sysAndDev(r *Rendered) []mount { return []mount{{r.Sys, "/sys"}, {r.Dev, "/dev"}} }

func TestRDMAMapFindsTheRDMADevices(t *testing.T) {
	p := load(t, "dgx-h100")
	r := render(t, "dgx-h100", RenderOptions{})
	if len(r.Notes) > 0 {
		t.Skip(r.Notes)
	}
	onMachine(t, sysAndDev(r), func() error {
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
	onMachine(t, sysAndDev(r), func() error {
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

// In a process of its own, since one can load a single NVML library.
func TestNVCDIMakesSpecsOfMIGDevices(t *testing.T) {
	const variable = "HOSTLER_TEST_PROCESS"
	if os.Getenv(variable) != t.Name() {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
		cmd.Env = append(os.Environ(), variable+"="+t.Name())
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		if strings.Contains(string(out), "--- SKIP") {
			t.Skipf("%s", out)
		}
		return
	}
	p := load(t, "hgx-a100-mig")
	r := render(t, "hgx-a100-mig", RenderOptions{})
	if len(r.Notes) > 0 {
		t.Skip(r.Notes)
	}
	onMachine(t, []mount{{r.ProcDriver, "/proc/driver"}}, func() error {
		library, err := nvcdi.New(
			nvcdi.WithMode("nvml"),
			nvcdi.WithDriverRoot(r.DriverRoot),
			nvcdi.WithDevRoot(filepath.Dir(r.Dev)),
			nvcdi.WithNvmlLib(nvml.New(nvml.WithLibraryPath(r.Library))),
			nvcdi.WithNVIDIACDIHookPath("/usr/bin/nvidia-cdi-hook"),
		)
		if err != nil {
			return err
		}
		// The 3g.20gb of GPU 2, GPU instance 2.
		devices, err := library.GetDeviceSpecsByID(p.MIGUUID(0, p.GPUs[2].PCI, 2, 0))
		if err != nil {
			return err
		}
		var nodes []string
		for _, n := range devices[0].ContainerEdits.DeviceNodes {
			nodes = append(nodes, n.Path)
		}
		if want := []string{"/dev/nvidia2", "/dev/nvidia-caps/nvidia-cap291", "/dev/nvidia-caps/nvidia-cap292"}; !slices.Equal(nodes, want) {
			t.Errorf("the MIG device has the nodes %v, want %v", nodes, want)
		}
		return nil
	})
}
