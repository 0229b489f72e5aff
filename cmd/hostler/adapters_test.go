package main

import (
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	resourceapi "k8s.io/api/resource/v1"

	"github.com/hostler-dev/hostler/api/v1alpha1"
	"github.com/hostler-dev/hostler/driver/cdi"
	"github.com/hostler-dev/hostler/driver/claim"
	"github.com/hostler-dev/hostler/driver/gpu/gputest"
	"github.com/hostler-dev/hostler/driver/publish"
	"github.com/hostler-dev/hostler/health"
	"github.com/hostler-dev/hostler/health/react"
	"github.com/hostler-dev/hostler/metrics"
	"github.com/hostler-dev/hostler/netattach"
	"github.com/hostler-dev/hostler/topology"
)

const (
	cutGPU, wholeGPU, onlyNIC = "gpu-0000-47-00-0", "gpu-0000-20-00-0", "nic-0000-18-00-0"
	onlyPair                  = "pair-0000-20-00-0-0000-18-00-0"
	onePartition              = cutGPU + "-mig-1g-10gb-0"
)

// mixedMachine has a whole GPU with a NIC, and a GPU in MIG mode with one partition.
func mixedMachine(t *testing.T) *topology.Snapshot {
	t.Helper()
	cut := gputest.New("0000:47:00.0")
	if _, err := cut.CreatePartition(t.Context(), "0000:47:00.0", 19, topology.MIGPlacement{Size: 1}); err != nil {
		t.Fatal(err)
	}
	return &topology.Snapshot{
		Driver: topology.Driver{State: topology.DriverReady},
		GPUs:   []topology.GPU{{Name: wholeGPU, UUID: "GPU-1", Placement: topology.Placement{PCI: "0000:20:00.0"}}, cut.Snapshot()},
		NICs:   []topology.NIC{{Name: onlyNIC, Kind: topology.PF, Link: &topology.Link{Name: "eth1"}, Placement: topology.Placement{PCI: "0000:18:00.0"}}},
	}
}

// Health speaks of GPUs and NICs; a partition and a pair have the faults of what they are made of.
func TestFaultsReachWhatTheHardwareIsOfferedAs(t *testing.T) {
	snapshot := mixedMachine(t)
	devices := react.Devices(snapshot)
	for _, test := range []struct {
		name    string
		verdict health.Verdict
		spared  []string // everything else is tainted
	}{
		{"a GPU in MIG mode needs a reset", health.Verdict{Device: cutGPU, Family: health.FamilyXID, Severity: health.NeedsReset, Reason: "48"}, []string{wholeGPU, onlyNIC, onlyPair}},
		{"a whole GPU is lost", health.Verdict{Device: wholeGPU, Family: health.FamilyGPULost, Severity: health.Fatal, Reason: "lost"}, []string{cutGPU, onePartition, onlyNIC}},
		{"a NIC is broken", health.Verdict{Device: onlyNIC, Family: health.FamilyLink, Severity: health.NeedsReset, Reason: "down"}, []string{wholeGPU, cutGPU, onePartition}},
		{"the driver is dead", health.Verdict{Family: health.FamilyDriver, Severity: health.Fatal, Reason: "failed"}, []string{onlyNIC}},
		{"an XID that is the program's own fault", health.Verdict{Device: cutGPU, Family: health.FamilyXID, Severity: health.Info, Reason: "13"}, []string{wholeGPU, cutGPU, onePartition, onlyNIC, onlyPair}},
	} {
		resources := publish.Resources(publish.Input{
			NodeName: "node1", Snapshot: snapshot, Features: publish.Features{Taints: true, Counters: true, SharedDevices: true},
			Taints: taints([]health.Verdict{test.verdict}, devices), Publish: v1alpha1.PublishConfig{CompositeDevices: true},
		})
		var spared []string
		for _, slice := range resources.Pools[publish.DevicePool("node1")].Slices {
			for _, device := range slice.Devices {
				tainted := slices.ContainsFunc(device.Taints, func(taint resourceapi.DeviceTaint) bool {
					return taint.Key == react.KeyPrefix+string(test.verdict.Family)
				})
				named := slices.Contains([]string{wholeGPU, cutGPU, onePartition, onlyNIC, onlyPair}, device.Name)
				if !tainted && named {
					spared = append(spared, device.Name)
				}
				if ofGPU := strings.HasPrefix(device.Name, cutGPU); ofGPU && tainted == slices.Contains(test.spared, cutGPU) {
					t.Errorf("%s: %s is tainted: %v, unlike its GPU", test.name, device.Name, tainted)
				}
			}
		}
		slices.Sort(spared)
		slices.Sort(test.spared)
		if diff := cmp.Diff(test.spared, spared); diff != "" {
			t.Errorf("%s: without taint are (-want +got):\n%s", test.name, diff)
		}
	}
}

func TestLedgerTellsMetricsTheHardware(t *testing.T) {
	directory := cdi.Directory{Path: t.TempDir()}
	journal, err := claim.OpenJournal(t.Context(), filepath.Join(t.TempDir(), "journal"), directory)
	if err != nil {
		t.Fatal(err)
	}
	snapshot := mixedMachine(t)
	whole, cut, nic := &snapshot.GPUs[0], &snapshot.GPUs[1], &snapshot.NICs[0]
	if err := errors.Join(
		journal.Put(&claim.Entry{ClaimUID: "uid-1", ClaimNamespace: "a", ClaimName: "both", Pods: []netattach.PodReference{{Namespace: "a", Name: "train", UID: "pod-1"}},
			Devices: []claim.Device{{Request: "r", Pool: "node1/device", Name: onlyPair, GPU: whole, NIC: nic}}}),
		journal.Put(&claim.Entry{ClaimUID: "uid-2", ClaimNamespace: "b", ClaimName: "slice",
			Devices: []claim.Device{{Request: "r", Pool: "node1/device", Name: onePartition, GPU: cut, Partition: &claim.Partition{ProfileID: 19, Placement: topology.MIGPlacement{Size: 1}}}}}),
	); err != nil {
		t.Fatal(err)
	}
	want := []metrics.Holder{
		{Device: onlyPair, GPU: wholeGPU, NIC: onlyNIC, Pool: "node1/device", Request: "r", ClaimUID: "uid-1", ClaimNamespace: "a", ClaimName: "both",
			Pods: []metrics.Pod{{UID: "pod-1", Namespace: "a", Name: "train"}}},
		{Device: onePartition, GPU: cutGPU, Pool: "node1/device", Request: "r", ClaimUID: "uid-2", ClaimNamespace: "b", ClaimName: "slice"},
	}
	if diff := cmp.Diff(want, ledger{claim.NewLedger(journal)}.Holders()); diff != "" {
		t.Errorf("holders (-want +got):\n%s", diff)
	}
}
