package attach

// What an attachment costs, with the network devices that every test machine has.
// A veth's move is slower than a NIC's driver makes it, but it is the same path.

import (
	"context"
	"fmt"
	"net/netip"
	"path/filepath"
	"testing"

	"github.com/hostler-dev/hostler/netattach"
	"github.com/hostler-dev/hostler/netattach/internal/nettest"
)

func BenchmarkAttachAndDetach(b *testing.B) {
	for _, devices := range []int{1, 8} {
		b.Run(fmt.Sprintf("veths=%d", devices), func(b *testing.B) {
			host, peer, pod := nettest.New(b), nettest.New(b), nettest.New(b)
			sandbox := Sandbox{ID: "sandbox-1", NetNS: pod.Path, Pod: netattach.PodReference{UID: "pod-1", Namespace: "ns", Name: "p"}}
			intent := netattach.Intent{ClaimUID: "claim-1", ClaimNamespace: "ns", ClaimName: "claim-1", Pods: []netattach.PodReference{sandbox.Pod}}
			for i := range devices {
				name := fmt.Sprintf("rail%d", i)
				nettest.Join(b, host, name, peer, "to-"+name)
				host.Up(b, name, fmt.Sprintf("10.%d.0.9/24", i))
				peer.Up(b, "to-"+name)
				intent.Devices = append(intent.Devices, netattach.DeviceIntent{
					Device: "nic-" + name, HostName: name, PodName: fmt.Sprintf("net%d", i),
					HostMAC:   host.Link(b, name).Attrs().HardwareAddr.String(),
					Addresses: []netip.Prefix{netip.MustParsePrefix(fmt.Sprintf("10.%d.0.5/24", i)), netip.MustParsePrefix(fmt.Sprintf("2001:db8:%d::5/64", i))},
				})
			}
			run := b.TempDir()
			attacher, err := New(Config{Intents: journal{"claim-1": intent}, Run: run, HostNamespace: &host.FD, CNICache: filepath.Join(run, "cni")})
			if err != nil {
				b.Fatal(err)
			}
			defer attacher.Close()
			for b.Loop() {
				if err := attacher.Attach(context.Background(), sandbox); err != nil {
					b.Fatal(err)
				}
				if err := attacher.DetachSandbox(context.Background(), "pod-1", "sandbox-1"); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
