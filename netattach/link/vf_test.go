package link

// A veth stands in for the PF here: it is real and knows no VFs, as does many a
// driver. What a driver that knows them answers is tested in the emulated machine.

import (
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"github.com/hostler-dev/hostler/netattach"
	"github.com/hostler-dev/hostler/netattach/internal/nettest"
)

const (
	pfPCI = "0000:18:00.0"
	vfPCI = "0000:18:00.2"
)

// sysOf renders what sysfs says of a PF with netdev rail0 and its VF 1 with netdev vf1.
func sysOf(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	devices := filepath.Join(root, "bus", "pci", "devices")
	for _, directory := range []string{pfPCI + "/net/rail0", vfPCI + "/net/vf1", "../drivers/igb"} {
		if err := os.MkdirAll(filepath.Join(devices, directory), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(
		os.Symlink("../"+vfPCI, filepath.Join(devices, pfPCI, "virtfn1")),
		os.Symlink("../../drivers/igb", filepath.Join(devices, pfPCI, "driver")),
	); err != nil {
		t.Fatal(err)
	}
	return root
}

// newVFs returns VFs of a host that has rail0 and vf1, and that host.
func newVFs(t *testing.T, sys string) (*VFs, *nettest.Namespace) {
	t.Helper()
	host, peer := nettest.New(t), nettest.New(t)
	nettest.Join(t, host, "rail0", peer, "peer0")
	nettest.Join(t, host, "vf1", peer, "peer1")
	vfs, err := NewVFs(VFsConfig{Sys: sys, Namespace: &host.FD})
	if err != nil {
		t.Fatal(err)
	}
	return vfs, host
}

func TestVFThatCannotBeSetSaysWhyAndWhatHelps(t *testing.T) {
	vf := netattach.VF{PF: pfPCI, Index: 1, PCI: vfPCI}
	setVLAN := func(vfs *VFs) error { return vfs.SetVF(vf, netattach.VFSettings{VLAN: new(100), QoS: new(0)}) }
	read := func(vfs *VFs) error { _, err := vfs.VF(vf); return err }
	for name, test := range map[string]struct {
		change func(devices string) error
		do     func(*VFs) error
		gone   bool
		want   []string
	}{
		"a driver that knows no VLAN": {nil, setVLAN, false, []string{
			"set vlan 100, vlanQoS 0 on VF 1 (0000:18:00.2) of PF 0000:18:00.0 (rail0)", "operation not supported", "driver (igb) cannot set this", "leave it out of the NICConfig"}},
		"a driver that tells nothing": {nil, read, false, []string{"driver (igb) tells nothing of the VF", "ip link show rail0"}},
		"a PF that was unplugged":     {func(devices string) error { return os.RemoveAll(filepath.Join(devices, pfPCI)) }, read, true, []string{"the PF is gone"}},
		"a PF with fewer VFs":         {func(devices string) error { return os.Remove(filepath.Join(devices, pfPCI, "virtfn1")) }, setVLAN, true, []string{"VF 1 (0000:18:00.2)"}},
		"a PF whose netdev is in a pod, by sysfs": {func(devices string) error { return os.RemoveAll(filepath.Join(devices, pfPCI, "net")) }, read, false,
			[]string{"netdev is not in the host's network namespace", "bring it back"}},
		"a PF whose netdev is in a pod, by netlink": {func(devices string) error {
			return os.Rename(filepath.Join(devices, pfPCI, "net", "rail0"), filepath.Join(devices, pfPCI, "net", "rail9"))
		}, setVLAN, false, []string{"netdev is not in the host's network namespace"}},
	} {
		t.Run(name, func(t *testing.T) {
			sys := sysOf(t)
			vfs, _ := newVFs(t, sys)
			if test.change != nil {
				if err := test.change(filepath.Join(sys, "bus", "pci", "devices")); err != nil {
					t.Fatal(err)
				}
			}
			err := test.do(vfs)
			if err == nil || errors.Is(err, netattach.ErrVFGone) != test.gone {
				t.Fatalf("%v; want an error that says that the VF is gone: %v", err, test.gone)
			}
			for _, want := range test.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q does not say %q", err, want)
				}
			}
		})
	}
}

func TestNetdevOfAVFTakesAnAddressAndStaysUpWithItsOwn(t *testing.T) {
	vfs, host := newVFs(t, sysOf(t))
	host.Up(t, "vf1", "10.1.0.9/24", "2001:db8:9::9/64")
	vf := netattach.VF{PF: pfPCI, Index: 1, PCI: vfPCI}
	for range 2 {
		if err := vfs.SetNetdevMAC(vf, "02:00:5e:10:00:01"); err != nil {
			t.Fatal(err)
		}
	}
	attrs := host.Link(t, "vf1").Attrs()
	if attrs.HardwareAddr.String() != "02:00:5e:10:00:01" || attrs.Flags&1 == 0 || addresses(t, host, "vf1") != "10.1.0.9/24 2001:db8:9::9/64" {
		t.Errorf("vf1 is %+v with addresses %s", attrs, addresses(t, host, "vf1"))
	}
	err := vfs.SetNetdevMAC(vf, "01:00:5e:10:00:01") // which no netdev takes
	if err == nil || !strings.Contains(err.Error(), "give vf1, the netdev of VF 1") || !strings.Contains(err.Error(), "bind it again") {
		t.Errorf("%v; want it to name the netdev and the remedy", err)
	}
	attrs = host.Link(t, "vf1").Attrs()
	if attrs.HardwareAddr.String() != "02:00:5e:10:00:01" || attrs.Flags&1 == 0 || addresses(t, host, "vf1") != "10.1.0.9/24 2001:db8:9::9/64" {
		t.Errorf("after a refusal vf1 is %+v with addresses %s", attrs, addresses(t, host, "vf1"))
	}
}

func TestNetdevOfAVFThatIsInAPodIsLeftAlone(t *testing.T) {
	sys := sysOf(t)
	vfs, _ := newVFs(t, sys)
	if err := os.RemoveAll(filepath.Join(sys, "bus", "pci", "devices", vfPCI, "net")); err != nil {
		t.Fatal(err)
	}
	if err := vfs.SetNetdevMAC(netattach.VF{PF: pfPCI, Index: 1, PCI: vfPCI}, "02:00:5e:10:00:01"); err != nil {
		t.Error(err)
	}
}

// words are a struct of the kernel's, in numbers of 32 bits.
func words(kind int, values ...uint32) *nl.RtAttr {
	var raw []byte
	for _, value := range values {
		raw = binary.NativeEndian.AppendUint32(raw, value)
	}
	return nl.NewRtAttr(kind, raw)
}

// message is a device that has these VFs, as the kernel would list it.
func message(vfs ...*nl.RtAttr) []byte {
	list := nl.NewRtAttr(unix.IFLA_VFINFO_LIST, nil)
	for _, vf := range vfs {
		list.AddChild(vf)
	}
	return append(nl.NewIfInfomsg(unix.AF_UNSPEC).Serialize(), list.Serialize()...)
}

// A driver that knows nothing of VF 0 leaves it out of the list, and one that
// cannot check what a VF sends says -1.
func TestVFsAreReadByTheirOwnNumbers(t *testing.T) {
	mac := words(nl.IFLA_VF_MAC, 1)
	mac.Data = append(append(mac.Data, 2, 0, 0x5e, 0x10, 0, 1), make([]byte, 26)...)
	vlan := words(nl.IFLA_VF_VLAN_INFO, 1, 100, 3)
	vlan.Data = append(vlan.Data, 0x88, 0xa8, 0, 0)
	vlans := nl.NewRtAttr(nl.IFLA_VF_VLAN_LIST|unix.NLA_F_NESTED, nil)
	vlans.AddChild(vlan)
	info := nl.NewRtAttr(nl.IFLA_VF_INFO, nil)
	for _, attribute := range []*nl.RtAttr{
		mac, words(nl.IFLA_VF_VLAN, 1, 100, 3), vlans, words(nl.IFLA_VF_TX_RATE, 1, 2000), words(nl.IFLA_VF_RATE, 1, 1000, 2000),
		words(nl.IFLA_VF_SPOOFCHK, 1, 0xffffffff), words(nl.IFLA_VF_TRUST, 1, 0), words(nl.IFLA_VF_LINK_STATE, 1, 2),
	} {
		info.AddChild(attribute)
	}
	device, err := decodeNetdev(message(info))
	if err != nil {
		t.Fatal(err)
	}
	want := map[int]netattach.VFSettings{1: {
		MAC: new("02:00:5e:10:00:01"), VLAN: new(100), QoS: new(3), VLANProtocol: new("802.1ad"),
		Trust: new(false), MinTxRate: new(1000), MaxTxRate: new(2000), LinkState: new("disable"),
	}}
	if diff := cmp.Diff(want, device.vfs); diff != "" {
		t.Errorf("settings (-want +got):\n%s", diff)
	}
}

// The kernel lists a setting in the struct in which it takes it.
func TestSettingsAreReadAsTheyAreSet(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		number := func(name string, most int) *int { return new(rapid.IntRange(0, most).Draw(t, name)) }
		index := rapid.IntRange(0, 255).Draw(t, "VF")
		setting := rapid.SampledFrom([]netattach.VFSettings{
			{MAC: new("02:00:5e:10:00:01")}, {MAC: new("00:00:00:00:00:00")},
			{VLAN: number("VLAN", 4094), QoS: number("QoS", 7)},
			{VLAN: number("VLAN", 4094), QoS: number("QoS", 7), VLANProtocol: new("802.1ad")},
			{MinTxRate: number("min", 1<<30), MaxTxRate: number("max", 1<<30)},
			{SpoofCheck: new(true)}, {SpoofCheck: new(false)}, {Trust: new(true)}, {Trust: new(false)},
			{LinkState: new("auto")}, {LinkState: new("enable")}, {LinkState: new("disable")},
		}).Draw(t, "setting")
		attribute, err := encodeVF(index, setting)
		if err != nil {
			t.Fatal(err)
		}
		var read netattach.VFSettings
		err = each(attribute.Serialize(), func(kind uint16, value []byte) error {
			if kind != nl.IFLA_VF_VLAN_LIST && int(binary.NativeEndian.Uint32(value)) != index {
				t.Fatalf("it is for VF %d", binary.NativeEndian.Uint32(value))
			}
			return decodeSetting(&read, kind, value)
		})
		if setting.VLANProtocol != nil { // VLAN and priority are listed beside the list, too
			setting.VLAN, setting.QoS = nil, nil
		}
		if diff := cmp.Diff(setting, read); diff != "" || err != nil {
			t.Fatalf("%v; setting (-set +read):\n%s", err, diff)
		}
	})
}

func TestHalfASettingIsNotSent(t *testing.T) {
	for _, setting := range []netattach.VFSettings{{}, {VLAN: new(1)}, {MinTxRate: new(1)}, {MAC: new("02:00")}, {LinkState: new("Auto")}} {
		if attribute, err := encodeVF(0, setting); err == nil {
			t.Errorf("%s is sent as %v", setting, attribute.Data)
		}
	}
}

func FuzzDecodeNetdev(f *testing.F) {
	for _, setting := range []netattach.VFSettings{{MAC: new("02:00:5e:10:00:01")}, {VLAN: new(1), QoS: new(0), VLANProtocol: new("802.1ad")}, {Trust: new(true)}} {
		attribute, err := encodeVF(1, setting)
		if err != nil {
			f.Fatal(err)
		}
		info := nl.NewRtAttr(nl.IFLA_VF_INFO, nil)
		info.AddChild(attribute)
		f.Add(message(info))
	}
	f.Add(append(nl.NewIfInfomsg(unix.AF_UNSPEC).Serialize(), nl.NewRtAttr(unix.IFLA_IFNAME, []byte("endless!")).Serialize()...))
	f.Fuzz(func(t *testing.T, raw []byte) {
		device, err := decodeNetdev(raw)
		if err != nil {
			return
		}
		for index, settings := range device.vfs {
			if settings.MAC == nil || index < 0 {
				t.Errorf("VF %d without an address: %s", index, settings)
			}
		}
	})
}
