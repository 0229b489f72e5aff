package claim

// Every kind of device that has an interface in its pod: the container reads there how
// it is called, by whichever way it came.

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/hostler-dev/hostler/netattach"
)

func TestContainersAreToldOfTheInterfaceOfEveryKind(t *testing.T) {
	told := 0
	for _, k := range kinds() {
		w := newWorld(t, inMemory(t))
		w.bus()
		a := w.start(0)
		a.steps.Attacher = a.attacher
		entry, err := a.prepare(k.claim("c"))
		if err != nil {
			t.Fatalf("%s: %v", k.name, err)
		}
		device := &entry.Devices[0]
		if device.Network == nil || !device.Network.HasNetdev() {
			if content, err := a.metadata.Read(entry.ClaimUID, "r0"); err != nil || content.Requests[0].Devices[0].NetworkData != nil {
				t.Errorf("%s: %v, and has an interface: %+v", k.name, err, content)
			}
			continue
		}
		told++
		a.attacher.inPods = map[types.UID][]netattach.DeviceState{entry.ClaimUID: {
			{Pool: "another", Device: device.Name, ShareID: device.ShareID, Interface: "wrong"},
			{Pool: device.Pool, Device: device.Name, ShareID: device.ShareID, Interface: "net7", MAC: "02:00:00:00:00:07"},
		}}
		if err := a.steps.Attached(entry); err != nil {
			t.Fatalf("%s: %v", k.name, err)
		}
		content, err := a.metadata.Read(entry.ClaimUID, "r0")
		if err != nil {
			t.Fatalf("%s: %v", k.name, err)
		}
		want := &resourceapi.NetworkDeviceData{InterfaceName: "net7", HardwareAddress: "02:00:00:00:00:07"}
		if diff := cmp.Diff(want, content.Requests[0].Devices[0].NetworkData); diff != "" {
			t.Errorf("%s (-want +told):\n%s", k.name, diff)
		}
	}
	if told < 10 {
		t.Errorf("only %d kinds have an interface", told)
	}
}
