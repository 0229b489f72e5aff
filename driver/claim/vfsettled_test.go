package claim

// A VF that is claimed again when its netdev has just come home from another claim, or has not.

import (
	"context"
	"errors"
	"testing"

	"github.com/hostler-dev/hostler/driver/sriov/sriovtest"
)

func TestVFIsReadOnceWhatTheLastClaimLeftIsInOrder(t *testing.T) {
	const lastClaims = "02:00:5e:77:00:01"
	table := sriovtest.New()
	before := table.State(sriovtest.VF(0))
	r := vfRoom(t, t.TempDir(), boot, table)
	c := with(allocated("c", onNIC(nicVF0)), class, wholeVF)

	table.VFs[sriovtest.VF(0)].NetdevMAC = "" // on its way
	home := false
	r.admission.Settled = func(_ context.Context, pci string) (bool, error) {
		if pci != "0000:1d:00.1" {
			t.Errorf("asked for %s", pci)
		}
		if home {
			table.VFs[sriovtest.VF(0)].NetdevMAC = before.NetdevMAC
		}
		return home, nil
	}
	if _, err := r.prepare(c); !errors.Is(err, ErrNetdevAway) || len(r.journal.Entries()) != 0 || table.Requests != 0 {
		t.Errorf("on its way home: %v, with %d requests", err, table.Requests)
	}
	home = true
	table.VFs[sriovtest.VF(0)].NetdevMAC = lastClaims
	entry, err := r.prepare(c)
	if err != nil || entry.Devices[0].VF.NetdevMAC != before.NetdevMAC || entry.Intent().Devices[0].UnclaimedMAC != before.NetdevMAC {
		t.Fatalf("%v; want %s noted as the netdev's own address: %+v", err, before.NetdevMAC, entry)
	}
	if err := r.Unprepare(t.Context(), c.UID); err != nil || table.State(sriovtest.VF(0)).NetdevMAC != before.NetdevMAC {
		t.Errorf("afterwards: %v, its netdev has %s, want %s", err, table.State(sriovtest.VF(0)).NetdevMAC, before.NetdevMAC)
	}
}

// As long as the last claim has the VF, nothing of it is anybody else's to put in order.
func TestOrderIsAskedForWhenTheLastClaimIsOver(t *testing.T) {
	r := vfRoom(t, t.TempDir(), boot, sriovtest.New())
	if _, err := r.prepare(with(allocated("first", onNIC(nicVF0)), class, wholeVF)); err != nil {
		t.Fatal(err)
	}
	unsettled := errors.New("it cannot be put in order")
	r.admission.Settled = func(context.Context, string) (bool, error) { return false, unsettled }
	second := with(allocated("second", onNIC(nicVF0)), class, wholeVF)
	if _, err := r.prepare(second); !errors.As(err, new(*HeldError)) {
		t.Errorf("%v; want it refused because the first claim holds the VF", err)
	}
	if err := r.Unprepare(t.Context(), "uid-first"); err != nil {
		t.Fatal(err)
	}
	if _, err := r.prepare(second); !errors.Is(err, unsettled) {
		t.Errorf("%v; want what hinders it", err)
	}
}
