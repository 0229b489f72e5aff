package link

// What is asked for is what passes, in both directions. The bounds are generous:
// a busy machine lets less through, never more.

import (
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"pgregory.net/rapid"

	"github.com/hostler-dev/hostler/netattach/internal/nettest"
)

// flow moves bytes over TCP for a while and returns how many bits per second arrived.
func flow(t *testing.T, from, to *nettest.Namespace, address string, while time.Duration) float64 {
	t.Helper()
	var listener net.Listener
	var err error
	to.Do(t, func() { listener, err = net.Listen("tcp", address+":0") })
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	var sender net.Conn
	from.Do(t, func() { sender, err = net.Dial("tcp", listener.Addr().String()) })
	if err != nil {
		t.Fatal(err)
	}
	defer sender.Close()
	receiver, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer receiver.Close()
	go func() {
		for payload := make([]byte, 128<<10); ; {
			if _, err := sender.Write(payload); err != nil {
				return // the test closes the connection
			}
		}
	}()
	// What arrives first may have been waiting in the bucket.
	if _, err := io.CopyN(io.Discard, receiver, 512<<10); err != nil {
		t.Fatal(err)
	}
	started := time.Now()
	if err := receiver.SetReadDeadline(started.Add(while)); err != nil {
		t.Fatal(err)
	}
	count, err := io.Copy(io.Discard, receiver)
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatal(err)
	}
	return float64(count) * 8 / time.Since(started).Seconds()
}

func TestChildMovesWhatItAskedForAndNoMore(t *testing.T) {
	const limit, while = 20e6, time.Second
	m := newSharedMachine(t)
	limited := m.share(t, "share-1", "net1", "10.1.0.5/24")
	limited.Bandwidth = limit
	limited = m.attach(t, m.pod, limited)
	free := m.attach(t, m.other, m.share(t, "share-2", "net1", "10.1.0.6/24"))
	for name, direction := range map[string]func(pod *nettest.Namespace, address string) float64{
		"sends":    func(pod *nettest.Namespace, _ string) float64 { return flow(t, pod, m.peer, "10.1.0.1", while) },
		"receives": func(pod *nettest.Namespace, address string) float64 { return flow(t, m.peer, pod, address, while) },
	} {
		slow, fast := direction(m.pod, "10.1.0.5"), direction(m.other, "10.1.0.6")
		t.Logf("a child limited to %.0f Mbit/s %s %.1f, one without a limit %.0f", limit/1e6, name, slow/1e6, fast/1e6)
		if slow > 2*limit {
			t.Errorf("a child with %.0f Mbit/s %s %.1f", limit/1e6, name, slow/1e6)
		}
		if fast < 5*slow {
			t.Errorf("a child without a limit %s %.1f Mbit/s, beside one that %s %.1f; the limit is not what limits", name, fast/1e6, name, slow/1e6)
		}
	}
	m.home(t, m.pod, limited)
	m.home(t, m.other, free)
	m.asItWas(t)
}

func TestLimitThatIsGoneIsMissedAndMadeAgain(t *testing.T) {
	m := newSharedMachine(t)
	device := m.share(t, "share-1", "net1", "10.1.0.5/24")
	device.Bandwidth = 20e6
	device = m.attach(t, m.pod, device)
	there, err := open(m.pod.FD)
	if err != nil {
		t.Fatal(err)
	}
	defer there.Close()
	root := func(name string) netlink.Qdisc { return bucket(m.pod.Link(t, name).Attrs().Index, device.Bandwidth) }
	for name, spoil := range map[string]func() error{
		"what it sends":    func() error { return there.QdiscDel(root("net1")) },
		"what it receives": func() error { return there.QdiscDel(root(ifbName(device))) },
		"the way in": func() error {
			return there.QdiscDel(&netlink.Clsact{QdiscAttrs: netlink.QdiscAttrs{LinkIndex: device.PodIndex, Parent: netlink.HANDLE_CLSACT, Handle: netlink.MakeHandle(0xffff, 0)}})
		},
		"the device behind it":           func() error { return there.LinkDel(m.pod.Link(t, ifbName(device))) },
		"that the device behind it runs": func() error { return there.LinkSetDown(m.pod.Link(t, ifbName(device))) },
		"the rate":                       func() error { return there.QdiscReplace(bucket(device.PodIndex, 10*device.Bandwidth)) },
	} {
		if err := there.limited(m.pod.Link(t, "net1"), device); err != nil {
			t.Fatalf("before %s: %v", name, err)
		}
		if err := spoil(); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if there.limited(m.pod.Link(t, "net1"), device) == nil {
			t.Errorf("%s is not missed", name)
		}
		device = m.attach(t, m.pod, device)
	}
	if err := there.limited(m.pod.Link(t, "net1"), device); err != nil {
		t.Error(err)
	}
	m.home(t, m.pod, device)
}

// From a megabit to what no NIC has yet, the kernel takes the bucket as it is meant.
func TestKernelKeepsEveryLimit(t *testing.T) {
	m := newSharedMachine(t)
	device := m.attach(t, m.pod, m.share(t, "share-1", "net1", "10.1.0.5/24"))
	there, err := open(m.pod.FD)
	if err != nil {
		t.Fatal(err)
	}
	defer there.Close()
	link := m.pod.Link(t, "net1")
	rapid.Check(t, func(t *rapid.T) {
		rate := rapid.Uint64Range(1, 3_200_000).Draw(t, "Mbit/s") * 1e6
		asked := bucket(device.PodIndex, rate)
		if err := there.QdiscReplace(asked); err != nil {
			t.Fatalf("%d bit/s: %v", rate, err)
		}
		if err := there.hasBucket(link, rate); err != nil {
			t.Errorf("%d bit/s: %v", rate, err)
		}
		qdiscs, err := there.QdiscList(link)
		if err != nil {
			t.Fatal(err)
		}
		for _, qdisc := range qdiscs {
			tbf, ok := qdisc.(*netlink.Tbf)
			if !ok {
				continue
			}
			if holds := float64(tbf.Buffer) * tickNanoseconds / 1e9 * float64(rate) / 8; holds < leastBurst*0.95 {
				t.Errorf("%d bit/s: the bucket holds %.0f bytes, less than one long segment", rate, holds)
			}
			if tbf.Limit < leastQueue {
				t.Errorf("%d bit/s: the queue holds %d bytes", rate, tbf.Limit)
			}
		}
	})
}

func TestKernelWithoutAModuleIsNamed(t *testing.T) {
	m := newSharedMachine(t)
	device := m.share(t, "share-1", "net1", "10.1.0.5/24")
	device.Bandwidth = 4 // less than a byte a second: the kernel refuses the bucket
	index, err := m.links.Into(t.Context(), m.pod.FD, device)
	if err != nil {
		t.Fatal(err)
	}
	device.PodIndex = index
	if err := m.links.Up(t.Context(), m.pod.FD, device); err == nil || !strings.Contains(err.Error(), "cannot limit net1 (nic-0000-18-00-0)") || !strings.Contains(err.Error(), "sch_tbf") {
		t.Errorf("%v; want a refusal that names the device and the modules", err)
	}
	if m.pod.Link(t, "net1").Attrs().RawFlags&1 != 0 {
		t.Error("the child is up without its limit")
	}
}
