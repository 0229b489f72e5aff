package claim

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"

	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/utils/ptr"

	"github.com/hostler-dev/hostler/driver/vfio/vfiotest"
)

const (
	vfioGPU = `GPUConfig {"mode": "vfio"}`
	vfioNIC = `NICConfig {"mode": "vfio"}`
)

func TestPlanOfDevicesInUserSpace(t *testing.T) {
	watching := with(allocated("c", onGPU("gpu-0000-17-00-0")), claim, vfioGPU)
	watching.Status.Allocation.Devices.Results[0].AdminAccess = ptr.To(true)
	for name, test := range map[string]struct {
		claim *resourceapi.ResourceClaim
		want  string // the addresses given away; or, after "refused: ", what the refusal says
	}{
		"a GPU":                            {with(allocated("c", onGPU("gpu-0000-17-00-0")), claim, vfioGPU), "0000:17:00.0"},
		"a NIC":                            {with(allocated("c", onNIC("nic-0000-19-00-0")), claim, vfioNIC), "0000:19:00.0"},
		"a VF, as its class says":          {with(allocated("c", onNIC("nic-0000-1d-00-1")), class, vfioNIC), "0000:1d:00.1"},
		"the GPU of a pair":                {with(allocated("c", onAny(pairPlain)), claim, vfioGPU), "0000:27:00.0"},
		"the NIC of a pair":                {with(allocated("c", onAny(pairPlain)), claim, vfioNIC), "0000:19:00.0"},
		"both of a pair":                   {with(with(allocated("c", onAny(pairPlain)), claim, vfioGPU), claim, vfioNIC), "0000:27:00.0 0000:19:00.0"},
		"neither, unless asked":            {allocated("c", onAny(pairPlain)), ""},
		"a GPU that is only looked at":     {watching, "refused: admin access"},
		"a partition":                      {with(allocated("c", onGPU(part1g0)), claim, vfioGPU), "refused: a partition is none"},
		"a GPU in MIG mode":                {with(allocated("c", onGPU(migGPU)), claim, vfioGPU), "refused: MIG mode"},
		"a PF with VFs":                    {with(allocated("c", onNIC("nic-0000-1d-00-0")), claim, vfioNIC), "refused: 2 VFs"},
		"the node's uplink":                {with(allocated("c", onNIC("nic-0000-1c-00-0")), claim, vfioNIC), "refused: node's own"},
		"one GPU for two requests":         {with(allocated("c", onGPU("gpu-0000-17-00-0"), onGPU("gpu-0000-17-00-0")), claim, vfioGPU, "r1"), `refused: "r0" and "r1" at once`},
		"a netdev's settings":              {with(allocated("c", onNIC("nic-0000-19-00-0")), claim, `NICConfig {"mode": "vfio", "mtu": 1500}`), "refused: mtu"},
		"a driver's parts":                 {with(with(allocated("c", onGPU("gpu-0000-17-00-0")), class, `GPUConfig {"driverCapabilities": ["compute"]}`), claim, vfioGPU), "refused: driverCapabilities"},
		"a NIC beside a scope":             {with(allocated("c", onNIC("nic-0000-19-00-0"), onEgress()), claim, vfioNIC), "refused: bypass"},
		"a NIC beside a scope that allows": {with(with(allocated("c", onNIC("nic-0000-19-00-0"), onEgress()), claim, vfioNIC), claim, `EgressConfig {"kernelBypass": "Allow"}`), "0000:19:00.0"},
	} {
		t.Run(name, func(t *testing.T) {
			entry, err := Plan(PlanInput{Claim: test.claim, NodeName: node, Snapshot: cutMachine(migDevice()), Resolvers: []netip.Addr{}})
			if refusal, refused := strings.CutPrefix(test.want, "refused: "); refused {
				if err == nil || !strings.Contains(err.Error(), refusal) {
					t.Errorf("%v, want a refusal that says %q", err, refusal)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			device := &entry.Devices[0]
			var addresses []string
			for _, binding := range device.bindings() {
				addresses = append(addresses, binding.Functions[0].PCI)
			}
			if got := strings.Join(addresses, " "); got != test.want {
				t.Errorf("to user space goes %q, want %q", got, test.want)
			}
			if device.nicInUserSpace() && (device.Network != nil || device.RDMA) {
				t.Errorf("the NIC is in user space with netdev %+v, RDMA %t", device.Network, device.RDMA)
			}
			if device.gpuInUserSpace() == (len(device.Capabilities) > 0) && device.GPU != nil {
				t.Errorf("GPU in user space: %t, with the driver's %v", device.gpuInUserSpace(), device.Capabilities)
			}
		})
	}
}

func TestPlanWaitsForAGPUThatComesBackFromUserSpace(t *testing.T) {
	for _, config := range []string{vfioGPU, `GPUConfig {}`} {
		_, err := Plan(PlanInput{Claim: with(allocated("c", onGPU("gpu-0000-17-00-0")), claim, config), NodeName: node, Snapshot: machine(), ComingHome: map[string]bool{"gpu-0000-17-00-0": true}})
		if !errors.Is(err, ErrComingHome) || !strings.Contains(err.Error(), "gpu-0000-17-00-0") {
			t.Errorf("%s: %v, want ErrComingHome", config, err)
		}
	}
}

// userSpaceRoom is a room whose kernel has an IOMMU.
func userSpaceRoom(t *testing.T) (*room, *vfiotest.Kernel) {
	t.Helper()
	kernel, err := vfiotest.New(t.TempDir(), []vfiotest.Function{
		{PCI: "0000:17:00.0", Group: "1", Class: "0x030200", Native: []string{"nvidia"}, Driver: "nvidia"},
		{PCI: "0000:17:00.1", Group: "1", Class: "0x040300", Native: []string{"snd"}, Driver: "snd"},
		{PCI: "0000:27:00.0", Group: "2", Class: "0x030200", Native: []string{"nvidia"}, Driver: "nvidia"},
		{PCI: "0000:19:00.0", Group: "3", Native: []string{"mlx5_core"}, Driver: "mlx5_core"},
		{PCI: "0000:18:00.0", Group: "4", Native: []string{"mlx5_core"}, Driver: "mlx5_core"},
		{PCI: "0000:1a:00.0", Group: "4", Native: []string{"mlx5_core"}, Driver: "mlx5_core"},
	}, "nvidia", "snd", "mlx5_core")
	if err != nil {
		t.Fatal(err)
	}
	r := newRoom(t, t.TempDir(), boot)
	r.steps.VFIO = kernel.Bus()
	r.admission.VFIO = r.steps.VFIO
	return r, kernel
}

func TestAClaimOfDevicesInUserSpace(t *testing.T) {
	r, kernel := userSpaceRoom(t)
	before := kernel.State()
	c := with(with(allocated("c", onAny(pairPlain), onGPU("gpu-0000-17-00-0")), claim, vfioGPU), claim, vfioNIC)
	for range 2 { // the repeated call finds everything done
		if _, err := r.prepare(c); err != nil {
			t.Fatal(err)
		}
	}
	want := "0000:17:00.0 vfio-pci override=vfio-pci\n0000:17:00.1 vfio-pci override=vfio-pci\n0000:18:00.0 mlx5_core override=\n0000:19:00.0 vfio-pci override=vfio-pci\n0000:1a:00.0 mlx5_core override=\n0000:27:00.0 vfio-pci override=vfio-pci"
	if kernel.State() != want {
		t.Errorf("prepared, the machine is\n%s\nwant\n%s", kernel.State(), want)
	}
	raw, err := os.ReadFile(r.cdi.File(c.UID))
	if err != nil {
		t.Fatal(err)
	}
	_, edits, _ := strings.Cut(string(raw), `"devices"`)
	for node, times := range map[string]int{`"/dev/vfio/1"`: 1, `"/dev/vfio/2"`: 1, `"/dev/vfio/3"`: 1, `"/dev/vfio/vfio"`: 2, "MINOR": 0, "gpu-driver": 0, "uverbs": 0} {
		if n := strings.Count(edits, node); n != times {
			t.Errorf("the spec names %s %d times, want %d: %s", node, n, times, edits)
		}
	}
	if held := NewLedger(r.journal).HeldGPUs(); len(held) != 2 || held["gpu-0000-27-00-0"].UUID != "GPU-b" {
		t.Errorf("held in user space are %v", held)
	}
	if _, err := r.prepare(with(allocated("other", onGPU("gpu-0000-27-00-0")), claim, vfioGPU)); !errors.As(err, new(*HeldError)) {
		t.Errorf("a GPU that another claim has in user space: %v", err)
	}
	for range 2 {
		if err := r.Unprepare(t.Context(), c.UID); err != nil {
			t.Fatal(err)
		}
	}
	if kernel.State() != before {
		t.Errorf("unprepared, the machine is\n%s\nwant\n%s", kernel.State(), before)
	}
}

func TestWhatCannotGoToUserSpaceIsRefusedBeforeAnythingIsDone(t *testing.T) {
	for name, test := range map[string]struct {
		claim  *resourceapi.ResourceClaim
		change func(*testing.T, *room, *vfiotest.Kernel)
		want   string
	}{
		"a NIC that shares its group": {with(allocated("c", onNIC("nic-0000-18-00-0")), claim, vfioNIC), nil, "shares IOMMU group 4 with 0000:1a:00.0"},
		"two NICs of one group":       {with(allocated("c", onNIC("nic-0000-18-00-0"), onNIC("nic-0000-1a-00-0")), claim, vfioNIC), nil, "shares IOMMU group 4"},
		"an agent that cannot": {with(allocated("c", onGPU("gpu-0000-17-00-0")), claim, vfioGPU), func(_ *testing.T, r *room, _ *vfiotest.Kernel) { r.admission.VFIO = nil },
			"cannot give devices to user space"},
		"a function that is gone": {with(allocated("c", onNIC("nic-0000-19-00-0")), claim, vfioNIC), func(t *testing.T, _ *room, k *vfiotest.Kernel) {
			if err := k.Unplug("0000:19:00.0"); err != nil {
				t.Fatal(err)
			}
		}, "look for PCI function 0000:19:00.0"},
	} {
		t.Run(name, func(t *testing.T) {
			r, kernel := userSpaceRoom(t)
			if test.change != nil {
				test.change(t, r, kernel)
			}
			before := kernel.State()
			if _, err := r.prepare(test.claim); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("%v, want a refusal that says %q", err, test.want)
			}
			if kernel.State() != before || len(r.journal.Entries()) != 0 {
				t.Errorf("something was done: %d entries, and the machine is\n%s", len(r.journal.Entries()), kernel.State())
			}
		})
	}
}

// A binding that cannot be undone is kept, holds its device, and is undone by the
// next look at claims.
func TestAStrandedBindingIsKeptAndUndoneLater(t *testing.T) {
	for name, during := range map[string]bool{"while it is prepared": true, "while it is unprepared": false} {
		t.Run(name, func(t *testing.T) {
			r, kernel := userSpaceRoom(t)
			before := kernel.State()
			c := with(allocated("c", onGPU("gpu-0000-17-00-0")), claim, vfioGPU)
			refuse := func(what string) error {
				switch {
				case what == "bind 0000:17:00.0", during && what == "drivers_probe 0000:17:00.1":
					return syscall.EIO
				}
				return nil
			}
			if during {
				kernel.Before = refuse
			}
			_, err := r.prepare(c)
			if !during {
				if err != nil {
					t.Fatal(err)
				}
				kernel.Before = refuse
				err = r.Unprepare(t.Context(), c.UID)
			}
			if err == nil || !strings.Contains(err.Error(), "bind it to nvidia again") {
				t.Fatalf("%v, want it to say what could not be undone", err)
			}
			if kernel.State() == before {
				t.Fatal("nothing is stranded")
			}
			other := with(allocated("other", onGPU("gpu-0000-17-00-0")), claim, vfioGPU)
			if _, err := r.prepare(other); !errors.As(err, new(*HeldError)) {
				t.Errorf("the device is given to another claim meanwhile: %v", err)
			}
			kernel.Before = nil
			if err := r.Reconcile(t.Context(), reader(), r.cdi); err != nil {
				t.Fatal(err)
			}
			if kernel.State() != before || r.journal.Entry(c.UID) != nil {
				t.Errorf("after the next look, the entry is %+v and the machine\n%s\nwant\n%s", r.journal.Entry(c.UID), kernel.State(), before)
			}
		})
	}
}

// Before a claim is admitted, another one may be about to bring the device home:
// what it has bound is not taken for an administrator's.
func TestAdmissionReadsNoBindingOfAnotherClaim(t *testing.T) {
	r, _ := userSpaceRoom(t)
	if _, err := r.prepare(with(allocated("first", onGPU("gpu-0000-17-00-0")), claim, vfioGPU)); err != nil {
		t.Fatal(err)
	}
	entry, err := plan(with(allocated("second", onGPU("gpu-0000-17-00-0")), claim, vfioGPU))
	if err != nil {
		t.Fatal(err)
	}
	if err := r.admission.Admit(t.Context(), entry); !errors.As(err, new(*HeldError)) {
		t.Errorf("admitted beside the first: %v", err)
	}
	if entry.Devices[0].VFIO.Group != "" {
		t.Errorf("read: %+v", entry.Devices[0].VFIO)
	}
}

func TestBindingsOfAnEarlierBootAreUndoneOnPaper(t *testing.T) {
	r, kernel := userSpaceRoom(t)
	c := with(allocated("c", onGPU("gpu-0000-17-00-0")), claim, vfioGPU)
	if _, err := r.prepare(c); err != nil {
		t.Fatal(err)
	}
	kernel.Before = func(what string) error { return fmt.Errorf("%s: %w", what, fs.ErrInvalid) }
	r.steps.BootID = "another"
	if err := r.Unprepare(t.Context(), c.UID); err != nil || r.journal.Entry(c.UID) != nil {
		t.Errorf("%v, and the entry is %+v", err, r.journal.Entry(c.UID))
	}
}

// The GPU is let go of by its address, and only for what changes its driver.
func TestNobodyHasAGPUOpenThatChangesHands(t *testing.T) {
	r, _ := userSpaceRoom(t)
	var let []string
	r.steps.LetGo = func(ctx context.Context, pci string, action func(context.Context) error) error {
		let = append(let, pci)
		return action(ctx)
	}
	c := with(with(allocated("c", onAny(pairPlain)), claim, vfioGPU), claim, vfioNIC)
	for range 2 {
		if _, err := r.prepare(c); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.Unprepare(t.Context(), c.UID); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(let, " "); got != "0000:27:00.0 0000:27:00.0" {
		t.Errorf("let go of %q, want the GPU there and back", got)
	}
}
