package claim

// The world's side of what claims set on VFs and bind to vfio-pci, with a moment
// before and after every change.

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/hostler-dev/hostler/driver/vfio/vfiotest"
	"github.com/hostler-dev/hostler/netattach"
)

// bus makes the PCI functions anew that can be given to user space.
func (w *world) bus() {
	for _, folder := range []string{"sys", "dev/vfio"} {
		if err := os.RemoveAll(filepath.Join(w.directory, folder)); err != nil {
			w.t.Fatal(err)
		}
	}
	gpu, nic := []string{"nvidia"}, []string{"mlx5_core"}
	kernel, err := vfiotest.New(w.directory, []vfiotest.Function{
		{PCI: "0000:17:00.0", Group: "17", Class: "0x030200", Native: gpu, Driver: "nvidia"},
		{PCI: "0000:27:00.0", Group: "27", Class: "0x030200", Native: gpu, Driver: "nvidia"},
		{PCI: "0000:18:00.0", Group: "18", Native: nic, Driver: "mlx5_core"},
		{PCI: "0000:19:00.0", Group: "19", Native: nic, Driver: "mlx5_core", Override: "mlx5_core"},
		{PCI: "0000:1d:00.0", Group: "30", Native: nic, Driver: "mlx5_core", VFs: 2},
		{PCI: "0000:1d:00.1", Group: "31", Native: nic, Driver: "mlx5_core", PF: "0000:1d:00.0"},
		{PCI: "0000:1d:00.2", Group: "32", Native: nic, Driver: "mlx5_core", PF: "0000:1d:00.0"},
	}, "nvidia", "mlx5_core")
	if err != nil {
		w.t.Fatal(err)
	}
	kernel.Before = func(what string) error { return w.pass("before " + what) }
	// The next moment tells a dead agent.
	kernel.After = func(what string) { _ = w.pass("after " + what) }
	w.kernel = kernel
}

// bindings are the drivers of PCI functions and their overrides, by address.
func (w *world) bindings() map[string]string {
	bindings := map[string]string{}
	if w.kernel == nil {
		return bindings
	}
	for line := range strings.SplitSeq(w.kernel.State(), "\n") {
		pci, bound, _ := strings.Cut(line, " ")
		if strings.HasPrefix(bound, "vfio-pci ") {
			bound = "vfio-pci" // what may be bound next is no matter meanwhile
		}
		bindings[pci] = bound
	}
	return bindings
}

func (w *world) inUserSpace(pci string) bool {
	return w.bindings()[pci] == "vfio-pci"
}

// VF, SetVF and SetNetdevMAC make the world one of VFs.
func (w *world) VF(vf netattach.VF) (netattach.VFState, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	state := netattach.VFState{Settings: w.vfs[vfKey(vf)], NetdevMAC: w.addresses[vf.PCI]}
	if w.isAway(vf.PCI) || w.inUserSpace(vf.PCI) {
		state.NetdevMAC = ""
	}
	return state, nil
}

func (w *world) SetVF(vf netattach.VF, settings netattach.VFSettings) error {
	return w.change("a VF's setting", func() { w.vfs[vfKey(vf)] = overlaid(w.vfs[vfKey(vf)], settings) })
}

func (w *world) SetNetdevMAC(vf netattach.VF, address string) error {
	return w.change("a VF's netdev", func() { w.addresses[vf.PCI] = address })
}

func vfKey(vf netattach.VF) string { return fmt.Sprintf("%s/%d", vf.PF, vf.Index) }

// change is one change of the machine, with a moment before and after.
func (w *world) change(moment string, change func()) error {
	if err := w.pass("before " + moment); err != nil {
		return err
	}
	w.mu.Lock()
	change()
	w.mu.Unlock()
	return w.pass("after " + moment)
}
