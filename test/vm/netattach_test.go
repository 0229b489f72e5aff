package vm_test

import (
	"os"
	"testing"
	"time"

	"github.com/hostler-dev/hostler/test/vm"
)

// TestNetdevs runs those tests of netattach/link in the machine that need more of a
// kernel than machines with only veths have: VRFs, VLANs and features that drivers
// have. HOSTLER_VM_RUN chooses others.
func TestNetdevs(t *testing.T) {
	needMachine(t)
	run := os.Getenv("HOSTLER_VM_RUN")
	if run == "" {
		run = "VRF|VLAN|ComesHome"
	}
	result, err := vm.Run(t.Context(), vm.Options{
		TestBinary: buildTest(t, "../../netattach/link"),
		Args:       []string{"-test.v", "-test.timeout=14m", "-test.run=" + run},
		Output:     t.Output(),
		Timeout:    15 * time.Minute,
	})
	if err != nil {
		t.Fatal(err)
	}
	if result.ExitStatus != 0 {
		t.Fatalf("the tests in the machine ended with status %d; its console's last lines:\n%s", result.ExitStatus, result.Console)
	}
}
