package claim

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	resourceapi "k8s.io/api/resource/v1"

	"github.com/hostler-dev/hostler/driver/sriov/sriovtest"
	"github.com/hostler-dev/hostler/netattach"
)

// vfClaim is a claim for a VF, with what class and claim say under vf; "" says nothing.
func vfClaim(ofClass, ofClaim string) *resourceapi.ResourceClaim {
	c := allocated("c", onNIC(nicVF1))
	for source, config := range map[resourceapi.AllocationConfigSource]string{class: ofClass, claim: ofClaim} {
		if config != "" {
			with(c, source, `NICConfig {"vf": `+config+`}`)
		}
	}
	return c
}

func TestPlanOfAVF(t *testing.T) {
	for _, test := range []struct {
		name, class, claim string
		wanted, asked      netattach.VFSettings
	}{
		{"everything by the class", `{"mac": "02:00:5E:10:00:01", "vlan": 100, "vlanQoS": 3, "spoofCheck": true, "trust": false, "minTxRate": 10, "maxTxRate": 20, "linkState": "Enable"}`, "",
			netattach.VFSettings{MAC: new("02:00:5e:10:00:01"), VLAN: new(100), QoS: new(3), SpoofCheck: new(true), Trust: new(false), MinTxRate: new(10), MaxTxRate: new(20), LinkState: new("enable")}, netattach.VFSettings{}},
		{"what a claim may", "", `{"maxTxRate": 20, "linkState": "Auto"}`,
			netattach.VFSettings{MaxTxRate: new(20), LinkState: new("auto")}, netattach.VFSettings{MaxTxRate: new(20), LinkState: new("auto")}},
		{"a VLAN without a priority has the lowest", `{"vlan": 100}`, "", netattach.VFSettings{VLAN: new(100), QoS: new(0)}, netattach.VFSettings{}},
		{"class and claim side by side", `{"vlan": 100, "trust": false}`, `{"maxTxRate": 20}`,
			netattach.VFSettings{VLAN: new(100), QoS: new(0), Trust: new(false), MaxTxRate: new(20)}, netattach.VFSettings{MaxTxRate: new(20)}},
		{"a claim that repeats its class", `{"mac": "02:00:5e:10:00:01", "vlan": 100, "maxTxRate": 20}`, `{"mac": "02:00:5E:10:00:01", "vlan": 100, "maxTxRate": 20}`,
			netattach.VFSettings{MAC: new("02:00:5e:10:00:01"), VLAN: new(100), QoS: new(0), MaxTxRate: new(20)}, netattach.VFSettings{}},
	} {
		t.Run(test.name, func(t *testing.T) {
			entry, err := plan(vfClaim(test.class, test.claim))
			if err != nil {
				t.Fatal(err)
			}
			want := &VFChange{PF: "0000:1d:00.0", Index: 1, Wanted: test.wanted, Asked: test.asked}
			if diff := cmp.Diff(want, entry.Devices[0].VF); diff != "" {
				t.Errorf("the change (-want +got):\n%s", diff)
			}
			mac := "02:00:00:00:00:05"
			if test.wanted.MAC != nil {
				mac = *test.wanted.MAC
			}
			if got := entry.Devices[0].Network.HostMAC; got != mac {
				t.Errorf("the netdev leaves with %s, want %s", got, mac)
			}
		})
	}
}

func TestPlanSetsNothingOnAVFUnlessAsked(t *testing.T) {
	for _, c := range []*resourceapi.ResourceClaim{vfClaim("", ""), vfClaim("{}", "{}")} {
		if entry, err := plan(c); err != nil || entry.Devices[0].VF != nil {
			t.Errorf("%v: %+v", err, entry)
		}
	}
}

func TestPlanOfAPairSetsUpItsVF(t *testing.T) {
	entry, err := plan(with(allocated("c", onAny("pair-0000-17-00-0-0000-1d-00-2")), class, `NICConfig {"vf": {"vlan": 100}}`))
	if err != nil || entry.Devices[0].VF == nil || entry.Devices[0].VF.Index != 1 {
		t.Errorf("%v: %+v", err, entry)
	}
}

func TestPlanRefusesWhatIsNotTheClaimsToSetOnAVF(t *testing.T) {
	const only, ask = "only a DeviceClass can set it", "ask the administrator for a DeviceClass"
	for _, test := range []struct {
		name  string
		claim *resourceapi.ResourceClaim
		want  []string
	}{
		{"an address of its own", vfClaim("", `{"mac": "02:00:5e:10:00:01"}`), []string{`request "r0"`, "vf.mac is 02:00:5e:10:00:01 in the claim", only, ask}},
		{"a VLAN", vfClaim(`{"trust": true}`, `{"vlan": 100}`), []string{"vf.vlan is 100", only, ask}},
		{"no VLAN", vfClaim("", `{"vlan": 0}`), []string{"vf.vlan is 0", only}},
		{"a priority in the class's VLAN", vfClaim(`{"vlan": 100}`, `{"vlanQoS": 7}`), []string{"vf.vlanQoS is 7", only}},
		{"no spoof check", vfClaim("", `{"spoofCheck": false}`), []string{"vf.spoofCheck is false", only}},
		{"trust", vfClaim("", `{"trust": true}`), []string{"vf.trust is true", only}},
		{"a guaranteed rate", vfClaim("", `{"minTxRate": 1}`), []string{"vf.minTxRate is 1", only}},
		{"another VLAN than its class's", vfClaim(`{"vlan": 100}`, `{"vlan": 200}`), []string{"vf.vlan is 200 in the claim and 100 in its DeviceClass", "leave it out of the claim"}},
		{"another limit than its class's", vfClaim(`{"maxTxRate": 100}`, `{"maxTxRate": 50}`), []string{"vf.maxTxRate is 50 in the claim and 100 in its DeviceClass"}},
		{"another link than its class's", vfClaim(`{"linkState": "Disable"}`, `{"linkState": "Auto"}`), []string{"vf.linkState is Auto in the claim and Disable in its DeviceClass"}},
		{"a limit below the class's guarantee", vfClaim(`{"minTxRate": 100}`, `{"maxTxRate": 50}`), []string{"vf.minTxRate: Invalid value: 100: must not be above maxTxRate, 50"}},
		{"a PF", with(allocated("c", onNIC("nic-0000-19-00-0")), class, `NICConfig {"vf": {"vlan": 100}}`), []string{"NIC nic-0000-19-00-0 is no SR-IOV VF", "hostler.dev/kind"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := plan(test.claim)
			for _, want := range test.want {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("%v; want it to say %q", err, want)
				}
			}
		})
	}
}

func TestPlanRefusesAVFWhosePFIsUnknown(t *testing.T) {
	for name, change := range map[string]func(s *PlanInput){
		"a PF that is not there":          func(in *PlanInput) { in.Snapshot.NIC(nicVF1).Parent = "nic-0000-99-00-0" },
		"a PF that does not list this VF": func(in *PlanInput) { in.Snapshot.NIC(nicVF1).VFID = -1 },
	} {
		t.Run(name, func(t *testing.T) {
			in := PlanInput{Claim: vfClaim(`{"vlan": 100}`, ""), NodeName: node, Snapshot: machine()}
			change(&in)
			if _, err := Plan(in); err == nil || !strings.Contains(err.Error(), "nothing can be set on this VF") {
				t.Error(err)
			}
		})
	}
}

func TestAdmissionOfAVF(t *testing.T) {
	for _, test := range []struct {
		name   string
		claim  *resourceapi.ResourceClaim
		change func(*sriovtest.Table)
		want   string // "" is admitted
	}{
		{"a setting that the driver does not tell", vfClaim(`{"trust": true, "vlan": 5}`, ""), func(v *sriovtest.Table) { v.VFs[sriovtest.VF(1)].Settings.Trust = nil }, "does not tell trust, so it could not be restored"},
		{"one that is not wanted", vfClaim(`{"vlan": 5}`, ""), func(v *sriovtest.Table) { v.VFs[sriovtest.VF(1)].Settings.Trust = nil }, ""},
		{"a PF in a pod", vfClaim(`{"vlan": 5}`, ""), func(v *sriovtest.Table) {
			v.Fail = errors.New("the PF's netdev is not in the host's network namespace")
		}, "read what has to be restored afterwards: the PF's netdev"},
		{"a VF that is gone", vfClaim(`{"vlan": 5}`, ""), func(v *sriovtest.Table) { delete(v.VFs, sriovtest.VF(1)) }, netattach.ErrVFGone.Error()},
		{"a claim that lowers a limit", vfClaim("", `{"maxTxRate": 50}`), func(v *sriovtest.Table) { v.VFs[sriovtest.VF(1)].Settings.MaxTxRate = new(100) }, ""},
		{"a claim that raises a limit", vfClaim("", `{"maxTxRate": 200}`), func(v *sriovtest.Table) { v.VFs[sriovtest.VF(1)].Settings.MaxTxRate = new(100) }, "limited to 100 Mbit/s, which a claim can lower and not raise"},
		{"a claim that lifts a limit", vfClaim("", `{"maxTxRate": 0}`), func(v *sriovtest.Table) { v.VFs[sriovtest.VF(1)].Settings.MaxTxRate = new(100) }, "vf.maxTxRate is 0 in the claim"},
		{"a class that raises a limit", vfClaim(`{"maxTxRate": 200}`, ""), func(v *sriovtest.Table) { v.VFs[sriovtest.VF(1)].Settings.MaxTxRate = new(100) }, ""},
		{"a claim that limits what had no limit", vfClaim("", `{"maxTxRate": 200}`), func(*sriovtest.Table) {}, ""},
		{"a limit below what is guaranteed", vfClaim("", `{"maxTxRate": 50}`), func(v *sriovtest.Table) { v.VFs[sriovtest.VF(1)].Settings.MinTxRate = new(60) }, "guaranteed 60 Mbit/s and limited to 50 Mbit/s"},
		{"a claim that connects what was cut off", vfClaim("", `{"linkState": "Enable"}`), func(v *sriovtest.Table) { v.VFs[sriovtest.VF(1)].Settings.LinkState = new("disable") }, "cut this VF off"},
		{"a class that connects it", vfClaim(`{"linkState": "Enable"}`, ""), func(v *sriovtest.Table) { v.VFs[sriovtest.VF(1)].Settings.LinkState = new("disable") }, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			table := sriovtest.New()
			test.change(table)
			r := vfRoom(t, t.TempDir(), boot, table)
			_, err := r.prepare(test.claim)
			if test.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), "VF "+nicVF1) || !strings.Contains(err.Error(), test.want) {
				t.Errorf("%v; want it to name the VF and say %q", err, test.want)
			}
			if len(r.journal.Entries()) != 0 || table.Requests != 0 {
				t.Errorf("%d entries and %d requests in spite of the refusal", len(r.journal.Entries()), table.Requests)
			}
		})
	}
}

func TestAdmissionRefusesVFsWithoutAccessToThem(t *testing.T) {
	r := newRoom(t, t.TempDir(), boot)
	if _, err := r.prepare(vfClaim(`{"vlan": 5}`, "")); err == nil || !strings.Contains(err.Error(), "without access to VFs") {
		t.Error(err)
	}
}

// What is on a VF that another claim still holds is that claim's, and must not be
// taken for what was before.
func TestVFThatAnotherClaimHoldsIsNotRead(t *testing.T) {
	table := sriovtest.New()
	r := vfRoom(t, t.TempDir(), boot, table)
	first := with(allocated("first", onNIC(nicVF0)), class, wholeVF)
	if _, err := r.prepare(first); err != nil {
		t.Fatal(err)
	}
	// The second is admitted while the first is being unprepared: its VF is still as it was set up.
	admit := r.cfg.Admit
	var refusal error
	table.Interrupt = func(moment string) error {
		if refusal == nil && strings.HasPrefix(moment, "before") {
			table.Interrupt = nil
			entry, err := r.cfg.Plan(with(allocated("second", onNIC(nicVF0)), class, wholeVF))
			if err != nil {
				return fmt.Errorf("the second claim's plan: %w", err)
			}
			refusal = admit(t.Context(), entry)
		}
		return nil
	}
	if err := r.Unprepare(t.Context(), first.UID); err != nil {
		t.Fatal(err)
	}
	var held *HeldError
	if !errors.As(refusal, &held) || held.Claim != "first" {
		t.Fatalf("%v; want it refused because the first claim holds the VF", refusal)
	}
	second, err := r.prepare(with(allocated("second", onNIC(nicVF0)), class, wholeVF))
	if err != nil || *second.Devices[0].VF.Before.VLAN != 7 {
		t.Errorf("%v; want the second claim to remember what was before the first: %+v", err, second)
	}
}
