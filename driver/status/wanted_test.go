package status

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"unicode/utf8"

	resourceapi "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"pgregory.net/rapid"

	"github.com/hostler-dev/hostler/driver/claim"
	"github.com/hostler-dev/hostler/netattach"
	"github.com/hostler-dev/hostler/netattach/attach"
	"github.com/hostler-dev/hostler/topology"
)

const share types.UID = "4f7a2a3e-6d5c-4a39-9a42-0d8b2f6c1a11"

func gpuDevice() claim.Device {
	return claim.Device{Request: "gpu", Pool: "node-a/gpu", Name: "gpu-0", GPU: &topology.GPU{}}
}

func nicDevice() claim.Device {
	return claim.Device{Request: "nic", Pool: "node-a/nic", Name: "nic-0", NIC: &topology.NIC{}, Network: &netattach.DeviceIntent{}}
}

func nicOfMultus() claim.Device {
	device := nicDevice()
	device.Network.External, device.Network.ResourceName = true, "example.com/rail"
	return device
}

func rdmaNIC() claim.Device {
	device := nicDevice()
	device.RDMA, device.Network.RDMA = true, &netattach.RDMAIntent{Device: "mlx5_0"}
	return device
}

func sharedNIC() claim.Device {
	device := nicDevice()
	device.ShareID = ptr.To(share)
	return device
}

func egressDevice() claim.Device {
	return claim.Device{Request: "egress", Pool: "node-a/egress", Name: "egress"}
}

func entryOf(devices ...claim.Device) *claim.Entry {
	entry := &claim.Entry{ClaimUID: "uid", ClaimNamespace: "team", ClaimName: "c", Devices: devices}
	for _, device := range devices {
		if device.Name == "egress" {
			entry.Egress = &netattach.EgressIntent{}
		}
	}
	return entry
}

// inPod is a record of the pod with the states of its devices.
func inPod(name string, state attach.State, devices ...netattach.DeviceState) attach.Record {
	return attach.Record{State: state, Pod: netattach.PodReference{UID: types.UID("pod-" + name), Namespace: "team", Name: name}, Devices: devices}
}

func net1(addresses ...string) netattach.DeviceState {
	state := netattach.DeviceState{Device: "nic-0", Pool: "node-a/nic", Interface: "net1", MAC: "02:00:00:00:00:0A"}
	for _, address := range addresses {
		state.Addresses = append(state.Addresses, netip.MustParsePrefix(address))
	}
	return state
}

func withRDMA(state netattach.DeviceState, rdma netattach.RDMAState) netattach.DeviceState {
	state.RDMA = &rdma
	return state
}

func ofShare(state netattach.DeviceState, id types.UID) netattach.DeviceState {
	state.ShareID = &id
	return state
}

// storage is a network of the device whose chain made an interface of its own.
func storage(state netattach.DeviceState, fault string) netattach.DeviceState {
	state.Networks = []netattach.NetworkState{{Namespace: "team", Name: "storage", Fault: fault, DNS: &netattach.NetworkDNS{NameServers: []string{"192.0.2.53"}, Search: []string{"storage.example"}},
		Interfaces: []netattach.InterfaceState{{Name: "storage0", Index: 7, MAC: "02:00:00:00:00:0B", Addresses: []netip.Prefix{netip.MustParsePrefix("10.3.0.5/24")}}}}}
	return state
}

const storageData = `{"networks":[{"namespace":"team","name":"storage","interfaces":[{"interfaceName":"storage0","ips":["10.3.0.5/24"],"hardwareAddress":"02:00:00:00:00:0b"}],"dns":{"nameservers":["192.0.2.53"],"search":["storage.example"]}}]}`

// line is what a status says, in one line.
func line(s resourceapi.AllocatedDeviceStatus) string {
	words := []string{s.Pool + "/" + s.Device}
	if s.ShareID != nil {
		words[0] += "#" + (*s.ShareID)[:4]
	}
	for _, c := range s.Conditions {
		words = append(words, fmt.Sprintf("%s=%s(%s)", c.Type, c.Status, c.Reason))
		if c.Message != "" {
			words[len(words)-1] += ": " + c.Message + ";"
		}
	}
	if n := s.NetworkData; n != nil {
		words = append(words, strings.Join(append([]string{n.InterfaceName, n.HardwareAddress}, n.IPs...), " "))
	}
	if s.Data != nil {
		words = append(words, string(s.Data.Raw))
	}
	return strings.Join(words, " ")
}

func TestWanted(t *testing.T) {
	const notYet = "No container of a pod that uses the claim has been started yet, or its sandbox has ended;"
	for _, test := range []struct {
		name  string
		claim Claim
		want  []string
	}{
		{"nothing of a claim that is not prepared", Claim{}, nil},
		{"nothing of a claim that has left a partition behind", Claim{Entry: &claim.Entry{Released: true, Devices: []claim.Device{gpuDevice()}}}, nil},
		{"each device of a claim that cannot be prepared says why",
			Claim{Allocated: []Device{{Pool: "node-a/gpu", Name: "gpu-0"}, {Pool: "node-a/nic", Name: "nic-0", ShareID: share}}, Failure: "GPU gpu-0 is lost"},
			[]string{"node-a/gpu/gpu-0 Ready=False(PrepareFailed): GPU gpu-0 is lost;", "node-a/nic/nic-0#4f7a Ready=False(PrepareFailed): GPU gpu-0 is lost;"}},
		{"a prepared GPU is ready", Claim{Entry: entryOf(gpuDevice())}, []string{"node-a/gpu/gpu-0 Ready=True(Prepared)"}},
		{"a NIC that Multus attached is told as it is in the pod",
			Claim{Entry: entryOf(nicOfMultus()), Records: []attach.Record{inPod("a", attach.StateAttached, net1("10.80.0.2/24"))}},
			[]string{"node-a/nic/nic-0 Ready=True(Prepared) Attached=True(Attached): In pod a; net1 02:00:00:00:00:0a 10.80.0.2/24"}},
		{"a device that administrators have by two requests is one", Claim{Entry: entryOf(gpuDevice(), gpuDevice())}, []string{"node-a/gpu/gpu-0 Ready=True(Prepared)"}},
		{"a claim that cannot be undone says why",
			Claim{Entry: &claim.Entry{Ending: "the partition is in use", Devices: []claim.Device{gpuDevice()}}},
			[]string{"node-a/gpu/gpu-0 Ready=False(UnprepareFailed): the partition is in use;"}},
		{"a prepared claim that cannot be prepared again is not ready",
			Claim{Entry: entryOf(rdmaNIC()), Failure: "the VF is gone"},
			[]string{"node-a/nic/nic-0 Ready=False(PrepareFailed): the VF is gone; Attached=False(NotAttached): " + notYet}},
		{"a NIC whose pod has no sandbox yet", Claim{Entry: entryOf(nicDevice())},
			[]string{"node-a/nic/nic-0 Ready=True(Prepared) Attached=False(NotAttached): " + notYet}},
		{"a NIC that is being attached", Claim{Entry: entryOf(nicDevice()), Records: []attach.Record{inPod("a", attach.StateAttaching)}},
			[]string{"node-a/nic/nic-0 Ready=True(Prepared) Attached=False(NotAttached): " + notYet}},
		{"a NIC in its pod, with its name, address and IPs there",
			Claim{Entry: entryOf(nicDevice()), Records: []attach.Record{inPod("a", attach.StateAttached, net1("192.0.2.7/24", "2001:db8::7/64"))}},
			[]string{"node-a/nic/nic-0 Ready=True(Prepared) Attached=True(Attached): In pod a; net1 02:00:00:00:00:0a 192.0.2.7/24 2001:db8::7/64"}},
		{"a NIC with a network of its own interface",
			Claim{Entry: entryOf(nicDevice()), Records: []attach.Record{inPod("a", attach.StateAttached, storage(net1("192.0.2.7/24"), ""))}},
			[]string{"node-a/nic/nic-0 Ready=True(Prepared) Attached=True(Attached): In pod a; net1 02:00:00:00:00:0a 192.0.2.7/24 " + storageData}},
		{"one whose plugins find that it has changed",
			Claim{Entry: entryOf(nicDevice()), Records: []attach.Record{inPod("a", attach.StateAttached, storage(net1(), "device nic-0: no lease"))}},
			[]string{"node-a/nic/nic-0 Ready=True(Prepared) Attached=False(CheckFailed): In pod a, but device nic-0: no lease; net1 02:00:00:00:00:0a " + storageData}},
		{"another device of that pod is none the worse",
			Claim{Entry: entryOf(nicDevice()), Records: []attach.Record{inPod("a", attach.StateAttached, net1(), func() netattach.DeviceState {
				other := storage(net1(), "device nic-1: no lease")
				other.Device = "nic-1"
				return other
			}())}},
			[]string{"node-a/nic/nic-0 Ready=True(Prepared) Attached=True(Attached): In pod a; net1 02:00:00:00:00:0a"}},
		{"of children in two pods their networks are left out, too",
			Claim{Entry: entryOf(nicDevice()), Records: []attach.Record{inPod("a", attach.StateAttached, storage(net1(), "")), inPod("b", attach.StateAttached, storage(net1(), ""))}},
			[]string{"node-a/nic/nic-0 Ready=True(Prepared) Attached=True(Attached): In 2 pods;"}},
		{"a NIC whose pod could not be attached says why",
			Claim{Entry: entryOf(nicDevice()), AttachFailures: map[types.UID]string{"pod-a": "the chain failed"}},
			[]string{"node-a/nic/nic-0 Ready=True(Prepared) Attached=False(AttachFailed): the chain failed;"}},
		{"an attachment that succeeded in the end has no failure",
			Claim{Entry: entryOf(nicDevice()), Records: []attach.Record{inPod("a", attach.StateAttached, net1())}, AttachFailures: map[types.UID]string{"pod-a": "the chain failed"}},
			[]string{"node-a/nic/nic-0 Ready=True(Prepared) Attached=True(Attached): In pod a; net1 02:00:00:00:00:0a"}},
		{"a child in each of two pods is counted, and its data, of which there is one place, left out",
			Claim{Entry: entryOf(sharedNIC()), Records: []attach.Record{inPod("b", attach.StateAttached, ofShare(net1("192.0.2.8/24"), share)), inPod("a", attach.StateAttached, ofShare(net1("192.0.2.7/24"), share))}},
			[]string{"node-a/nic/nic-0#4f7a Ready=True(Prepared) Attached=True(Attached): In 2 pods;"}},
		{"of two shares of a NIC in one pod each has its own data",
			Claim{Entry: entryOf(sharedNIC(), func() claim.Device { d := sharedNIC(); d.ShareID = ptr.To(types.UID("5bbb")); return d }()),
				Records: []attach.Record{inPod("a", attach.StateAttached, ofShare(net1("192.0.2.8/24"), share), ofShare(net1("192.0.2.9/24"), "5bbb"))}},
			[]string{"node-a/nic/nic-0#4f7a Ready=True(Prepared) Attached=True(Attached): In pod a; net1 02:00:00:00:00:0a 192.0.2.8/24",
				"node-a/nic/nic-0#5bbb Ready=True(Prepared) Attached=True(Attached): In pod a; net1 02:00:00:00:00:0a 192.0.2.9/24"}},
		{"with one pod of two failing the condition is false",
			Claim{Entry: entryOf(egressDevice()), Records: []attach.Record{inPod("a", attach.StateAttached)}, AttachFailures: map[types.UID]string{"pod-b": "no resolver"}},
			[]string{"node-a/egress/egress Ready=True(Prepared) EgressEnforced=False(AttachFailed): no resolver;"}},
		{"a scope in three pods", Claim{Entry: entryOf(egressDevice()), Records: []attach.Record{inPod("a", attach.StateAttached), inPod("b", attach.StateAttached), inPod("c", attach.StateAttached)}},
			[]string{"node-a/egress/egress Ready=True(Prepared) EgressEnforced=True(Enforced): In 3 pods;"}},
		{"RDMA in the pod's namespace alone",
			Claim{Entry: entryOf(rdmaNIC()), Records: []attach.Record{inPod("a", attach.StateAttached, withRDMA(net1(), netattach.RDMAState{Device: "mlx5_0", Exclusive: true}))}},
			[]string{"node-a/nic/nic-0 Ready=True(Prepared) Attached=True(Attached): In pod a; RDMAReady=True(Exclusive): mlx5_0 is in the pod's network namespace alone; net1 02:00:00:00:00:0a"}},
		{"RDMA that is shared as it was asked for",
			Claim{Entry: entryOf(rdmaNIC()), Records: []attach.Record{inPod("a", attach.StateAttached, withRDMA(net1(), netattach.RDMAState{Device: "mlx5_0"}))}},
			[]string{"node-a/nic/nic-0 Ready=True(Prepared) Attached=True(Attached): In pod a; RDMAReady=True(Shared): mlx5_0 is shared with the node; net1 02:00:00:00:00:0a"}},
		{"RDMA that the pod does without, because it could not have it as the node is",
			Claim{Entry: entryOf(rdmaNIC()), Records: []attach.Record{inPod("a", attach.StateAttached, withRDMA(net1(), netattach.RDMAState{Device: "rxe0", Fallback: "the kernel says: operation not supported"}))}},
			[]string{"node-a/nic/nic-0 Ready=True(Prepared) Attached=True(Attached): In pod a; RDMAReady=False(Fallback): The pod does without rxe0: the kernel says: operation not supported; net1 02:00:00:00:00:0a"}},
		{"RDMA of a pod that could not be attached",
			Claim{Entry: entryOf(rdmaNIC()), AttachFailures: map[types.UID]string{"pod-a": "mlx5_0 cannot be moved"}},
			[]string{"node-a/nic/nic-0 Ready=True(Prepared) Attached=False(AttachFailed): mlx5_0 cannot be moved; RDMAReady=False(AttachFailed): mlx5_0 cannot be moved;"}},
		{"RDMA without a netdev", Claim{Entry: entryOf(claim.Device{Pool: "node-a/nic", Name: "nic-0", NIC: &topology.NIC{}, RDMA: true})},
			[]string{"node-a/nic/nic-0 Ready=True(Prepared) RDMAReady=True(Shared): Its device nodes are in the claim's containers;"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			var got []string
			for _, s := range Wanted(test.claim) {
				got = append(got, line(s))
			}
			if strings.Join(got, "\n") != strings.Join(test.want, "\n") {
				t.Errorf("the status is\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(test.want, "\n"))
			}
		})
	}
}

// The API's limits: k8s.io/api resource/v1 and metav1.Condition.
func TestWhateverIsWantedTheAPITakes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.Custom(func(t *rapid.T) string {
			return strings.Repeat(rapid.String().Draw(t, "text")+string(rapid.SliceOfN(rapid.Byte(), 0, 3).Draw(t, "bytes")), rapid.IntRange(1, 3000).Draw(t, "times"))
		})
		var addresses []netip.Prefix
		for range rapid.IntRange(0, 40).Draw(t, "addresses") {
			address, _ := netip.AddrFromSlice(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "address"))
			if rapid.Bool().Draw(t, "mapped") {
				address = netip.AddrFrom16(netip.AddrFrom4([4]byte{192, 0, 2, byte(len(addresses))}).As16())
			}
			addresses = append(addresses, netip.PrefixFrom(address, rapid.IntRange(96, 128).Draw(t, "bits")))
		}
		c := Claim{
			Entry: entryOf(gpuDevice(), rdmaNIC(), egressDevice()), Failure: rapid.OneOf(rapid.Just(""), text).Draw(t, "failure"),
			AttachFailures: map[types.UID]string{"pod-b": text.Draw(t, "attach failure")},
			Records:        []attach.Record{inPod("a", attach.StateAttached, withRDMA(netattach.DeviceState{Device: "nic-0", Interface: "net1", MAC: text.Draw(t, "mac"), Addresses: addresses}, netattach.RDMAState{Fallback: text.Draw(t, "fallback")}))},
		}
		for range rapid.IntRange(0, 8).Draw(t, "networks") {
			device := &c.Records[0].Devices[0]
			device.Networks = append(device.Networks, netattach.NetworkState{Namespace: "team", Name: "storage", DNS: &netattach.NetworkDNS{Domain: text.Draw(t, "domain")},
				Interfaces: []netattach.InterfaceState{{Name: "storage0", Addresses: addresses}}})
		}
		if rapid.Bool().Draw(t, "no failure") {
			c.AttachFailures = nil
		}
		for _, s := range Wanted(c) {
			if len(s.Conditions) > resourceapi.AllocatedDeviceStatusMaxConditions {
				t.Fatalf("%d conditions", len(s.Conditions))
			}
			for _, condition := range s.Conditions {
				if len(condition.Message) > 32768 || !utf8.ValidString(condition.Message) || condition.Reason == "" {
					t.Fatalf("%s: %s with %d bytes", condition.Type, condition.Reason, len(condition.Message))
				}
			}
			if s.Data != nil && (len(s.Data.Raw) > resourceapi.AllocatedDeviceStatusDataMaxLength || !json.Valid(s.Data.Raw)) {
				t.Fatalf("%d bytes of data: %s", len(s.Data.Raw), s.Data.Raw)
			}
			if n := s.NetworkData; n != nil {
				if len(n.IPs) > resourceapi.NetworkDeviceDataMaxIPs || len(n.HardwareAddress) > resourceapi.NetworkDeviceDataHardwareAddressMaxLength {
					t.Fatalf("%d addresses, hardware address of %d bytes", len(n.IPs), len(n.HardwareAddress))
				}
				seen := map[string]bool{}
				for _, ip := range n.IPs {
					prefix, err := netip.ParsePrefix(ip)
					if err != nil || prefix.String() != ip || prefix.Addr().Is4In6() || seen[ip] {
						t.Fatalf("address %q, %v, twice: %t", ip, err, seen[ip])
					}
					seen[ip] = true
				}
			}
		}
	})
}

func TestTransitionTimesChangeWithTheStatusAlone(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		draw := func(name string) []resourceapi.AllocatedDeviceStatus {
			status := rapid.SampledFrom([]metav1.ConditionStatus{metav1.ConditionTrue, metav1.ConditionFalse}).Draw(t, name)
			return []resourceapi.AllocatedDeviceStatus{{Pool: "p", Device: "d", Conditions: []metav1.Condition{
				condition(Ready, status, rapid.SampledFrom([]string{"A", "B"}).Draw(t, name+" reason"), rapid.SampledFrom([]string{"", "x"}).Draw(t, name+" message"))}}}
		}
		before := dated(draw("before"), nil, time0)
		after := dated(draw("after"), before, time0.Add(90*1e9))
		kept := after[0].Conditions[0].LastTransitionTime.Equal(&before[0].Conditions[0].LastTransitionTime)
		if same := before[0].Conditions[0].Status == after[0].Conditions[0].Status; kept != same {
			t.Fatalf("status the same: %t, time the same: %t", same, kept)
		}
		again := dated(after, after, time0.Add(900*1e9))
		if compare(again, after) != same || !again[0].Conditions[0].LastTransitionTime.Equal(&after[0].Conditions[0].LastTransitionTime) {
			t.Fatal("what has not changed differs")
		}
	})
}

// The API server writes fields in an order of its own.
func TestDataIsComparedByWhatItSays(t *testing.T) {
	status := func(data string) []resourceapi.AllocatedDeviceStatus {
		one := resourceapi.AllocatedDeviceStatus{Pool: "p", Device: "d"}
		if data != "" {
			one.Data = &runtime.RawExtension{Raw: []byte(data)}
		}
		return []resourceapi.AllocatedDeviceStatus{one}
	}
	for name, test := range map[string]struct {
		wanted, present string
		want            difference
	}{
		"none": {"", "", same}, "the same in another order": {`{"a":1,"b":[2]}`, `{ "b": [2], "a": 1 }`, same},
		"none before": {`{"a":1}`, "", substance}, "none any more": {"", `{"a":1}`, substance}, "another value": {`{"a":1}`, `{"a":2}`, substance}, "no JSON": {`{"a":1}`, `{`, substance},
	} {
		if got := compare(status(test.wanted), status(test.present)); got != test.want {
			t.Errorf("%s: %v, want %v", name, got, test.want)
		}
	}
}
