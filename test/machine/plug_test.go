package machine

import (
	"context"
	"fmt"
	"net"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// namespace is a network namespace of the test's own, kept by a thread that
// never returns to the scheduler, and gone with the test.
func namespace(t *testing.T) string {
	t.Helper()
	var caps unix.CapUserHeader
	var sets [2]unix.CapUserData
	caps.Version = unix.LINUX_CAPABILITY_VERSION_3
	if err := unix.Capget(&caps, &sets[0]); err != nil || sets[0].Effective&(1<<unix.CAP_SYS_ADMIN) == 0 || sets[0].Effective&(1<<unix.CAP_NET_ADMIN) == 0 {
		t.Skip("making network namespaces needs CAP_SYS_ADMIN and CAP_NET_ADMIN")
	}
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

func handleAt(t *testing.T, path string) *netlink.Handle {
	t.Helper()
	ns, err := netns.GetFromPath(path)
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	h, err := netlink.NewHandleAt(ns)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.Close)
	return h
}

// in runs f on a thread inside the namespace.
func in(t *testing.T, path string, f func() error) error {
	t.Helper()
	result := make(chan error)
	go func() {
		runtime.LockOSThread()
		ns, err := netns.GetFromPath(path)
		if err == nil {
			defer ns.Close()
			err = netns.Set(ns)
		}
		if err == nil {
			err = f()
		}
		result <- err
	}()
	return <-result
}

func TestPluggedNICsMatchTheRenderedOnes(t *testing.T) {
	for _, name := range Names() {
		if name == large || name == "vlan-bond" {
			continue // more than the 1,024 ports of a bridge; refused
		}
		t.Run(name, func(t *testing.T) {
			p := load(t, name)
			options := PlugOptions{NodeNetNS: namespace(t), FabricNetNS: namespace(t), FabricBridge: "fabric", NodeIndex: 1}
			if err := Plug(t.Context(), p, options); err != nil {
				t.Fatal(err)
			}
			// Twice does nothing more.
			if err := Plug(t.Context(), p, options); err != nil {
				t.Fatal(err)
			}
			node := handleAt(t, options.NodeNetNS)
			for _, want := range p.Ports(1) {
				link, err := node.LinkByName(want.Name)
				if err != nil {
					t.Errorf("%s: %v", want.Name, err)
					continue
				}
				a := link.Attrs()
				if a.HardwareAddr.String() != want.MAC.String() || a.MTU != want.MTU || a.Flags&net.FlagUp == 0 {
					t.Errorf("%s has MAC %s, MTU %d, flags %s; want %s, %d, up", want.Name, a.HardwareAddr, a.MTU, a.Flags, want.MAC, want.MTU)
				}
			}
			if _, err := node.LinkByName(p.UplinkName()); err == nil {
				t.Errorf("the uplink %s was plugged, which is the cluster's to make", p.UplinkName())
			}
			if err := Unplug(t.Context(), p, options); err != nil {
				t.Fatal(err)
			}
			links, err := node.LinkList()
			if err != nil {
				t.Fatal(err)
			}
			if len(links) != 1 {
				t.Errorf("%d links are left after Unplug, want lo alone", len(links))
			}
		})
	}
}

func TestUnplugReachesNICsThatPodsTook(t *testing.T) {
	p := load(t, "workstation")
	options := PlugOptions{NodeNetNS: namespace(t), FabricNetNS: namespace(t), FabricBridge: "fabric"}
	if err := Plug(t.Context(), p, options); err != nil {
		t.Fatal(err)
	}
	pod := namespace(t)
	podNS, err := netns.GetFromPath(pod)
	if err != nil {
		t.Fatal(err)
	}
	defer podNS.Close()
	node, inPod := handleAt(t, options.NodeNetNS), handleAt(t, pod)
	link, err := node.LinkByName("enp102s0f0v2")
	if err != nil {
		t.Fatal(err)
	}
	if err := node.LinkSetNsFd(link, int(podNS)); err != nil {
		t.Fatal(err)
	}

	// A second Plug must not make another one in its place.
	if err := Plug(t.Context(), p, options); err != nil {
		t.Fatal(err)
	}
	if _, err := node.LinkByName("enp102s0f0v2"); err == nil {
		t.Error("Plug made a second netdev for a NIC that is in a pod")
	}
	if _, err := inPod.LinkByName("enp102s0f0v2"); err != nil {
		t.Errorf("the pod lost its NIC: %v", err)
	}
	if err := Unplug(t.Context(), p, options); err != nil {
		t.Fatal(err)
	}
	if _, err := inPod.LinkByName("enp102s0f0v2"); err == nil {
		t.Error("the NIC is still in the pod after Unplug")
	}
}

func TestTwoNICsOfDifferentNodesExchangePackets(t *testing.T) {
	p := load(t, "dgx-h100")
	fabric := namespace(t)
	var nodes []string
	for index := range 2 {
		node := namespace(t)
		nodes = append(nodes, node)
		if err := Plug(t.Context(), p, PlugOptions{NodeNetNS: node, FabricNetNS: fabric, FabricBridge: "fabric", NodeIndex: index}); err != nil {
			t.Fatal(err)
		}
		h := handleAt(t, node)
		link, err := h.LinkByName("enp24s0np0")
		if err != nil {
			t.Fatal(err)
		}
		address, err := netlink.ParseAddr(fmt.Sprintf("198.51.100.%d/24", index+1))
		if err != nil {
			t.Fatal(err)
		}
		if err := h.AddrAdd(link, address); err != nil {
			t.Fatal(err)
		}
	}
	var listener net.PacketConn
	if err := in(t, nodes[1], func() (err error) {
		listener, err = net.ListenPacket("udp4", "198.51.100.2:7000")
		return err
	}); err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	if err := in(t, nodes[0], func() error {
		c, err := net.Dial("udp4", "198.51.100.2:7000")
		if err != nil {
			return err
		}
		defer c.Close()
		_, err = c.Write([]byte("hello"))
		return err
	}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	deadline, _ := ctx.Deadline()
	if err := listener.SetReadDeadline(deadline); err != nil {
		t.Fatal(err)
	}
	buffer := make([]byte, 16)
	n, from, err := listener.ReadFrom(buffer)
	if err != nil || string(buffer[:n]) != "hello" {
		t.Fatalf("got %q from %v: %v", buffer[:n], from, err)
	}
}
