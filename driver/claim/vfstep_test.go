package claim

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"github.com/hostler-dev/hostler/driver/vfio"
	"github.com/hostler-dev/hostler/netattach"
)

const nicVF0, nicVF1 = "nic-0000-1d-00-1", "nic-0000-1d-00-2"

// wholeVF sets everything that can be set.
const wholeVF = `NICConfig {"vf": {"mac": "02:00:5E:10:00:01", "vlan": 100, "vlanQoS": 3, "spoofCheck": false, "trust": true, "minTxRate": 100, "maxTxRate": 1000, "linkState": "Enable"}}`

// vfRoom is a room whose PFs are in the table.
func vfRoom(t failer, directory, bootID string, table *vfTable) *room {
	r := newRoom(t, directory, bootID)
	r.steps.VFs, r.admission.VFs = table, table
	return r
}

func TestVFIsSetUpForItsClaimAndRestoredAfterwards(t *testing.T) {
	table := newVFTable()
	before, other := table.as(vf0), table.as(vf1)
	r := vfRoom(t, t.TempDir(), boot, table)
	c := with(allocated("c", onNIC(nicVF0)), class, wholeVF)
	entry, err := r.prepare(c)
	if err != nil {
		t.Fatal(err)
	}
	want := tableVF{Pinned: true, VFState: netattach.VFState{NetdevMAC: "02:00:5e:10:00:01", Settings: netattach.VFSettings{
		MAC: new("02:00:5e:10:00:01"), VLAN: new(100), QoS: new(3), VLANProtocol: new("802.1Q"), SpoofCheck: new(false), Trust: new(true),
		MinTxRate: new(100), MaxTxRate: new(1000), LinkState: new("enable"),
	}}}
	if diff := cmp.Diff(want, table.as(vf0)); diff != "" {
		t.Errorf("the prepared VF (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(other, table.as(vf1)); diff != "" {
		t.Errorf("the PF's other VF (-want +got):\n%s", diff)
	}
	if network := entry.Devices[0].Network; network.HostMAC != "02:00:5e:10:00:01" {
		t.Errorf("the netdev comes home with %s, want the address that it left with", network.HostMAC)
	}

	// What somebody changed meanwhile is mended, and nothing else is set again.
	table.vfs[vf0].Settings.Trust = new(false)
	done := table.requests
	if again, err := r.prepare(c); err != nil || again.Devices[0].VF.Before.Trust == nil || *again.Devices[0].VF.Before.VLAN != 7 {
		t.Errorf("%v; want a repeated prepare to keep what the first one read: %+v", err, again)
	}
	if diff := cmp.Diff(want, table.as(vf0)); diff != "" || table.requests != done+1 {
		t.Errorf("after a repeated prepare with %d requests (-want +got):\n%s", table.requests-done, diff)
	}

	// In the pod the netdev is out of reach.
	table.vfs[vf0].NetdevMAC = ""
	if _, err := r.prepare(c); err != nil {
		t.Errorf("a prepare while the netdev is in the pod: %v", err)
	}
	table.vfs[vf0].NetdevMAC = "02:00:5e:10:00:01"
	if err := r.Unprepare(t.Context(), c.UID); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before, table.as(vf0)); diff != "" {
		t.Errorf("the VF afterwards (-before +now):\n%s", diff)
	}
}

func TestVFIsLeftAsItWasWhereItsDriverRefusesASetting(t *testing.T) {
	for _, refused := range []string{"spoofCheck false", "trust true", "vlan 100, vlanQoS 3, VLAN protocol 802.1Q", "minTxRate 100, maxTxRate 1000", "mac 02:00:5e:10:00:01", "linkState enable"} {
		t.Run(refused, func(t *testing.T) {
			table := newVFTable()
			before := table.as(vf0)
			table.refuse[refused] = fmt.Errorf("set %s: %w", refused, unix.EOPNOTSUPP)
			r := vfRoom(t, t.TempDir(), boot, table)
			_, err := r.prepare(with(allocated("c", onNIC(nicVF0)), class, wholeVF))
			if !errors.Is(err, unix.EOPNOTSUPP) || !strings.Contains(err.Error(), "set up VF "+nicVF0) {
				t.Fatalf("%v; want the driver's answer, and what was being done", err)
			}
			if diff := cmp.Diff(before, table.as(vf0)); diff != "" || len(r.journal.Entries()) != 0 {
				t.Errorf("%d entries are left, the VF (-before +now):\n%s", len(r.journal.Entries()), diff)
			}
		})
	}
}

func TestVFThatPretendsIsNoticed(t *testing.T) {
	table := newVFTable()
	r := vfRoom(t, t.TempDir(), boot, table)
	table.interrupt = func(moment string) error {
		if moment == "after trust true" {
			table.vfs[vf0].Settings.Trust = new(false)
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
		table, directory := newVFTable(), t.TempDir()
		c := with(allocated("c", onNIC(nicVF0)), class, wholeVF)
		if _, err := vfRoom(t, directory, boot, table).prepare(c); err != nil {
			t.Fatal(err)
		}
		fresh := newVFTable()
		if err := vfRoom(t, directory, "another-boot", fresh).Unprepare(t.Context(), c.UID); err != nil || fresh.requests != 0 {
			t.Errorf("%v, %d requests; want none", err, fresh.requests)
		}
	})
	t.Run("after its PF lost its VFs", func(t *testing.T) {
		table := newVFTable()
		r := vfRoom(t, t.TempDir(), boot, table)
		c := with(allocated("c", onNIC(nicVF0)), class, wholeVF)
		if _, err := r.prepare(c); err != nil {
			t.Fatal(err)
		}
		delete(table.vfs, vf0)
		if err := r.Unprepare(t.Context(), c.UID); err != nil || len(r.journal.Entries()) != 0 {
			t.Errorf("%v, %d entries; want the claim to end", err, len(r.journal.Entries()))
		}
	})
}

func TestClaimOfAVFThatCannotBeRestoredStays(t *testing.T) {
	table := newVFTable()
	r := vfRoom(t, t.TempDir(), boot, table)
	c := with(allocated("c", onNIC(nicVF0)), class, wholeVF)
	if _, err := r.prepare(c); err != nil {
		t.Fatal(err)
	}
	table.fail = errors.New("the PF's netdev is not in the host's network namespace")
	if err := r.Unprepare(t.Context(), c.UID); err == nil || r.journal.Entry(c.UID) == nil {
		t.Errorf("%v; want the entry to stay", err)
	}
	table.fail = nil
	if err := r.Unprepare(t.Context(), c.UID); err != nil || r.journal.Entry(c.UID) != nil {
		t.Errorf("%v; want a later try to succeed", err)
	}
}

// The device that goes to user space gets its address from the PF; its netdev is about to go.
func TestNetdevOfAVFForUserSpaceKeepsItsAddress(t *testing.T) {
	table := newVFTable()
	device := deviceOf(vf0, table)
	device.VF.Wanted.MAC, device.VFIO = new("02:00:5e:10:00:01"), &vfio.Binding{}
	step := &vfStep{vfs: table, device: device}
	if err := errors.Join(step.Do(t.Context()), step.Verify(t.Context())); err != nil {
		t.Fatal(err)
	}
	if now := table.as(vf0); *now.Settings.MAC != "02:00:5e:10:00:01" || now.NetdevMAC != "02:00:00:00:00:04" {
		t.Errorf("prepared: %+v", now)
	}
	// Given back, its driver asked the PF for the address.
	table.vfs[vf0].NetdevMAC = "02:00:5e:10:00:01"
	if err := step.Undo(t.Context()); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(*newVFTable().vfs[vf0], table.as(vf0)); diff != "" {
		t.Errorf("afterwards (-before +now):\n%s", diff)
	}
}

// deviceOf is a device of which nothing is wanted yet, with the VF as it is before.
func deviceOf(vf netattach.VF, table *vfTable) *Device {
	nic := machine().NIC(nicVF0)
	state := table.as(vf)
	return &Device{Name: nic.Name, NIC: nic, VF: &VFChange{PF: vf.PF, Index: vf.Index, Before: state.Settings, NetdevMAC: state.NetdevMAC}}
}

// From any state to any wish, killed at any request of the kernel: what is begun
// can be completed or taken back, and taking back leaves the VF as it was.
func TestUndoingAVFsSettingsIsTheInverseOfSettingThem(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		table := newVFTable()
		at := table.vfs[vf0]
		at.Settings = drawSettings(t, "before", func(*rapid.T) bool { return true })
		at.Pinned = *at.Settings.MAC != "00:00:00:00:00:00"
		if rapid.Bool().Draw(t, "PF without netdev of the VF") {
			at.NetdevMAC = ""
		} else if at.Pinned {
			at.NetdevMAC = *at.Settings.MAC
		}
		before := table.as(vf0)
		device := deviceOf(vf0, table)
		device.VF.Wanted = drawSettings(t, "wanted", func(t *rapid.T) bool { return rapid.Bool().Draw(t, "set") })
		device.VF.Wanted.VLANProtocol = nil
		if (device.VF.Wanted.VLAN == nil) != (device.VF.Wanted.QoS == nil) {
			device.VF.Wanted.VLAN, device.VF.Wanted.QoS = nil, nil
		}
		left := rapid.IntRange(0, 20).Draw(t, "moments to live")
		dies := func(string) error {
			if left--; left < 0 {
				return errKilled
			}
			return nil
		}
		// Each agent makes its steps anew, from the entry alone.
		step := func() *vfStep { return &vfStep{vfs: table, device: device} }
		table.interrupt = dies
		err := step().Do(t.Context())
		table.interrupt = nil
		if err != nil && !errors.Is(err, errKilled) {
			t.Fatal(err)
		}
		if rapid.Bool().Draw(t, "completed") {
			if err := errors.Join(step().Do(t.Context()), step().Verify(t.Context())); err != nil {
				t.Fatalf("completing: %v", err)
			}
			now, want := table.as(vf0), settled(before.Settings, device.VF.Wanted)
			if diff := cmp.Diff(want, now.Settings); diff != "" {
				t.Fatalf("completed (-want +got):\n%s", diff)
			}
			if wanted := device.VF.Wanted.MAC; wanted != nil && now.NetdevMAC != "" && now.NetdevMAC != *wanted {
				t.Fatalf("the netdev has %s, want %s", now.NetdevMAC, *wanted)
			}
		}
		left = rapid.IntRange(0, 20).Draw(t, "moments of undoing")
		table.interrupt = dies
		if err := step().Undo(t.Context()); err != nil {
			if !errors.Is(err, errKilled) {
				t.Fatal(err)
			}
			table.interrupt = nil
			if err := step().Undo(t.Context()); err != nil {
				t.Fatalf("a second try: %v", err)
			}
		}
		if diff := cmp.Diff(before, table.as(vf0)); diff != "" {
			t.Fatalf("afterwards (-before +now):\n%s", diff)
		}
	})
}

func drawSettings(t *rapid.T, name string, has func(*rapid.T) bool) netattach.VFSettings {
	var s netattach.VFSettings
	if has(t) {
		s.MAC = new(rapid.SampledFrom([]string{"00:00:00:00:00:00", "02:00:00:00:00:aa", "02:00:00:00:00:bb"}).Draw(t, name+" MAC"))
	}
	if name == "wanted" && s.MAC != nil && *s.MAC == "00:00:00:00:00:00" {
		s.MAC = nil // no claim can want it
	}
	number := func(what string, most int) *int {
		if !has(t) {
			return nil
		}
		return new(rapid.IntRange(0, most).Draw(t, name+" "+what))
	}
	choice := func(what string) *bool {
		if !has(t) {
			return nil
		}
		return new(rapid.Bool().Draw(t, name+" "+what))
	}
	s.VLAN, s.QoS, s.MinTxRate, s.MaxTxRate = number("VLAN", 2), number("QoS", 2), number("least", 2), number("most", 2)
	s.SpoofCheck, s.Trust = choice("spoof check"), choice("trust")
	if has(t) {
		s.LinkState = new(rapid.SampledFrom([]string{"auto", "enable", "disable"}).Draw(t, name+" link"))
	}
	s.VLANProtocol = new("802.1Q")
	if s.VLAN != nil && *s.VLAN != 0 && rapid.Bool().Draw(t, "stacked") {
		s.VLANProtocol = new("802.1ad")
	}
	return s
}

func TestVFIsSetUpAfterPartitionsAndBeforeTheNetworkIsOffered(t *testing.T) {
	table := newVFTable()
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
