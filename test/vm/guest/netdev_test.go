package guest

// A real VF in a pod's namespace and home again. What only a physical netdev does:
// its driver has features and refuses addresses, and when its namespace dies the
// kernel takes it back to the host, under the name that it had in the pod.

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/hostler-dev/hostler/netattach"
	"github.com/hostler-dev/hostler/netattach/link"
)

// podNamespace is a network namespace that lives as long as the file is open. The
// thread that makes it goes back: the process's first one would stay for ever, and
// RDMA does not become exclusive while there is any namespace but the host's.
func podNamespace(t *testing.T) *os.File {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	own, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
	made, err := os.Open("/proc/thread-self/ns/net")
	if back := unix.Setns(int(own.Fd()), unix.CLONE_NEWNET); back != nil {
		panic(back)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { made.Close() })
	return made
}

// portrait is all that iproute2, ethtool's names in sysfs and sysctls show of a netdev.
func portrait(t *testing.T, name string) []string {
	t.Helper()
	var lines []string
	for _, attribute := range []string{"address", "mtu", "flags", "tx_queue_len", "ifalias", "netdev_group"} {
		raw, err := os.ReadFile(filepath.Join("/sys/class/net", name, attribute))
		if err != nil {
			t.Fatal(err)
		}
		lines = append(lines, attribute+" "+strings.TrimSpace(string(raw)))
	}
	for _, args := range []string{"-o address show scope global dev " + name, "route show table all dev " + name, "-6 route show table all dev " + name, "neigh show nud permanent dev " + name} {
		out, err := exec.Command("/opt/ip", strings.Fields(args)...).Output()
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(out)) {
			_, line, _ = strings.Cut("1: "+line, ": ")
			line = strings.TrimLeft(strings.TrimSpace(line), "0123456789: ")
			// Link-local routes and the table of the host's own addresses come in the kernel's own time.
			if !strings.Contains(line, "fe80::") && !strings.Contains(line, "table local") && !strings.Contains(line, "ff00::") {
				lines = append(lines, strings.Join(strings.Fields(strings.ReplaceAll(line, "linkdown", "")), " "))
			}
		}
	}
	for _, setting := range []string{"ipv4/conf/*/arp_ignore", "ipv6/conf/*/accept_ra", "ipv4/neigh/*/gc_stale_time"} {
		raw, err := os.ReadFile("/proc/sys/net/" + strings.Replace(setting, "*", name, 1))
		if err != nil {
			t.Fatal(err)
		}
		lines = append(lines, setting+" "+strings.TrimSpace(string(raw)))
	}
	slices.Sort(lines)
	return lines
}

// claimVF furnishes a VF's netdev on the host and says what a claim wants of it.
func claimVF(t *testing.T, pci string) netattach.DeviceIntent {
	t.Helper()
	name := netdev(t, pci)
	for _, args := range []string{
		"link set " + name + " up alias rail mtu 1450 group 42", "address add 192.0.2.5/24 dev " + name, "address add 2001:db8:7::5/64 dev " + name + " nodad",
		"route add 198.51.100.0/24 via 192.0.2.1 dev " + name + " metric 50 table 100", "neigh add 192.0.2.77 lladdr 02:00:00:00:00:77 dev " + name,
	} {
		ip(t, args)
	}
	t.Cleanup(func() {
		name := netdev(t, pci)
		ip(t, "neigh del 192.0.2.77 dev "+name) // before the last address goes, and all neighbours with it (fib_disable_ip)
		ip(t, "address flush dev "+name)
		ip(t, "link set "+name+" down mtu 1500 group default alias none")
	})
	write(t, "/proc/sys/net/ipv4/conf/"+name+"/arp_ignore", "2")
	write(t, "/proc/sys/net/ipv4/neigh/"+name+"/gc_stale_time", "90")
	t.Cleanup(func() { write(t, "/proc/sys/net/ipv4/conf/"+netdev(t, pci)+"/arp_ignore", "0") })
	return netattach.DeviceIntent{
		Device: "nic-vf", PCI: pci, HostName: name, PodName: "rail9", HostMAC: addressOf(t, pci), MTU: 1400,
		HardwareAddress: "02:00:5e:10:00:07", Features: map[string]bool{"tx-scatter-gather": false},
		Sysctls: map[string]string{"net/ipv4/conf/IFNAME/arp_ignore": "1"},
	}
}

func TestVFComesHomeFromItsPod(t *testing.T) {
	needMachine(t)
	host, err := link.NewHost(link.HostConfig{})
	if err != nil {
		t.Fatal(err)
	}
	defer host.Close()
	ctx := context.Background()
	for name, test := range map[string]struct {
		home func(t *testing.T, pod *os.File, device netattach.DeviceIntent)
	}{
		"by the hook": {func(t *testing.T, pod *os.File, device netattach.DeviceIntent) {
			if found, err := host.Home(ctx, int(pod.Fd()), device); err != nil || !found {
				t.Fatalf("%v, %v", found, err)
			}
		}},
		"when its namespace has died": {func(t *testing.T, pod *os.File, device netattach.DeviceIntent) {
			if err := pod.Close(); err != nil {
				t.Fatal(err)
			}
			eventually(t, func() string { // the kernel takes namespaces apart in its own time
				found, err := host.Restore(ctx, device)
				if err != nil {
					t.Fatal(err)
				}
				if !found {
					return "the kernel has not returned the VF"
				}
				return ""
			})
		}},
	} {
		t.Run(name, func(t *testing.T) {
			device := claimVF(t, vfOf1.PCI)
			before := portrait(t, device.HostName)
			device, err := host.Remember(device)
			if err != nil {
				t.Fatal(err)
			}
			pod := podNamespace(t)
			if device.PodIndex, err = host.Into(ctx, int(pod.Fd()), device); err != nil {
				t.Fatal(err)
			}
			if err := host.Up(ctx, int(pod.Fd()), device); err != nil {
				t.Fatal(err)
			}
			if state, err := link.State(int(pod.Fd()), device); err != nil || state.MAC != "02:00:5e:10:00:07" || state.Interface != "rail9" {
				t.Errorf("in the pod: %+v, %v", state, err)
			}
			test.home(t, pod, device)
			if diff := cmp.Diff(before, portrait(t, device.HostName)); diff != "" {
				t.Errorf("the VF is not as it was (-before +after):\n%s", diff)
			}
		})
	}
}

// A VF whose PF has set its address takes no other, and the claim is told so.
func TestAddressThatAVFMayNotTakeIsRefusedAndUndone(t *testing.T) {
	needMachine(t)
	host, err := link.NewHost(link.HostConfig{})
	if err != nil {
		t.Fatal(err)
	}
	defer host.Close()
	vfs := openVFs(t)
	step := prepareVF(t, vfs, vfOf1, netattach.VFSettings{MAC: new("02:00:5e:10:00:08")})
	if err := step.Do(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := step.Undo(context.Background()); err != nil {
			t.Error(err)
		}
	})
	device := claimVF(t, vfOf1.PCI)
	before := portrait(t, device.HostName)
	if device, err = host.Remember(device); err != nil {
		t.Fatal(err)
	}
	_, err = host.Into(context.Background(), int(podNamespace(t).Fd()), device)
	if err == nil || !strings.Contains(err.Error(), "hardware address 02:00:5e:10:00:07") || !strings.Contains(err.Error(), "vf.mac") {
		t.Errorf("%v; want a refusal that names the address and the setting", err)
	}
	if diff := cmp.Diff(before, portrait(t, device.HostName)); diff != "" {
		t.Errorf("the VF is not as it was (-before +after):\n%s", diff)
	}
}
