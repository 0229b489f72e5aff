package claim

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/hostler-dev/hostler/driver/sriov/sriovtest"
	"github.com/hostler-dev/hostler/netattach"
)

const nicVF0, nicVF1 = "nic-0000-1d-00-1", "nic-0000-1d-00-2"

// wholeVF sets everything that can be set.
const wholeVF = `NICConfig {"vf": {"mac": "02:00:5E:10:00:01", "vlan": 100, "vlanQoS": 3, "spoofCheck": false, "trust": true, "minTxRate": 100, "maxTxRate": 1000, "linkState": "Enable"}}`

// vfRoom is a room whose PFs are in the table.
func vfRoom(t failer, directory, bootID string, table *sriovtest.Table) *room {
	r := newRoom(t, directory, bootID)
	r.steps.VFs, r.admission.VFs = table, table
	return r
}

func TestVFIsSetUpForItsClaimAndRestoredAfterwards(t *testing.T) {
	table := sriovtest.New()
	before, other := table.State(sriovtest.VF(0)), table.State(sriovtest.VF(1))
	r := vfRoom(t, t.TempDir(), boot, table)
	c := with(allocated("c", onNIC(nicVF0)), class, wholeVF)
	entry, err := r.prepare(c)
	if err != nil {
		t.Fatal(err)
	}
	want := sriovtest.State{Pinned: true, VFState: netattach.VFState{NetdevMAC: "02:00:5e:10:00:01", Settings: netattach.VFSettings{
		MAC: new("02:00:5e:10:00:01"), VLAN: new(100), QoS: new(3), VLANProtocol: new("802.1Q"), SpoofCheck: new(false), Trust: new(true),
		MinTxRate: new(100), MaxTxRate: new(1000), LinkState: new("enable"),
	}}}
	if diff := cmp.Diff(want, table.State(sriovtest.VF(0))); diff != "" {
		t.Errorf("the prepared VF (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(other, table.State(sriovtest.VF(1))); diff != "" {
		t.Errorf("the PF's other VF (-want +got):\n%s", diff)
	}
	if network := entry.Devices[0].Network; network.HostMAC != "02:00:5e:10:00:01" {
		t.Errorf("the netdev comes home with %s, want the address that it left with", network.HostMAC)
	}

	// What somebody changed meanwhile is mended, and nothing else is set again.
	table.VFs[sriovtest.VF(0)].Settings.Trust = new(false)
	done := table.Requests
	if again, err := r.prepare(c); err != nil || again.Devices[0].VF.Before.Trust == nil || *again.Devices[0].VF.Before.VLAN != 7 {
		t.Errorf("%v; want a repeated prepare to keep what the first one read: %+v", err, again)
	}
	if diff := cmp.Diff(want, table.State(sriovtest.VF(0))); diff != "" || table.Requests != done+1 {
		t.Errorf("after a repeated prepare with %d requests (-want +got):\n%s", table.Requests-done, diff)
	}

	// In the pod the netdev is out of reach.
	table.VFs[sriovtest.VF(0)].NetdevMAC = ""
	if _, err := r.prepare(c); err != nil {
		t.Errorf("a prepare while the netdev is in the pod: %v", err)
	}
	table.VFs[sriovtest.VF(0)].NetdevMAC = "02:00:5e:10:00:01"
	if err := r.Unprepare(t.Context(), c.UID); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before, table.State(sriovtest.VF(0))); diff != "" {
		t.Errorf("the VF afterwards (-before +now):\n%s", diff)
	}
}

func TestVFIsLeftAsItWasWhereItsDriverRefusesASetting(t *testing.T) {
	for _, refused := range []string{"spoofCheck false", "trust true", "vlan 100, vlanQoS 3, VLAN protocol 802.1Q", "minTxRate 100, maxTxRate 1000", "mac 02:00:5e:10:00:01", "linkState enable"} {
		t.Run(refused, func(t *testing.T) {
			table := sriovtest.New()
			before := table.State(sriovtest.VF(0))
			table.Refuse[refused] = fmt.Errorf("set %s: %w", refused, unix.EOPNOTSUPP)
			r := vfRoom(t, t.TempDir(), boot, table)
			_, err := r.prepare(with(allocated("c", onNIC(nicVF0)), class, wholeVF))
			if !errors.Is(err, unix.EOPNOTSUPP) || !strings.Contains(err.Error(), "set up VF "+nicVF0) {
				t.Fatalf("%v; want the driver's answer, and what was being done", err)
			}
			if diff := cmp.Diff(before, table.State(sriovtest.VF(0))); diff != "" || len(r.journal.Entries()) != 0 {
				t.Errorf("%d entries are left, the VF (-before +now):\n%s", len(r.journal.Entries()), diff)
			}
		})
	}
}

func TestVFThatPretendsIsNoticed(t *testing.T) {
	table := sriovtest.New()
	r := vfRoom(t, t.TempDir(), boot, table)
	table.Interrupt = func(moment string) error {
		if moment == "after trust true" {
			table.VFs[sriovtest.VF(0)].Settings.Trust = new(false)
		}
		return nil
	}
	_, err := r.prepare(with(allocated("c", onNIC(nicVF0)), class, wholeVF))
	if err == nil || !strings.Contains(err.Error(), "does not have what was set on it") || !strings.Contains(err.Error(), "ip link show") {
		t.Errorf("%v; want a complaint about what is read back", err)
	}
}

func TestNothingIsRestoredOnAVFThatIsNew(t *testing.T) {
	t.Run("after a reboot", func(t *testing.T) {
		table, directory := sriovtest.New(), t.TempDir()
		c := with(allocated("c", onNIC(nicVF0)), class, wholeVF)
		if _, err := vfRoom(t, directory, boot, table).prepare(c); err != nil {
			t.Fatal(err)
		}
		fresh := sriovtest.New()
		if err := vfRoom(t, directory, "another-boot", fresh).Unprepare(t.Context(), c.UID); err != nil || fresh.Requests != 0 {
			t.Errorf("%v, %d requests; want none", err, fresh.Requests)
		}
	})
	t.Run("after its PF lost its VFs", func(t *testing.T) {
		table := sriovtest.New()
		r := vfRoom(t, t.TempDir(), boot, table)
		c := with(allocated("c", onNIC(nicVF0)), class, wholeVF)
		if _, err := r.prepare(c); err != nil {
			t.Fatal(err)
		}
		delete(table.VFs, sriovtest.VF(0))
		if err := r.Unprepare(t.Context(), c.UID); err != nil || len(r.journal.Entries()) != 0 {
			t.Errorf("%v, %d entries; want the claim to end", err, len(r.journal.Entries()))
		}
	})
}

func TestClaimOfAVFThatCannotBeRestoredStays(t *testing.T) {
	table := sriovtest.New()
	r := vfRoom(t, t.TempDir(), boot, table)
	c := with(allocated("c", onNIC(nicVF0)), class, wholeVF)
	if _, err := r.prepare(c); err != nil {
		t.Fatal(err)
	}
	table.Fail = errors.New("the PF's netdev is not in the host's network namespace")
	if err := r.Unprepare(t.Context(), c.UID); err == nil || r.journal.Entry(c.UID) == nil {
		t.Errorf("%v; want the entry to stay", err)
	}
	table.Fail = nil
	if err := r.Unprepare(t.Context(), c.UID); err != nil || r.journal.Entry(c.UID) != nil {
		t.Errorf("%v; want a later try to succeed", err)
	}
}

func TestVFIsSetUpAfterPartitionsAndBeforeTheNetworkIsOffered(t *testing.T) {
	table := sriovtest.New()
	r := newMIGRoom(t, t.TempDir(), boot, migDevice())
	r.steps.VFs, r.admission.VFs = table, table
	c := with(allocated("c", onNIC(nicVF0), onGPU(part1g0)), class, wholeVF)
	entry, err := r.prepare(c)
	if err != nil {
		t.Fatal(err)
	}
	var kinds []string
	for _, step := range r.steps.Of(entry) {
		kinds = append(kinds, step.Kind())
	}
	if len(kinds) < 3 || !slices.Equal(kinds[:3], []string{"partition", "vf-settings", "network"}) {
		t.Errorf("steps are %v", kinds)
	}
}
