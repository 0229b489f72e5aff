package rdma

import (
	"encoding/hex"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink/nl"
)

// The bytes are those that iproute2 6.1 sends for the same command, as seen in the
// emulated machine (test/vm/guest compares them there), on a little-endian machine.
// Sequence and port are ours.
func TestRequestsAreThoseOfIproute2(t *testing.T) {
	if nl.NativeEndian().Uint16([]byte{1, 0}) != 1 {
		t.Skip("the bytes are those of a little-endian machine")
	}
	for name, test := range map[string]struct {
		request *nl.NetlinkRequest
		want    string
	}{
		"rdma dev set DEVICE netns …": {moveRequest(3, 7), "20000000 0214 0500 00000000 00000000" + "0800 0100 03000000" + "0800 4400 07000000"},
		"rdma dev set DEVICE name ib": {renameRequest(3, "ib"), "20000000 0214 0500 00000000 00000000" + "0800 0100 03000000" + "0700 0200 69620000"},
		"rdma system show":            {modeRequest(), "10000000 0614 0500 00000000 00000000"},
	} {
		test.request.Seq = 0
		if got := hex.EncodeToString(test.request.Serialize()); got != strings.ReplaceAll(test.want, " ", "") {
			t.Errorf("%s: %s, want %s", name, got, test.want)
		}
	}
}

func attribute(kind int, value ...byte) []byte {
	return nl.NewRtAttr(kind, value).Serialize()
}

func TestAnswersAreDecoded(t *testing.T) {
	device := append(attribute(nl.RDMA_NLDEV_ATTR_DEV_INDEX, nl.Uint32Attr(5)...), attribute(nl.RDMA_NLDEV_ATTR_DEV_NAME, []byte("mlx5_0\x00")...)...)
	number := make([]byte, 8)
	nl.NativeEndian().PutUint64(number, 0x946dae0300123456)
	device = append(device, attribute(nl.RDMA_NLDEV_ATTR_NODE_GUID, number...)...)
	unset := append(attribute(nl.RDMA_NLDEV_ATTR_DEV_NAME, []byte("a VF\x00")...), attribute(nl.RDMA_NLDEV_ATTR_NODE_GUID, make([]byte, 8)...)...)
	devices, err := decodeDevices([][]byte{device, unset})
	want := []Device{{Index: 5, Name: "mlx5_0", NodeGUID: "946d:ae03:0012:3456"}, {Name: "a VF"}}
	if diff := cmp.Diff(want, devices); diff != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	for name, test := range map[string]struct {
		message []byte
		want    Mode
	}{
		"exclusive":                           {attribute(nl.RDMA_NLDEV_SYS_ATTR_NETNS_MODE, 0), Exclusive},
		"shared":                              {attribute(nl.RDMA_NLDEV_SYS_ATTR_NETNS_MODE, 1), Shared},
		"a kernel that says nothing (≤ 5.1)":  {nil, Shared},
		"a kernel that says other things too": {append(attribute(99, 0, 0, 0, 0, 0), attribute(nl.RDMA_NLDEV_SYS_ATTR_NETNS_MODE, 0)...), Exclusive},
	} {
		if mode, err := decodeMode([][]byte{test.message}); err != nil || mode != test.want {
			t.Errorf("%s: %s, %v", name, mode, err)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(attribute(nl.RDMA_NLDEV_ATTR_DEV_NAME, []byte("mlx5_0\x00")...))
	f.Add([]byte{3, 0, 1, 0})
	f.Fuzz(func(t *testing.T, message []byte) {
		devices, err := decodeDevices([][]byte{message})
		if err == nil && len(devices) != 1 || err != nil && !errors.Is(err, errCutOff) {
			t.Errorf("%v, %v", devices, err)
		}
		if mode, err := decodeMode([][]byte{message}); (mode == Shared || mode == Exclusive) == (err != nil) {
			t.Errorf("%s, %v", mode, err)
		}
	})
}

// No machine is without an answer, and no question leaves a descriptor behind.
func TestThisMachineIsAsked(t *testing.T) {
	own, err := os.Open("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	before := descriptors(t)
	for range 20 {
		mode, err := Netlink{}.Mode(int(own.Fd()))
		if errors.Is(err, os.ErrPermission) {
			t.Skip("needs CAP_SYS_ADMIN to enter a network namespace: run as root")
		}
		if err != nil {
			t.Fatal(err)
		}
		devices, err := Netlink{}.Devices(int(own.Fd()))
		if err != nil || mode == Absent && len(devices) > 0 {
			t.Fatalf("mode %s, devices %v, error %v", mode, devices, err)
		}
	}
	if after := descriptors(t); after != before {
		t.Errorf("%d open descriptors before, %d after", before, after)
	}
}

func descriptors(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}
