// Package guest holds the tests that run in the emulated machine of test/vm.
package guest

import (
	"os"
	"os/exec"
	"testing"

	"github.com/hostler-dev/hostler/test/vm"
)

func TestLook(t *testing.T) {
	if os.Getenv(vm.GuestEnv) != "1" {
		t.Skip("runs in the emulated machine; run it with: make test-vm")
	}
	out, err := exec.Command("/bin/sh", "-c", `
/opt/rdma link; 
/opt/ip addr; dmesg | tail -20; sleep 3; /opt/rdma link; /opt/ip -br link; wc -l /proc/modules
ls /sys/class/infiniband/rxe_eth0/ports/1; for a in vlan; do /opt/ip link add bond0 type bond mode active-backup miimon 100 && /opt/ip link set eth5 down; /opt/ip link set eth5 master bond0; /opt/ip link set bond0 up;  /opt/ip link add link bond0 name bond0.5 type vlan id 5 && /opt/ip link set bond0.5 up; /opt/ip -d link show bond0.5; ls -d /sys/class/net/bond0.5/*; done`).CombinedOutput()
	t.Logf("%s %v", out, err)
}
