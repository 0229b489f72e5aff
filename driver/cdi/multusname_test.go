package cdi

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/types"
	"tags.cncf.io/container-device-interface/pkg/cdi"
)

// What the runtime finds by the name is this claim's, and what Multus finds in it is
// the address.
func TestNameForMultusIsTheClaimsOwnAndEndsInTheAddress(t *testing.T) {
	dir := t.TempDir()
	var ids []string
	for _, uid := range []string{"11111111-aaaa-4000-8000-000000000001", "11111111-aaaa-4000-8000-000000000002"} {
		claim := &Claim{UID: types.UID(uid), Devices: []Device{{Name: "nic-0000-18-00-0", DeviceID: "0000:18:00.0"}}}
		spec, err := (&Builder{}).Build(context.Background(), claim)
		if err != nil {
			t.Fatal(err)
		}
		raw, err := Encode(claim.UID, spec)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, uid+".json"), raw, 0o600); err != nil {
			t.Fatal(err)
		}
		got := claim.DeviceIDs("nic-0000-18-00-0", "")
		if len(got) != 1 || !strings.HasSuffix(got[0], "=0000:18:00.0") {
			t.Fatalf("got %v, want one name that ends in the address", got)
		}
		ids = append(ids, got[0])
	}
	cache, err := cdi.NewCache(cdi.WithSpecDirs(dir), cdi.WithAutoRefresh(false))
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(ids)
	if got := cache.ListDevices(); !slices.Equal(got, ids) {
		t.Errorf("the runtime's library finds %v, want %v; faults: %v", got, ids, cache.GetErrors())
	}
}
