// Package guest holds the tests that run in the emulated machine of test/vm:
// the agent's own discovery against a real kernel's sysfs and netlink. The
// machine has two igb PFs, one below each PCIe root and NUMA node, each with two
// VFs; the PFs and the first VF of the first PF carry soft RoCE devices.
package guest

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hostler-dev/hostler/test/vm"
	"github.com/hostler-dev/hostler/topology"
	"github.com/hostler-dev/hostler/topology/host"
)

// The functions' addresses are decided by QEMU's pxb-pcie bus numbers and, for
// VFs, by the PF's SR-IOV capability (offset 128, stride 2).
const (
	pf0 = "0000:21:00.0"
	pf1 = "0000:41:00.0"
)

func needMachine(t *testing.T) {
	t.Helper()
	if os.Getenv(vm.GuestEnv) != "1" {
		t.Skip("runs in the emulated machine; run it with: make test-vm")
	}
}

// discover reads the machine as the agent does. It accepts no problems but those
// with the named subjects.
func discover(t *testing.T, expected ...string) *topology.Snapshot {
	t.Helper()
	hardware, err := host.New(host.Config{}).ReadHardware(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s := topology.Assemble("", hardware, topology.Driver{State: topology.DriverMissing}, nil, nil)
	for _, n := range s.NICs {
		s.Problems = append(s.Problems, n.Problems...)
	}
	for i, p := range s.Problems {
		if i >= len(expected) || p.Subject != expected[i] {
			t.Errorf("discovery has an unexpected problem with %s: %s", p.Subject, p.Message)
		}
	}
	return s
}

// find returns the NIC at an address.
func find(t *testing.T, s *topology.Snapshot, address string) *topology.NIC {
	t.Helper()
	n := s.NIC(topology.NICName(address))
	if n == nil {
		t.Fatalf("discovery found no NIC at %s, but %s", address, strings.Join(addresses(s), " "))
	}
	return n
}

func addresses(s *topology.Snapshot) []string {
	var all []string
	for _, n := range s.NICs {
		all = append(all, n.Placement.PCI)
	}
	return all
}

// netdev is the name of a function's netdev, as sysfs has it.
func netdev(t *testing.T, address string) string {
	t.Helper()
	found, err := filepath.Glob("/sys/bus/pci/devices/" + address + "/net/*")
	if err != nil || len(found) != 1 {
		t.Fatalf("%s has %d netdevs (%v), want one", address, len(found), err)
	}
	return filepath.Base(found[0])
}

// write sets a sysfs attribute.
func write(t *testing.T, path, value string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(value), 0); err != nil {
		t.Fatal(err)
	}
}

// ip runs iproute2, which init put where busybox's applet of the same name is not in the way.
func ip(t *testing.T, args string) {
	t.Helper()
	if out, err := exec.Command("/opt/ip", strings.Fields(args)...).CombinedOutput(); err != nil {
		t.Fatalf("ip %s: %v: %s", args, err, out)
	}
}

// rdma runs iproute2's other program.
func rdma(t *testing.T, args string) {
	t.Helper()
	if out, err := exec.Command("/opt/rdma", strings.Fields(args)...).CombinedOutput(); err != nil {
		t.Fatalf("rdma %s: %v: %s", args, err, out)
	}
}

// eventually retries a check until it holds, for what the kernel does in its own
// time, such as a carrier that comes. The check returns "" or what is wrong.
func eventually(t *testing.T, check func() string) {
	t.Helper()
	wrong := check()
	for deadline := time.Now().Add(time.Minute); wrong != "" && time.Now().Before(deadline); wrong = check() {
		time.Sleep(50 * time.Millisecond)
	}
	if wrong != "" {
		t.Fatalf("after a minute still: %s", wrong)
	}
}
