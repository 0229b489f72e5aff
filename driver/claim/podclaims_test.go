package claim

// A pod's claims are unprepared by a call each. Other drivers kept what they knew of a
// pod under the pod, forgot all of it at the first call, and left the second claim's
// devices bound and its CDI spec in place.

import (
	"errors"
	"io/fs"
	"os"
	"slices"
	"strings"
	"testing"

	resourceapi "k8s.io/api/resource/v1"

	"github.com/hostler-dev/hostler/driver/sriov/sriovtest"
)

func TestClaimsOfOnePodAreUnpreparedEachByItself(t *testing.T) {
	claims := []*resourceapi.ResourceClaim{
		with(allocated("gpu", onGPU("gpu-0000-17-00-0")), claim, vfioGPU),
		with(allocated("nic", onNIC("nic-0000-19-00-0")), claim, vfioNIC),
		with(allocated("vf", onNIC(nicVF0)), class, vfSettings),
	}
	for _, c := range claims {
		c.Status.ReservedFor = claims[0].Status.ReservedFor
	}
	for _, order := range [][]int{{0, 1, 2}, {1, 2, 0}, {2, 1, 0}} {
		r, kernel := userSpaceRoom(t)
		table := sriovtest.New()
		r.steps.VFs, r.admission.VFs = table, table
		has := map[string]func() bool{
			"gpu": func() bool { return strings.Contains(kernel.State(), "0000:17:00.0 vfio-pci") },
			"nic": func() bool { return strings.Contains(kernel.State(), "0000:19:00.0 vfio-pci") },
			"vf":  func() bool { return *table.State(sriovtest.VF(0)).Settings.VLAN == 100 },
		}
		for _, c := range claims {
			if _, err := r.prepare(c); err != nil {
				t.Fatal(err)
			}
		}
		for done, next := range order {
			if err := r.Unprepare(t.Context(), claims[next].UID); err != nil {
				t.Fatal(err)
			}
			for i, c := range claims {
				kept := !slices.Contains(order[:done+1], i)
				_, err := os.Stat(r.cdi.File(c.UID))
				if err != nil && !errors.Is(err, fs.ErrNotExist) {
					t.Fatal(err)
				}
				if has[c.Name]() != kept || (err == nil) != kept {
					t.Errorf("with %d of the pod's claims unprepared, %s has its device: %t, its CDI spec: %t; want %t", done+1, c.Name, has[c.Name](), err == nil, kept)
				}
			}
		}
	}
}
