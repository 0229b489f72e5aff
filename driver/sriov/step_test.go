package sriov

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/hostler-dev/hostler/driver/sriov/sriovtest"
	"github.com/hostler-dev/hostler/netattach"
)

var errKilled = errors.New("killed")

// The device that goes to user space gets its address from the PF; its netdev is about to go.
func TestNetdevOfAVFForUserSpaceKeepsItsAddress(t *testing.T) {
	table := sriovtest.New()
	vf0, cfg := sriovtest.VF(0), configOf(table)
	cfg.Wanted.MAC, cfg.UserSpace = new("02:00:5e:10:00:01"), true
	step := NewStep(cfg)
	if err := errors.Join(step.Do(t.Context()), step.Verify(t.Context())); err != nil {
		t.Fatal(err)
	}
	if now := table.State(vf0); *now.Settings.MAC != "02:00:5e:10:00:01" || now.NetdevMAC != "02:00:00:00:00:04" {
		t.Errorf("prepared: %+v", now)
	}
	// Given back, its driver asked the PF for the address.
	table.VFs[vf0].NetdevMAC = "02:00:5e:10:00:01"
	if err := step.Undo(t.Context()); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(*sriovtest.New().VFs[vf0], table.State(vf0)); diff != "" {
		t.Errorf("afterwards (-before +now):\n%s", diff)
	}
}

// configOf is a step of which nothing is wanted yet, with the VF as it is before.
func configOf(table *sriovtest.Table) StepConfig {
	now := table.State(sriovtest.VF(0))
	return StepConfig{Name: "nic-0000-1d-00-1", VF: sriovtest.VF(0), Before: now.Settings, NetdevMAC: now.NetdevMAC, VFs: table}
}

// From any state to any wish, killed at any request of the kernel: what is begun
// can be completed or taken back, and taking back leaves the VF as it was.
func TestUndoingAVFsSettingsIsTheInverseOfSettingThem(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		table := sriovtest.New()
		vf0 := sriovtest.VF(0)
		at := table.VFs[vf0]
		at.Settings = drawSettings(t, "before", func(*rapid.T) bool { return true })
		at.Pinned = *at.Settings.MAC != "00:00:00:00:00:00"
		if rapid.Bool().Draw(t, "PF without netdev of the VF") {
			at.NetdevMAC = ""
		} else if at.Pinned {
			at.NetdevMAC = *at.Settings.MAC
		}
		before := table.State(vf0)
		cfg := configOf(table)
		cfg.Wanted = drawSettings(t, "wanted", func(t *rapid.T) bool { return rapid.Bool().Draw(t, "set") })
		cfg.Wanted.VLANProtocol = nil
		if (cfg.Wanted.VLAN == nil) != (cfg.Wanted.QoS == nil) {
			cfg.Wanted.VLAN, cfg.Wanted.QoS = nil, nil
		}
		left := rapid.IntRange(0, 20).Draw(t, "moments to live")
		dies := func(string) error {
			if left--; left < 0 {
				return errKilled
			}
			return nil
		}
		// Each agent makes its steps anew, from the entry alone.
		step := func() *Step { return NewStep(cfg) }
		table.Interrupt = dies
		err := step().Do(t.Context())
		table.Interrupt = nil
		if err != nil && !errors.Is(err, errKilled) {
			t.Fatal(err)
		}
		if rapid.Bool().Draw(t, "completed") {
			if err := errors.Join(step().Do(t.Context()), step().Verify(t.Context())); err != nil {
				t.Fatalf("completing: %v", err)
			}
			now, want := table.State(vf0), sriovtest.Settled(before.Settings, cfg.Wanted)
			if diff := cmp.Diff(want, now.Settings); diff != "" {
				t.Fatalf("completed (-want +got):\n%s", diff)
			}
			if wanted := cfg.Wanted.MAC; wanted != nil && now.NetdevMAC != "" && now.NetdevMAC != *wanted {
				t.Fatalf("the netdev has %s, want %s", now.NetdevMAC, *wanted)
			}
		}
		left = rapid.IntRange(0, 20).Draw(t, "moments of undoing")
		table.Interrupt = dies
		if err := step().Undo(t.Context()); err != nil {
			if !errors.Is(err, errKilled) {
				t.Fatal(err)
			}
			table.Interrupt = nil
			if err := step().Undo(t.Context()); err != nil {
				t.Fatalf("a second try: %v", err)
			}
		}
		if diff := cmp.Diff(before, table.State(vf0)); diff != "" {
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
