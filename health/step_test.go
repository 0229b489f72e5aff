package health

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/hostler-dev/hostler/topology"
)

const (
	gpuA, gpuB = "gpu-0000-17-00-0", "gpu-0000-2a-00-0"
	nicA       = "nic-0000-18-00-0"
)

var (
	start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	rules = Rules{RecoveryHoldDown: 10 * time.Second, LinkDownDelay: 30 * time.Second, IgnoredXIDs: []int32{74}}
)

func inventory(boot string, devices ...string) Inventory {
	i := Inventory{BootID: boot, Driver: DriverReport{State: topology.DriverReady}}
	for _, d := range devices {
		i.GPUs = append(i.GPUs, GPUPresence{Device: d, PCI: "pci of " + d})
	}
	return i
}

func well(device string) ProbeResult { return ProbeResult{Device: device, Action: ActionNone} }

// at is one observation, seconds after the start.
type at struct {
	second int
	o      Observation
}

func replay(t *testing.T, script ...at) State {
	t.Helper()
	var state State
	for _, entry := range script {
		state, _ = rules.Step(state, entry.o, start.Add(time.Duration(entry.second)*time.Second))
	}
	return state
}

// brief writes verdicts as "device family severity reason".
func brief(verdicts []Verdict) []string {
	var lines []string
	for _, v := range verdicts {
		lines = append(lines, fmt.Sprintf("%s %s %s %s", v.Device, v.Family, v.Severity, v.Reason))
	}
	return lines
}

func TestStep(t *testing.T) {
	both := at{0, inventory("boot1", gpuA, gpuB)}
	for _, test := range []struct {
		name   string
		script []at
		want   []string
	}{
		{"a healthy machine has no verdicts", []at{both, {1, well(gpuA)}, {2, Tick{}}}, nil},
		{"XID 79 is fatal", []at{both, {1, XIDEvent{gpuA, 79}}}, []string{gpuA + " xid Fatal 79"}},
		{"a harmless XID 45 after a 79 does not heal the GPU",
			[]at{both, {1, XIDEvent{gpuA, 79}}, {2, XIDEvent{gpuA, 45}}}, []string{gpuA + " xid Fatal 79"}},
		{"an XID of equal weight does not take the first one's place",
			[]at{both, {1, XIDEvent{gpuA, 48}}, {2, XIDEvent{gpuA, 95}}}, []string{gpuA + " xid NeedsReset 48"}},
		{"a worse XID takes its place",
			[]at{both, {1, XIDEvent{gpuA, 48}}, {2, XIDEvent{gpuA, 79}}}, []string{gpuA + " xid Fatal 79"}},
		{"an XID number from the future is noted only", []at{both, {1, XIDEvent{gpuA, 4711}}}, []string{gpuA + " xid Info 4711"}},
		{"an XID that the administrator ignores is noted only", []at{both, {1, XIDEvent{gpuA, 74}}}, []string{gpuA + " xid Info 74"}},
		{"the driver's recovery action outranks a number that says little",
			[]at{both, {1, XIDEvent{gpuA, 109}}, {2, ProbeResult{Device: gpuA, Action: ActionReset}}},
			[]string{gpuA + " recovery-action NeedsReset Reset", gpuA + " xid Info 109"}},
		{"a lost GPU taints itself and not its neighbour",
			[]at{both, {1, ProbeResult{Device: gpuA, Lost: true, Action: ActionUnknown}}, {1, well(gpuB)}}, []string{gpuA + " gpu-lost Fatal lost"}},
		{"a hung GPU is a family of its own",
			[]at{both, {1, ProbeResult{Device: gpuA, Hung: true}}}, []string{gpuA + " hung NeedsReset no-answer"}},
		{"a GPU that the driver no longer lists is lost",
			[]at{both, {9, inventory("boot1", gpuB)}}, []string{gpuA + " gpu-lost Fatal vanished"}},
		{"a GPU that was taken out while the node was off is not",
			[]at{both, {9, inventory("boot2", gpuB)}}, nil},
		{"with every GPU lost the fault is the node's",
			[]at{both, {1, ProbeResult{Device: gpuA, Lost: true}}, {2, ProbeResult{Device: gpuB, Hung: true}}},
			[]string{" all-gpus Fatal none-usable", gpuA + " gpu-lost Fatal lost", gpuB + " hung NeedsReset no-answer"}},
		{"so it is with every GPU silent",
			[]at{both, {1, ProbeResult{Device: gpuA, Silent: true, Error: "no"}}, {2, ProbeResult{Device: gpuB, Silent: true, Error: "no"}}},
			[]string{" all-gpus Fatal none-usable", gpuA + " probe Degraded error", gpuB + " probe Degraded error"}},
		{"GPUs that live and of which something cannot be read are usable",
			[]at{both, {1, ProbeResult{Device: gpuA, Error: "no rows"}}, {2, ProbeResult{Device: gpuB, Error: "no rows"}}},
			[]string{gpuA + " reading Degraded error", gpuB + " reading Degraded error"}},
		{"a driver that worked and fails is the node's fault",
			[]at{both, {5, Inventory{BootID: "boot1", Driver: DriverReport{State: topology.DriverFailed}}}}, []string{" driver Fatal failed"}},
		{"a driver that is gone within the same boot, too",
			[]at{both, {5, Inventory{BootID: "boot1", Driver: DriverReport{State: topology.DriverMissing}}}}, []string{" driver Fatal missing"}},
		{"a node that never had a driver is well", []at{{0, Inventory{BootID: "boot1", Driver: DriverReport{State: topology.DriverMissing}}}}, nil},
		{"a driver that has never worked is not judged", []at{{0, Inventory{BootID: "boot1", Driver: DriverReport{State: topology.DriverFailed}}}}, nil},
		{"memory: a pending row remapping degrades",
			[]at{both, {1, ProbeResult{Device: gpuA, Action: ActionNone, RemapPending: true}}}, []string{gpuA + " memory Degraded remap-pending"}},
		{"memory: uncorrectable errors ask for a reset where the driver has no opinion",
			[]at{both, {1, ProbeResult{Device: gpuA, Action: ActionUnknown, UncorrectedECC: true}}}, []string{gpuA + " memory NeedsReset uncorrectable-ecc"}},
		{"memory: contained errors degrade",
			[]at{both, {1, ProbeResult{Device: gpuA, Action: ActionNone, UncorrectedECC: true}}}, []string{gpuA + " memory Degraded contained-ecc"}},
		{"a port that was never up is unused, not broken", []at{{0, Ports{{nicA, false, "link eth1"}}}, {99, Ports{{nicA, false, "link eth1"}}}}, nil},
		{"a port that went down a moment ago may just have come home",
			[]at{{0, Ports{{nicA, true, ""}}}, {1, Ports{{nicA, false, "link eth1"}}}, {5, Ports{{nicA, false, "link eth1"}}}}, nil},
		{"a port that stays down degrades its NIC",
			[]at{{0, Ports{{nicA, true, ""}}}, {1, Ports{{nicA, false, "link eth1"}}}, {31, Ports{{nicA, false, "link eth1"}}}},
			[]string{nicA + " link Degraded down"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := brief(replay(t, test.script...).Verdicts())
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("verdicts (-want +got):\n%s", diff)
			}
		})
	}
}

func TestRecovery(t *testing.T) {
	both := at{0, inventory("boot1", gpuA, gpuB)}
	unknown := ProbeResult{Device: gpuA, Action: ActionUnknown}
	unread := ProbeResult{Device: gpuA, Action: ActionUnknown, Error: "no fields"}
	pending := ProbeResult{Device: gpuA, Action: ActionNone, RemapPending: true}
	hung := ProbeResult{Device: gpuA, Action: ActionUnknown, Hung: true}
	for _, test := range []struct {
		name   string
		script []at
		want   []string
	}{
		{"clean for the whole hold-down lifts", []at{both, {1, XIDEvent{gpuA, 79}}, {2, well(gpuA)}, {12, well(gpuA)}, {12, Tick{}}}, nil},
		{"one second less does not", []at{both, {1, XIDEvent{gpuA, 79}}, {2, well(gpuA)}, {11, well(gpuA)}, {60, Tick{}}}, []string{gpuA + " xid Fatal 79"}},
		{"time without a probe proves nothing", []at{both, {1, XIDEvent{gpuA, 79}}, {999, Tick{}}}, []string{gpuA + " xid Fatal 79"}},
		{"a relapse starts the hold-down again",
			[]at{both, {1, XIDEvent{gpuA, 79}}, {2, well(gpuA)}, {8, XIDEvent{gpuA, 45}}, {9, well(gpuA)}, {13, well(gpuA)}, {13, Tick{}}},
			[]string{gpuA + " xid Fatal 79"}},
		{"a neighbour's health says nothing",
			[]at{both, {1, XIDEvent{gpuA, 79}}, {2, well(gpuB)}, {60, well(gpuB)}, {60, Tick{}}}, []string{gpuA + " xid Fatal 79"}},
		{"without a recovery action a passed probe does not undo a grave XID",
			[]at{both, {1, XIDEvent{gpuA, 48}}, {2, unknown}, {99, unknown}, {99, Tick{}}}, []string{gpuA + " xid NeedsReset 48"}},
		{"but a mild one", []at{both, {1, XIDEvent{gpuA, 63}}, {2, unknown}, {99, unknown}, {99, Tick{}}}, nil},
		{"and what the probe itself measures", []at{both, {1, ProbeResult{Device: gpuA, Lost: true}}, {2, unknown}, {12, unknown}, {12, Tick{}}}, nil},
		{"a hung GPU that answers again is not hung, whatever else is wrong with it",
			[]at{both, {1, ProbeResult{Device: gpuA, Hung: true, Action: ActionUnknown}}, {2, pending}, {12, pending}, {12, Tick{}}}, []string{gpuA + " memory Degraded remap-pending"}},
		{"nor is a lost one that answers lost",
			[]at{both, {1, ProbeResult{Device: gpuA, Lost: true}}, {2, pending}, {12, pending}, {12, Tick{}}}, []string{gpuA + " memory Degraded remap-pending"}},
		{"but it is lost for as long as it hangs", []at{both, {1, ProbeResult{Device: gpuA, Lost: true}}, {2, hung}, {99, hung}, {99, Tick{}}},
			[]string{gpuA + " gpu-lost Fatal lost", gpuA + " hung NeedsReset no-answer"}},
		{"and what was heard before it hung does not count",
			[]at{both, {1, ProbeResult{Device: gpuA, Lost: true}}, {2, well(gpuA)}, {3, hung}, {99, well(gpuA)}, {99, Tick{}}},
			[]string{gpuA + " gpu-lost Fatal lost", gpuA + " hung NeedsReset no-answer"}},
		{"a driver that no longer asks for a reset has had it",
			[]at{both, {1, ProbeResult{Device: gpuA, Action: ActionReset}}, {2, pending}, {12, pending}, {12, Tick{}}}, []string{gpuA + " memory Degraded remap-pending"}},
		{"one that cannot be asked may still want it",
			[]at{both, {1, ProbeResult{Device: gpuA, Action: ActionReset}}, {2, unread}, {12, unread}, {12, Tick{}}},
			[]string{gpuA + " reading Degraded error", gpuA + " recovery-action NeedsReset Reset"}},
		{"an XID is not forgiven while anything else is wrong",
			[]at{both, {1, XIDEvent{gpuA, 79}}, {2, pending}, {99, pending}, {99, Tick{}}}, []string{gpuA + " memory Degraded remap-pending", gpuA + " xid Fatal 79"}},
		{"a reboot and one passed probe lift at once",
			[]at{both, {1, XIDEvent{gpuA, 48}}, {20, inventory("boot2", gpuA, gpuB)}, {21, unknown}, {21, Tick{}}}, nil},
		{"a reboot alone does not",
			[]at{both, {1, XIDEvent{gpuA, 48}}, {20, inventory("boot2", gpuA, gpuB)}, {99, Tick{}}}, []string{gpuA + " xid NeedsReset 48"}},
		{"a fault of a GPU that was taken out is forgotten",
			[]at{both, {1, XIDEvent{gpuA, 79}}, {20, inventory("boot2", gpuB)}, {20, Tick{}}}, nil},
		{"a driver that is back for the hold-down lifts the node's fault",
			[]at{both, {5, Inventory{BootID: "boot1", Driver: DriverReport{State: topology.DriverFailed}}}, {6, both.o}, {16, both.o}, {16, Tick{}}}, nil},
		{"a driver of which no new snapshot says otherwise stays back",
			[]at{both, {5, Inventory{BootID: "boot1", Driver: DriverReport{State: topology.DriverFailed}}}, {6, both.o}, {16, DriverReport{State: topology.DriverReady}}, {16, Tick{}}}, nil},
		{"the first GPU that is back lifts the node's fault, not the other GPU's",
			[]at{both, {1, ProbeResult{Device: gpuA, Lost: true}}, {1, ProbeResult{Device: gpuB, Lost: true}}, {2, well(gpuA)}, {12, well(gpuA)}, {12, Tick{}}},
			[]string{gpuB + " gpu-lost Fatal lost"}},
		{"a port that is up again for the hold-down",
			[]at{{0, Ports{{nicA, true, ""}}}, {1, Ports{{nicA, false, "x"}}}, {31, Ports{{nicA, false, "x"}}}, {40, Ports{{nicA, true, ""}}}, {50, Ports{{nicA, true, ""}}}, {50, Tick{}}}, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := brief(replay(t, test.script...).Verdicts())
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("verdicts (-want +got):\n%s", diff)
			}
		})
	}
}

func TestReactionsTellWhatChanged(t *testing.T) {
	state := replay(t, at{0, inventory("boot1", gpuA, gpuB)})
	for _, step := range []struct {
		o    Observation
		want Change
	}{
		{XIDEvent{gpuA, 48}, Raised}, {XIDEvent{gpuA, 79}, Worsened}, {XIDEvent{gpuA, 45}, Repeated},
	} {
		var changes []Reaction
		state, changes = rules.Step(state, step.o, start.Add(time.Second))
		if len(changes) != 1 || changes[0].Change != step.want {
			t.Errorf("after %v: reactions %v, want one that is %s", step.o, changes, step.want)
		}
	}
	if count := state.Verdicts()[0].Count; count != 3 {
		t.Errorf("three XIDs count %d", count)
	}
	for second := 2; second <= 12; second += 10 {
		state, _ = rules.Step(state, well(gpuA), start.Add(time.Duration(second)*time.Second))
	}
	if _, changes := rules.Step(state, Tick{}, start.Add(12*time.Second)); len(changes) != 1 || changes[0].Change != Cleared {
		t.Errorf("after recovery: reactions %v, want one Cleared", changes)
	}
}

func TestCatalogue(t *testing.T) {
	for code := uint64(1); code <= CatalogueSize; code++ {
		if xid := LookupXID(code); xid.Class == ClassUnknown || xid.Meaning == "" {
			t.Errorf("XID %d is not classified", code)
		}
	}
	if got := LookupXID(CatalogueSize + 1).Class; got != ClassUnknown {
		t.Errorf("an XID beyond the catalogue has class %s", got)
	}
	for _, code := range []uint64{8, 13, 31, 32, 43, 45, 60, 68, 69, 109} {
		if got := LookupXID(code).Class.Severity(); got != Info {
			t.Errorf("XID %d is an application's, yet has severity %s", code, got)
		}
	}
}
