package guest

// VFs set up by way of a real PF. The machine's PFs are igb's, which knows a
// VLAN, an address, spoof checking, trust and a limit for its VFs, and neither a
// link state nor a guaranteed rate.

import (
	"encoding/json"
	"errors"
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/hostler-dev/hostler/driver/sriov"
	"github.com/hostler-dev/hostler/netattach"
	"github.com/hostler-dev/hostler/netattach/link"
)

// vfOf1 is the second PF's first VF.
var vfOf1 = netattach.VF{PF: pf1, Index: 0, PCI: "0000:41:10.0"}

// openVFs are the host's VFs, as the agent has them.
func openVFs(t *testing.T) *link.VFs {
	t.Helper()
	vfs, err := link.NewVFs(link.VFsConfig{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := vfs.Close(); err != nil {
			t.Error(err)
		}
	})
	return vfs
}

// prepareVF takes the step that a claim takes for its VF.
func prepareVF(t *testing.T, vfs *link.VFs, vf netattach.VF, wanted netattach.VFSettings) *sriov.Step {
	t.Helper()
	before := stateOf(t, vfs, vf)
	return sriov.NewStep(sriov.StepConfig{Name: "nic", VF: vf, Wanted: wanted, Before: before.Settings, NetdevMAC: before.NetdevMAC, VFs: vfs})
}

func stateOf(t *testing.T, vfs *link.VFs, vf netattach.VF) netattach.VFState {
	t.Helper()
	state, err := vfs.VF(vf)
	if err != nil {
		t.Fatal(err)
	}
	return state
}

// ipVF is what iproute2 says of a PF's VF.
type ipVF struct {
	VF       int    `json:"vf"`
	Address  string `json:"address"`
	VLANList []struct {
		VLAN int `json:"vlan"`
		QoS  int `json:"qos"`
	} `json:"vlan_list"`
	SpoofCheck bool `json:"spoofchk"`
	Trust      bool `json:"trust"`
	Rate       struct {
		Max int `json:"max_tx"`
	} `json:"rate"`
}

// ipShow asks iproute2 for the VFs of a PF.
func ipShow(t *testing.T, pf string) []ipVF {
	t.Helper()
	out, err := exec.Command("/opt/ip", "-json", "-details", "link", "show", "dev", netdev(t, pf)).Output()
	if err != nil {
		t.Fatal(err)
	}
	var links []struct {
		VFs []ipVF `json:"vfinfo_list"`
	}
	if err := json.Unmarshal(out, &links); err != nil || len(links) != 1 {
		t.Fatalf("%v: ip says %s", err, out)
	}
	return links[0].VFs
}

func addressOf(t *testing.T, pci string) string {
	t.Helper()
	out, err := exec.Command("/opt/ip", "-brief", "link", "show", "dev", netdev(t, pci)).Output()
	if err != nil {
		t.Fatal(err)
	}
	fields := strings.Fields(string(out))
	if len(fields) < 3 {
		t.Fatalf("ip says %s", out)
	}
	return fields[2]
}

func TestAVFIsSetUpByWayOfItsPFAndRestored(t *testing.T) {
	needMachine(t)
	vfs := openVFs(t)
	for name, up := range map[string]bool{"while its netdev is up": true, "while its netdev is down": false} {
		t.Run(name, func(t *testing.T) {
			state := map[bool]string{true: "up", false: "down"}[up]
			ip(t, "link set "+netdev(t, vfOf1.PCI)+" "+state)
			t.Cleanup(func() { ip(t, "link set "+netdev(t, vfOf1.PCI)+" down") })
			before, shown, address := stateOf(t, vfs, vfOf1), ipShow(t, pf1), addressOf(t, vfOf1.PCI)
			t.Logf("before: %s; netdev %s", before.Settings, before.NetdevMAC)
			step := prepareVF(t, vfs, vfOf1, netattach.VFSettings{
				MAC: new("02:00:5e:10:00:01"), VLAN: new(100), QoS: new(3), SpoofCheck: new(false), Trust: new(true), MaxTxRate: new(100),
			})
			for range 2 { // a prepare may be repeated
				if err := errors.Join(step.Do(t.Context()), step.Verify(t.Context())); err != nil {
					t.Fatal(err)
				}
			}
			now := ipShow(t, pf1)
			if vf := now[0]; vf.Address != "02:00:5e:10:00:01" || len(vf.VLANList) != 1 || vf.VLANList[0].VLAN != 100 || vf.VLANList[0].QoS != 3 || vf.SpoofCheck || !vf.Trust || vf.Rate.Max != 100 {
				t.Errorf("ip shows the VF as %+v", vf)
			}
			if diff := cmp.Diff(shown[1], now[1]); diff != "" {
				t.Errorf("the PF's other VF changed (-before +now):\n%s", diff)
			}
			if got := addressOf(t, vfOf1.PCI); got != "02:00:5e:10:00:01" {
				t.Errorf("the VF's netdev has the address %s", got)
			}
			if err := step.Undo(t.Context()); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(before, stateOf(t, vfs, vfOf1)); diff != "" {
				t.Errorf("afterwards (-before +now):\n%s", diff)
			}
			if diff := cmp.Diff(shown, ipShow(t, pf1)); diff != "" {
				t.Errorf("afterwards ip shows the VFs otherwise (-before +now):\n%s", diff)
			}
			if got := addressOf(t, vfOf1.PCI); got != address {
				t.Errorf("the netdev came back with the address %s, want %s", got, address)
			}
		})
	}
}

func TestWhatThePFsDriverCannotSetIsSaidAndTheRestUndone(t *testing.T) {
	needMachine(t)
	vfs := openVFs(t)
	before := stateOf(t, vfs, vfOf1)
	for name, test := range map[string]struct {
		wanted netattach.VFSettings
		answer unix.Errno
		want   string
	}{
		"a link state":      {netattach.VFSettings{VLAN: new(100), QoS: new(0), LinkState: new("enable")}, unix.EOPNOTSUPP, "driver (igb) cannot set this"},
		"a guaranteed rate": {netattach.VFSettings{VLAN: new(100), QoS: new(0), MinTxRate: new(10)}, unix.EINVAL, "driver (igb) refuses the value"},
	} {
		t.Run(name, func(t *testing.T) {
			step := prepareVF(t, vfs, vfOf1, test.wanted)
			err := step.Do(t.Context())
			if !errors.Is(err, test.answer) || !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), pf1) {
				t.Errorf("%v; want it to name the PF and say %q", err, test.want)
			}
			if err := step.Undo(t.Context()); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(before, stateOf(t, vfs, vfOf1)); diff != "" {
				t.Errorf("afterwards (-before +now):\n%s", diff)
			}
		})
	}
}

// A VF whose netdev is in a pod is still its PF's to set, and its pod gives it back as it was.
func TestAVFInAPodIsRestoredWhenItComesHome(t *testing.T) {
	needMachine(t)
	vfs := openVFs(t)
	before := stateOf(t, vfs, vfOf1)
	step := prepareVF(t, vfs, vfOf1, netattach.VFSettings{MAC: new("02:00:5e:10:00:02"), VLAN: new(200), QoS: new(0)})
	if err := step.Do(t.Context()); err != nil {
		t.Fatal(err)
	}
	name := netdev(t, vfOf1.PCI)
	ip(t, "netns add pod")
	ip(t, "link set "+name+" netns pod")
	if err := errors.Join(step.Do(t.Context()), step.Verify(t.Context())); err != nil {
		t.Errorf("a repeated prepare while the netdev is in the pod: %v", err)
	}
	ip(t, "netns delete pod")
	eventually(t, func() string {
		if state := stateOf(t, vfs, vfOf1); state.NetdevMAC != "02:00:5e:10:00:02" {
			return "the netdev is not home: " + state.NetdevMAC
		}
		return ""
	})
	if err := step.Undo(t.Context()); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before, stateOf(t, vfs, vfOf1)); diff != "" {
		t.Errorf("afterwards (-before +now):\n%s", diff)
	}
}

func TestAVFThatIsGoneNeedsNoRestoring(t *testing.T) {
	needMachine(t)
	vfs := openVFs(t)
	before := stateOf(t, vfs, vfOf1)
	step := prepareVF(t, vfs, vfOf1, netattach.VFSettings{VLAN: new(300), QoS: new(0)})
	if err := step.Do(t.Context()); err != nil {
		t.Fatal(err)
	}
	numVFs := "/sys/bus/pci/devices/" + pf1 + "/sriov_numvfs"
	write(t, numVFs, "0")
	err := step.Undo(t.Context())
	write(t, numVFs, "2")
	if err != nil {
		t.Errorf("undoing it: %v", err)
	}
	eventually(t, func() string {
		state, err := vfs.VF(vfOf1)
		switch {
		case err != nil:
			return err.Error()
		case state.NetdevMAC == "":
			return "the VF has no netdev yet"
		case *state.Settings.VLAN != 0:
			return "a new VF has VLAN settings: " + state.Settings.String()
		}
		return ""
	})
	t.Logf("before: %s", before.Settings)
}

// A plan may be made of a snapshot in which the last claim's address was still on the VF.
func TestAVFComesHomeWithTheAddressThatItLeftWith(t *testing.T) {
	needMachine(t)
	host, err := link.NewHost(link.HostConfig{})
	if err != nil {
		t.Fatal(err)
	}
	defer host.Close()
	name := netdev(t, vfOf1.PCI)
	device, err := host.Remember(netattach.DeviceIntent{Device: "nic", PCI: vfOf1.PCI, HostName: name, PodName: "net1", HostMAC: "02:00:5e:10:00:03"})
	if want := addressOf(t, vfOf1.PCI); err != nil || device.HostMAC != want {
		t.Errorf("%v; remembered %s, want %s", err, device.HostMAC, want)
	}
}
