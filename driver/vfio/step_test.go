package vfio_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/hostler-dev/hostler/driver/vfio"
	"github.com/hostler-dev/hostler/driver/vfio/vfiotest"
)

func compare(want, got any) string { return cmp.Diff(want, got) }

// drivers of the machines in these tests, beside vfio-pci.
var drivers = []string{"nvidia", "snd", "igb", "pcieport", "nouveau"}

func boot(t *testing.T, functions ...vfiotest.Function) *vfiotest.Kernel {
	t.Helper()
	kernel, err := vfiotest.New(t.TempDir(), functions, drivers...)
	if err != nil {
		t.Fatal(err)
	}
	return kernel
}

// card is a GPU with an audio function, as it comes up.
func card() []vfiotest.Function {
	return []vfiotest.Function{
		{PCI: gpu, Group: "7", Class: "0x030200", Native: []string{"nvidia", "nouveau"}, Driver: "nvidia"},
		{PCI: audio, Group: "7", Class: "0x040300", Native: []string{"snd"}, Driver: "snd"},
	}
}

// admit reads and judges the group of a function as Admission does.
func admit(t interface {
	Fatal(...any)
	Context() context.Context
}, kernel *vfiotest.Kernel, pci string) *vfio.Binding {
	group, err := kernel.Bus().Group(t.Context(), pci)
	if err != nil {
		t.Fatal(err)
	}
	binding, err := vfio.Judge(pci, group)
	if err != nil {
		t.Fatal(err)
	}
	return binding
}

// step is a step of a process that has just started.
func step(kernel *vfiotest.Kernel, binding *vfio.Binding) *vfio.Step {
	return vfio.NewStep(vfio.StepConfig{Device: "gpu-0000-17-00-0", Binding: binding, Bus: kernel.Bus()})
}

func TestADeviceGoesToUserSpaceAndBack(t *testing.T) {
	kernel := boot(t, card()...)
	before := kernel.State()
	binding := admit(t, kernel, gpu)
	s := step(kernel, binding)
	for range 2 {
		if err := s.Do(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := s.Verify(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if want := "0000:17:00.0 vfio-pci override=vfio-pci\n0000:17:00.1 vfio-pci override=vfio-pci"; kernel.State() != want {
		t.Errorf("the card is in user space as\n%s\nwant\n%s", kernel.State(), want)
	}
	nodes, err := kernel.Bus().Nodes(binding)
	if diff := cmp.Diff([]string{"vfio/vfio", "vfio/7"}, nodes); err != nil || diff != "" {
		t.Errorf("device nodes: %s %v", diff, err)
	}
	for range 2 {
		if err := s.Undo(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if kernel.State() != before {
		t.Errorf("the card came back as\n%s\nwant\n%s", kernel.State(), before)
	}
	if err := s.Verify(t.Context()); err == nil || !strings.Contains(err.Error(), "bound to nvidia and not to vfio-pci") {
		t.Errorf("verified after it was undone: %v", err)
	}
}

func TestWhatTheKernelRefusesIsTold(t *testing.T) {
	for name, test := range map[string]struct {
		refuse string
		answer error
		undo   bool
		want   []string
	}{
		"to unbind":           {"unbind " + audio, syscall.EPERM, false, []string{"gpu-0000-17-00-0", audio, "unbind it from snd", "operation not permitted"}},
		"an override":         {"driver_override " + gpu, syscall.EINVAL, false, []string{gpu, `driver_override "vfio-pci"`, "invalid argument"}},
		"to bind vfio-pci":    {"drivers_probe " + gpu, syscall.EIO, false, []string{gpu, "have the kernel bind vfio-pci", "input/output error", "kernel log"}},
		"to bind nvidia back": {"bind " + gpu, syscall.ENODEV, true, []string{gpu, "bind it to nvidia again", "no such device", "/sys/bus/pci/drivers/nvidia/bind"}},
	} {
		t.Run(name, func(t *testing.T) {
			kernel := boot(t, card()...)
			before := kernel.State()
			s := step(kernel, admit(t, kernel, gpu))
			act := s.Do
			if test.undo {
				if err := s.Do(t.Context()); err != nil {
					t.Fatal(err)
				}
				act = s.Undo
			}
			kernel.Before = func(what string) error {
				if what == test.refuse {
					return test.answer
				}
				return nil
			}
			err := act(t.Context())
			if err == nil {
				t.Fatal("the refusal was swallowed")
			}
			for _, words := range test.want {
				if !strings.Contains(err.Error(), words) {
					t.Errorf("the error is %q, want it to say %q", err, words)
				}
			}
			if test.undo && !strings.Contains(kernel.State(), audio+" snd override=\n") && !strings.HasSuffix(kernel.State(), audio+" snd override=") {
				t.Errorf("the other function was not brought back:\n%s", kernel.State())
			}
			kernel.Before = nil
			if err := s.Undo(t.Context()); err != nil || kernel.State() != before {
				t.Errorf("a later try: %v, and the machine is\n%s", err, kernel.State())
			}
		})
	}
}

func TestAnUnbindThatTheKernelDoesNotFinishIsWaitedForAgain(t *testing.T) {
	kernel := boot(t, card()...)
	bus, binding := kernel.Bus(), admit(t, kernel, gpu)
	s := vfio.NewStep(vfio.StepConfig{Device: "gpu-0000-17-00-0", Binding: binding, Bus: bus})
	var unbinds atomic.Int32
	released, waiting := make(chan struct{}), make(chan struct{})
	kernel.Before = func(what string) error {
		if what == "unbind "+gpu {
			if unbinds.Add(1) == 1 {
				close(waiting)
			}
			<-released
		}
		return nil
	}
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-waiting; cancel() }()
	err := s.Do(ctx)
	var unanswered *vfio.UnansweredError
	if !errors.As(err, &unanswered) || !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "waits until it lets go") {
		t.Fatalf("the step ended with %v, want it to say that the kernel waits for a user of the device", err)
	}
	over, cancelled := context.WithCancel(t.Context())
	cancelled()
	if err := s.Undo(over); !errors.As(err, &unanswered) {
		t.Errorf("undoing meanwhile: %v, want it to say that the kernel is not done", err)
	}
	done := make(chan error, 1)
	go func() { done <- s.Do(t.Context()) }()
	close(released)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if n := unbinds.Load(); n != 1 {
		t.Errorf("the kernel was asked %d times, want one", n)
	}
	if err := s.Verify(t.Context()); err != nil {
		t.Error(err)
	}
}

// Once its own driver has it, others may use it: what is still to be put right
// beside that needs nobody to let go.
func TestADeviceThatIsBackIsTakenFromNobody(t *testing.T) {
	kernel := boot(t, card()...)
	before := kernel.State()
	binding := admit(t, kernel, gpu)
	if err := step(kernel, binding).Do(t.Context()); err != nil {
		t.Fatal(err)
	}
	kernel.Before = func(what string) error {
		if what == "bind "+audio {
			return syscall.EIO
		}
		return nil
	}
	if err := step(kernel, binding).Undo(t.Context()); err == nil || kernel.State() == before {
		t.Fatalf("%v, want the audio function to stay behind", err)
	}
	kernel.Before = nil
	s := vfio.NewStep(vfio.StepConfig{
		Device: "gpu-0000-17-00-0", Binding: binding, Bus: kernel.Bus(),
		LetGo: func(context.Context, string, func(context.Context) error) error {
			return errors.New("processes use the GPU")
		},
	})
	if err := s.Undo(t.Context()); err != nil || kernel.State() != before {
		t.Errorf("%v, and the machine is\n%s", err, kernel.State())
	}
}

func TestAGPUThatAProcessHasOpenIsNotTaken(t *testing.T) {
	kernel := boot(t, card()...)
	before := kernel.State()
	binding := admit(t, kernel, gpu)
	// Any character device will do; the test's own process has it open.
	if err := os.Symlink("/dev/full", filepath.Join(kernel.Dev, "nvidia0")); err != nil {
		t.Fatal(err)
	}
	file, err := os.Open("/dev/full")
	if err != nil {
		t.Skipf("this machine has no /dev/full: %v", err)
	}
	proc, self := t.TempDir(), fmt.Sprint(os.Getpid())
	if err := os.Symlink("/proc/self", filepath.Join(proc, self)); err != nil {
		t.Fatal(err)
	}
	s := vfio.NewStep(vfio.StepConfig{
		Device: "gpu-0000-17-00-0", Binding: binding, Nodes: []string{"nvidia0", "nvidia1"},
		Bus: vfio.NewBus(vfio.BusConfig{Sys: kernel.Sys, Dev: kernel.Dev, Proc: proc, Write: kernel.Write}),
	})
	// Whose process it is the claim's status does not tell, but the log.
	var inUse *vfio.InUseError
	if err := s.Do(t.Context()); !errors.As(err, &inUse) || strings.Contains(err.Error(), self) || !strings.Contains(inUse.Details(), "("+self+")") {
		t.Errorf("%v, want a refusal whose details alone name process %s", err, self)
	}
	if kernel.State() != before {
		t.Errorf("something was changed:\n%s", kernel.State())
	}
	file.Close()
	if err := s.Do(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestWhatHappensMeanwhile(t *testing.T) {
	for name, test := range map[string]struct {
		meanwhile func(*testing.T, *vfiotest.Kernel)
		otherBoot bool
		want      string // the machine after Undo
	}{
		"the card is unplugged": {func(t *testing.T, k *vfiotest.Kernel) {
			for _, pci := range []string{gpu, audio} {
				if err := k.Unplug(pci); err != nil {
					t.Fatal(err)
				}
			}
		}, false, ""},
		"an administrator gives a function to another driver": {func(t *testing.T, k *vfiotest.Kernel) {
			for _, write := range [][2]string{{"/devices/" + gpu + "/driver_override", "nouveau"}, {"/devices/" + gpu + "/driver/unbind", gpu}, {"/drivers_probe", gpu}} {
				if err := k.Write(k.Sys+"/bus/pci"+write[0], write[1]); err != nil {
					t.Fatal(err)
				}
			}
		}, false, gpu + " nouveau override=\n" + audio + " snd override="},
		"its driver is unloaded": {func(t *testing.T, k *vfiotest.Kernel) {
			if err := k.Unload("nvidia"); err != nil {
				t.Fatal(err)
			}
		}, false, gpu + "  override=\n" + audio + " snd override="},
		"the machine reboots": {func(*testing.T, *vfiotest.Kernel) {}, true, gpu + " vfio-pci override=vfio-pci\n" + audio + " vfio-pci override=vfio-pci"},
	} {
		t.Run(name, func(t *testing.T) {
			kernel := boot(t, card()...)
			binding := admit(t, kernel, gpu)
			if err := step(kernel, binding).Do(t.Context()); err != nil {
				t.Fatal(err)
			}
			test.meanwhile(t, kernel)
			s := vfio.NewStep(vfio.StepConfig{Device: "gpu-0000-17-00-0", Binding: binding, Bus: kernel.Bus(), OtherBoot: test.otherBoot})
			if err := s.Undo(t.Context()); err != nil || kernel.State() != test.want {
				t.Errorf("undone with %v, the machine is\n%s\nwant\n%s", err, kernel.State(), test.want)
			}
		})
	}
}

func TestACardThatWasPluggedAnewIsNotGivenAway(t *testing.T) {
	kernel := boot(t, card()...)
	binding := admit(t, kernel, gpu)
	for _, f := range card() {
		if err := kernel.Unplug(f.PCI); err != nil {
			t.Fatal(err)
		}
	}
	s := step(kernel, binding)
	if err := s.Do(t.Context()); err == nil || !strings.Contains(err.Error(), "is not there any more") {
		t.Errorf("unplugged: %v", err)
	}
	for _, f := range card() {
		f.Group = "8"
		if err := kernel.Plug(f); err != nil {
			t.Fatal(err)
		}
	}
	before := kernel.State()
	if err := s.Do(t.Context()); err == nil || !strings.Contains(err.Error(), `from IOMMU group 7 to "8"`) {
		t.Errorf("plugged anew in another group: %v", err)
	}
	if kernel.State() != before {
		t.Errorf("something was changed:\n%s", kernel.State())
	}
}

func TestProgramsGetTheNodesThatTheKernelHas(t *testing.T) {
	kernel := boot(t, card()...)
	binding := admit(t, kernel, gpu)
	if _, err := kernel.Bus().Nodes(binding); err == nil || !strings.Contains(err.Error(), "/dev/vfio/7") {
		t.Errorf("before it is bound: %v, want an error that names the node", err)
	}
	if err := step(kernel, binding).Do(t.Context()); err != nil {
		t.Fatal(err)
	}
	for i, pci := range []string{gpu, audio} {
		name := fmt.Sprintf("vfio%d", i)
		if err := os.MkdirAll(filepath.Join(kernel.Sys, "bus/pci/devices", pci, "vfio-dev", name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(filepath.Join(kernel.Dev, "vfio/devices", name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	nodes := func(want ...string) {
		t.Helper()
		got, err := kernel.Bus().Nodes(binding)
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("nodes: %v %s", err, diff)
		}
	}
	nodes("vfio/vfio", "vfio/7") // no iommufd
	if err := os.WriteFile(filepath.Join(kernel.Dev, "iommu"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	nodes("vfio/vfio", "vfio/7", "iommu", "vfio/devices/vfio0", "vfio/devices/vfio1")
	if err := os.Remove(filepath.Join(kernel.Dev, "vfio/7")); err != nil { // CONFIG_VFIO_GROUP is off
		t.Fatal(err)
	}
	nodes("iommu", "vfio/devices/vfio0", "vfio/devices/vfio1")
}
