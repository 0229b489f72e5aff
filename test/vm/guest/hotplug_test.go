package guest

// Hardware that leaves and comes back while the observer runs. ttyS3 leads to
// QEMU's monitor; the guest sees a button pressed at the PCIe port and a card
// that goes after the five seconds in which the button could be pressed again.

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/hostler-dev/hostler/topology"
	"github.com/hostler-dev/hostler/topology/nic"
	"github.com/hostler-dev/hostler/topology/uevent"
)

// monitor speaks QMP, QEMU's machine protocol.
type monitor struct {
	t     *testing.T
	line  *os.File
	lines *bufio.Scanner
}

func openMonitor(t *testing.T) *monitor {
	t.Helper()
	line, err := os.OpenFile("/dev/ttyS3", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { line.Close() })
	m := &monitor{t: t, line: line, lines: bufio.NewScanner(line)}
	// The port was in echo when QEMU greeted it, so QEMU has heard some of its own
	// words. 0xff cannot be part of JSON: what came before it is over, with an error at most.
	m.send("\xff", "qmp_capabilities", map[string]any{})
	for {
		if _, refused := m.answer(); !refused {
			return m
		}
	}
}

func (m *monitor) send(prefix, command string, arguments map[string]any) {
	m.t.Helper()
	request, err := json.Marshal(map[string]any{"execute": command, "arguments": arguments})
	if err != nil {
		m.t.Fatal(err)
	}
	if _, err := m.line.WriteString(prefix + string(request) + "\n"); err != nil {
		m.t.Fatal(err)
	}
}

// answer is the next answer to a command: what QEMU says against it, if it does. Events are passed over.
func (m *monitor) answer() (reason string, refused bool) {
	m.t.Helper()
	for m.lines.Scan() {
		var answer struct {
			Return *json.RawMessage
			Error  *struct{ Desc string }
		}
		if json.Unmarshal(m.lines.Bytes(), &answer) != nil {
			continue // the end of a greeting of which the port lost the beginning
		}
		if answer.Error != nil {
			return answer.Error.Desc, true
		}
		if answer.Return != nil {
			return "", false
		}
	}
	m.t.Fatalf("QEMU does not answer: %v", m.lines.Err())
	return "", false
}

func (m *monitor) do(command string, arguments map[string]any) {
	m.t.Helper()
	m.send("", command, arguments)
	if reason, refused := m.answer(); refused {
		m.t.Fatalf("QEMU refuses %s: %s", command, reason)
	}
}

// await returns when QEMU announces an event.
func (m *monitor) await(event string) {
	m.t.Helper()
	for m.lines.Scan() {
		var announced struct{ Event string }
		if json.Unmarshal(m.lines.Bytes(), &announced) == nil && announced.Event == event {
			return
		}
	}
	m.t.Fatalf("QEMU announces no %s: %v", event, m.lines.Err())
}

func TestAPFIsUnpluggedAndPluggedAgain(t *testing.T) {
	needMachine(t)
	qemu := openMonitor(t)
	snapshots := observe(t, nic.Watch, uevent.Watch)
	await := func(what string, is func(*topology.Snapshot) bool) *topology.Snapshot {
		t.Helper()
		timeout := time.After(time.Minute)
		for {
			select {
			case s := <-snapshots:
				if is(s) {
					return s
				}
			case <-timeout:
				t.Fatalf("in a minute the observer announced no snapshot %s", what)
			}
		}
	}
	complete := func(s *topology.Snapshot) bool {
		for _, address := range []string{pf1, "0000:41:10.0", "0000:41:10.2"} {
			if n := s.NIC(topology.NICName(address)); n == nil || n.Link == nil {
				return false
			}
		}
		return true
	}
	before := await("of the whole machine", complete)

	qemu.do("device_del", map[string]any{"id": "nic1"})
	gone := await("without the PF", func(s *topology.Snapshot) bool { return s.NIC(topology.NICName(pf1)) == nil && len(s.NICs) == 3 })
	if want := addresses(before)[:3]; !cmp.Equal(want, addresses(gone)) {
		t.Errorf("left are %v, want the other PF and its VFs %v", addresses(gone), want)
	}
	for _, n := range gone.NICs {
		if was := before.NIC(n.Name); was == nil || !cmp.Equal(was.Placement, n.Placement) {
			t.Errorf("%s sits at %+v now", n.Name, n.Placement)
		}
	}

	qemu.await("DEVICE_DELETED") // the slot is without power, and the name free

	qemu.do("device_add", map[string]any{"driver": "igb", "id": "nic1", "bus": "port1", "netdev": "net1", "mac": "02:00:00:00:40:00"})
	await("with the PF again", func(s *topology.Snapshot) bool {
		n := s.NIC(topology.NICName(pf1))
		return n != nil && n.Link != nil && n.Driver == "igb"
	})
	ip(t, "link set "+netdev(t, pf1)+" up")
	write(t, "/sys/bus/pci/devices/"+pf1+"/sriov_numvfs", "2")
	after := await("of the whole machine again", complete)
	if !cmp.Equal(addresses(before), addresses(after)) {
		t.Errorf("the NICs are %v, before they were %v", addresses(after), addresses(before))
	}
	rdma(t, fmt.Sprintf("link add rxe_%s type rxe netdev %[1]s", netdev(t, pf1)))
	await("with its RDMA device", func(s *topology.Snapshot) bool {
		n := s.NIC(topology.NICName(pf1))
		return n != nil && n.RDMA != nil
	})
}
