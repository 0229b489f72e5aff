package multus

import (
	"testing"

	"github.com/containernetworking/cni/libcni"
)

// Whatever stands in a NetworkAttachmentDefinition is refused or becomes a list
// that libcni loads, in which every plugin has the device.
func FuzzResolve(f *testing.F) {
	f.Add(`{"cniVersion":"1.0.0","name":"rail","type":"tuning"}`)
	f.Add(`{"cniVersion":"1.0.0","plugins":[{"type":"tuning"},{"type":"sbr"}]}`)
	f.Add(`{"plugins":[{"type":1}]}`)
	f.Fuzz(func(t *testing.T, config string) {
		written, err := withDevice([]byte(config), "net", "0000:18:00.0")
		if err != nil {
			return
		}
		list, err := libcni.NetworkConfFromBytes(written)
		if err != nil {
			t.Fatalf("libcni does not load %s: %v", written, err)
		}
		if len(list.Plugins) == 0 {
			t.Fatalf("no plugins in %s", written)
		}
	})
}
