package driver

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/dynamic-resource-allocation/kubeletplugin"

	"github.com/hostler-dev/hostler/driver/publish"
)

// BenchmarkPrepare measures prepare without gRPC and
// API server, for one claim and for eight in one call.
func BenchmarkPrepare(b *testing.B) {
	for _, n := range []int{1, 8} {
		b.Run(fmt.Sprintf("claims=%d", n), func(b *testing.B) {
			d, _ := newDriver(b, fake.NewClientset(), pathsIn(b))
			d.SetSnapshot(machineOf(8))
			var claims []*resourceapi.ResourceClaim
			var objects []kubeletplugin.NamespacedObject
			for i := range n {
				c := claimOn(fmt.Sprint(i), publish.GPUPool(node), d.machine.now().GPUs[i].Name)
				claims, objects = append(claims, c), append(objects, kubeletplugin.NamespacedObject{UID: c.UID})
			}
			for b.Loop() {
				results, err := d.PrepareResourceClaims(context.Background(), claims)
				if err != nil {
					b.Fatal(err)
				}
				for _, r := range results {
					if r.Err != nil {
						b.Fatal(r.Err)
					}
				}
				b.StopTimer()
				if _, err := d.UnprepareResourceClaims(context.Background(), objects); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
			}
		})
	}
}

// BenchmarkFsync is the floor: one file of a journal's size, written and synced.
func BenchmarkFsync(b *testing.B) {
	path := filepath.Join(b.TempDir(), "file")
	content := make([]byte, 1024)
	for b.Loop() {
		f, err := os.Create(path)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := f.Write(content); err != nil {
			b.Fatal(err)
		}
		if err := f.Sync(); err != nil {
			b.Fatal(err)
		}
		if err := f.Close(); err != nil {
			b.Fatal(err)
		}
	}
}
