package metrics

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"

	"github.com/hostler-dev/hostler/topology"
)

type failingLinks struct{ err error }

func (f failingLinks) ReadLink(int) (LinkReading, error) { return LinkReading{}, f.err }

func TestReadingANIC(t *testing.T) {
	nic := &machine().NICs[0]
	port := PortReading{RDMADevice: "mlx5_0", Port: 1, State: "ACTIVE", ReceivedBytes: ptr(1000.0), TransmittedBytes: ptr(2000.0), LinkDowned: ptr(2.0)}
	up := LinkReading{Up: true, ReceivedBytes: 5}
	withoutLink := *nic
	withoutLink.Link = nil
	for _, test := range []struct {
		name  string
		nic   *topology.NIC
		links LinkReader
		want  NICReading
		fails string
	}{
		{"netdev and RDMA port", nic, fakeLinks{7: up}, NICReading{Link: &up, Ports: []PortReading{port}}, ""},
		{"the netdev is in a pod", &withoutLink, failingLinks{errors.New("must not be asked")}, NICReading{Ports: []PortReading{port}}, ""},
		{"the netdev went into a pod just now", nic, failingLinks{netlink.LinkNotFoundError{}}, NICReading{Ports: []PortReading{port}}, ""},
		{"netlink fails: the port is read all the same", nic, failingLinks{errors.New("no buffer space")}, NICReading{Ports: []PortReading{port}}, "no buffer space"},
	} {
		t.Run(test.name, func(t *testing.T) {
			reader := &nicReader{sys: rdmaCounters(t), links: test.links, broken: map[string]time.Time{}}
			got, err := reader.read(test.nic, start)
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("reading (-want +got):\n%s", diff)
			}
			if (err == nil) != (test.fails == "") || err != nil && !strings.Contains(err.Error(), test.fails) {
				t.Errorf("error %v, want one with %q", err, test.fails)
			}
		})
	}
}

// One counter that cannot be read costs itself, and is not touched again for a while.
func TestCounterThatFailsIsLeftAlone(t *testing.T) {
	root := rdmaCounters(t)
	broken := filepath.Join(root, "class/infiniband/mlx5_0/ports/1/counters/port_rcv_data")
	if err := os.Remove(broken); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(broken, 0o750); err != nil { // reading a directory fails with EISDIR
		t.Fatal(err)
	}
	reader := &nicReader{sys: root, links: fakeLinks{}, broken: map[string]time.Time{}}
	nic := machine().NICs[0]
	nic.Link = nil
	for _, step := range []struct {
		name  string
		after time.Duration
		fails bool
	}{
		{"the first reading tells", 0, true},
		{"the next is silent", time.Minute, false},
		{"it is tried again when the quarantine is over", quarantine + time.Minute, true},
	} {
		reading, err := reader.read(&nic, start.Add(step.after))
		if (err != nil) != step.fails {
			t.Errorf("%s: error %v", step.name, err)
		}
		if p := reading.Ports[0]; p.ReceivedBytes != nil || p.TransmittedBytes == nil || p.State != "ACTIVE" {
			t.Errorf("%s: the port reads %+v, want all but the received bytes", step.name, p)
		}
	}
}

func TestNetlinkReaderReadsLoopback(t *testing.T) {
	loopback, err := netlink.LinkByName("lo")
	if err != nil {
		t.Skipf("no loopback device here: %v", err)
	}
	if _, err := (NetlinkReader{}).ReadLink(loopback.Attrs().Index); err != nil {
		t.Error(err)
	}
	var missing netlink.LinkNotFoundError
	if _, err := (NetlinkReader{}).ReadLink(1 << 30); !errors.As(err, &missing) {
		t.Errorf("a netdev that does not exist: %v, want one that is a LinkNotFoundError", err)
	}
}
