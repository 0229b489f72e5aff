package pcibus

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/hostler-dev/hostler/test/machine"
	"github.com/hostler-dev/hostler/test/nvmlsim"
)

// Of the profile workstation.
const (
	gpu = "0000:65:00.0"
	pf  = "0000:66:00.0"
	vf  = "0000:66:00.3"
)

// server is a machine whose PCI bus answers, its netdevs in namespaces of the test's own.
type server struct {
	*testing.T
	*machine.Rendered
	control nvmlsim.Control
	node    *netlink.Handle
}

func serve(t *testing.T, options machine.RenderOptions) *server {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("mounting the bus and making device nodes needs root")
	}
	if _, err := os.Stat("/dev/fuse"); err != nil {
		t.Skip("the kernel has no FUSE: ", err)
	}
	p, err := machine.Load("workstation")
	must(t, err)
	p.IOMMUGroups = false
	dir := machine.TempDir(t)
	rendered, err := machine.Render(p, dir, options)
	must(t, err)
	nodePath, fabricPath := namespace(t), namespace(t)
	plug := machine.PlugOptions{NodeNetNS: nodePath, FabricNetNS: fabricPath, FabricBridge: "fabric"}
	must(t, machine.Plug(t.Context(), p, plug))
	s := &server{T: t, Rendered: rendered, control: nvmlsim.Control{Dir: rendered.Control}}
	ns, err := netns.GetFromPath(nodePath)
	must(t, err)
	defer ns.Close()
	s.node, err = netlink.NewHandleAt(ns)
	must(t, err)
	t.Cleanup(s.node.Close)
	bus, err := New(Config{Machine: dir, Functions: FunctionsOf(p, s.control, plug)})
	must(t, err)
	mounted, err := Mount(bus)
	must(t, err)
	t.Cleanup(func() { must(t, mounted.Unmount()) })
	return s
}

// write is one write to a file below bus/pci that must exist, as the product and shells do it.
func (s *server) write(path, value string) error {
	file, err := os.OpenFile(filepath.Join(s.Sys, "bus/pci", path), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = file.WriteString(value)
	return errors.Join(err, file.Close())
}

// must write.
func (s *server) order(path, value string) {
	s.Helper()
	must(s.T, s.write(path, value))
}

func (s *server) expectDriver(pci, want string) {
	s.Helper()
	if got := linkBase(filepath.Join(s.Sys, "bus/pci/devices", pci, "driver")); got != want {
		s.Errorf("%s is bound to %q, want %q", pci, got, want)
	}
	for _, driver := range []string{"nvidia", "mlx5_core", VFIO} {
		_, err := os.Lstat(filepath.Join(s.Sys, "bus/pci/drivers", driver, pci))
		if there := err == nil; there != (driver == want) {
			s.Errorf("%s is among the functions of %s: %t", pci, driver, there)
		}
	}
}

func (s *server) exists(path ...string) bool {
	_, err := os.Stat(filepath.Join(path...))
	return err == nil
}

func TestGPUGoesToUserSpaceAndComesBack(t *testing.T) {
	s := serve(t, machine.RenderOptions{IOMMU: true})
	group := filepath.Join(s.Dev, "vfio", linkBase(filepath.Join(s.Sys, "bus/pci/devices", gpu, "iommu_group")))
	s.expectDriver(gpu, "nvidia")

	s.order("devices/"+gpu+"/driver_override", VFIO+"\n")
	if override := s.read("devices/" + gpu + "/driver_override"); override != VFIO+"\n" {
		t.Errorf("driver_override says %q", override)
	}
	s.order("devices/"+gpu+"/driver/unbind", gpu)
	s.expectDriver(gpu, "")
	if !s.exists(s.Control, "gpu1/unbound") {
		t.Error("NVML still counts the GPU that lost its driver")
	}
	s.order("drivers_probe", gpu)
	s.expectDriver(gpu, VFIO)
	if info, err := os.Stat(group); err != nil || info.Mode()&os.ModeCharDevice == 0 {
		t.Errorf("the group's device node: %v, %v", info, err)
	}

	s.order("devices/"+gpu+"/driver_override", "\n")
	if override := s.read("devices/" + gpu + "/driver_override"); override != "(null)\n" {
		t.Errorf("driver_override says %q after it was removed", override)
	}
	s.order("devices/"+gpu+"/driver/unbind", gpu)
	if s.exists(group) {
		t.Error("the group's device node is there without a function in user space")
	}
	s.order("drivers/nvidia/bind", gpu)
	s.expectDriver(gpu, "nvidia")
	if s.exists(s.Control, "gpu1/unbound") {
		t.Error("NVML does not count the GPU that has its driver back")
	}
	if uevent := s.read("devices/" + gpu + "/uevent"); !strings.Contains(uevent, "DRIVER=nvidia\n") || strings.Count(uevent, "DRIVER=") != 1 {
		t.Errorf("uevent of the GPU: %s", uevent)
	}
}

func (s *server) read(path string) string {
	s.Helper()
	content, err := os.ReadFile(filepath.Join(s.Sys, "bus/pci", path))
	must(s.T, err)
	return string(content)
}

func TestNetdevGoesWithItsDriver(t *testing.T) {
	s := serve(t, machine.RenderOptions{IOMMU: true})
	const name = "enp102s0f0v1"
	before := s.netdev(name)
	if before == "" {
		t.Fatal("the VF has no netdev at first")
	}
	s.order("devices/"+vf+"/driver/unbind", vf)
	s.expectDriver(vf, "")
	if now := s.netdev(name); now != "" {
		t.Errorf("the node still has %s", now)
	}
	shown := []string{"class/net/" + name, "class/infiniband/mlx5_2", "class/infiniband_verbs/uverbs2", "bus/pci/devices/" + vf + "/net"}
	for _, path := range shown {
		if _, err := os.Lstat(filepath.Join(s.Sys, path)); err == nil {
			t.Errorf("sysfs still shows %s", path)
		}
	}
	if !s.exists(s.Sys, "class/net/enp102s0f0v0") || s.netdev("enp102s0f0v0") == "" {
		t.Error("another VF lost its netdev, too")
	}
	s.order("drivers_probe", vf)
	s.expectDriver(vf, "mlx5_core")
	if now := s.netdev(name); now != before {
		t.Errorf("the netdev came back as %q, was %q", now, before)
	}
	for _, path := range shown {
		if !s.exists(s.Sys, path) {
			t.Errorf("sysfs does not show %s again", path)
		}
	}
}

// netdev is a netdev of the node as "address mtu up", "" if it is not there.
func (s *server) netdev(name string) string {
	s.Helper()
	link, err := s.node.LinkByName(name)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return ""
	}
	must(s.T, err)
	return fmt.Sprintf("%s %d up=%t", link.Attrs().HardwareAddr, link.Attrs().MTU, link.Attrs().RawFlags&unix.IFF_UP != 0)
}

func TestKernelRefuses(t *testing.T) {
	s := serve(t, machine.RenderOptions{IOMMU: true})
	for _, test := range []struct {
		what, path, value string
		want              error
	}{
		{"to unbind a function from a driver that does not have it", "drivers/vfio-pci/unbind", gpu, syscall.ENODEV},
		{"to bind a driver that the function's IDs do not name", "drivers/vfio-pci/bind", gpu, syscall.ENODEV},
		{"to bind a function that is bound", "drivers/nvidia/bind", gpu, syscall.EBUSY},
		{"to probe what is not there", "drivers_probe", "0000:ff:00.0", syscall.ENODEV},
		{"but not to probe a function that is bound", "drivers_probe", pf, nil},
	} {
		if err := s.write(test.path, test.value); !errors.Is(err, test.want) {
			t.Errorf("%s: %v, want %v", test.what, err, test.want)
		}
	}
	if content, err := os.ReadFile(filepath.Join(s.Sys, "bus/pci/drivers_probe")); err == nil {
		t.Errorf("drivers_probe can be read, and says %q", content)
	}
	s.expectDriver(gpu, "nvidia")
	s.expectDriver(pf, "mlx5_core")
}

func TestWithoutAnIOMMUNothingGoesToUserSpace(t *testing.T) {
	s := serve(t, machine.RenderOptions{})
	s.order("devices/"+gpu+"/driver_override", VFIO)
	s.order("devices/"+gpu+"/driver/unbind", gpu)
	if err := s.write("drivers_probe", gpu); !errors.Is(err, syscall.EINVAL) {
		t.Errorf("probing a function without a group: %v, want EINVAL", err)
	}
	s.expectDriver(gpu, "")
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// namespace is a network namespace that goes with the test.
func namespace(t *testing.T) string {
	t.Helper()
	made, done := make(chan string), make(chan struct{})
	go func() {
		// Not unlocked: the thread ends with the goroutine, and the namespace with both.
		runtime.LockOSThread()
		if _, err := netns.New(); err != nil {
			t.Error(err)
			close(made)
			return
		}
		made <- fmt.Sprintf("/proc/%d/task/%d/ns/net", os.Getpid(), unix.Gettid())
		<-done
	}()
	path, ok := <-made
	if !ok {
		t.FailNow()
	}
	t.Cleanup(func() { close(done) })
	return path
}
