package vfio_test

// What a step leaves when its process dies, at any write.

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/hostler-dev/hostler/driver/vfio"
	"github.com/hostler-dev/hostler/driver/vfio/vfiotest"
)

// errKilled is what every write answers once the process is dead.
var errKilled = errors.New("killed")

// killAt has the process die at its n-th moment; two moments to a write, right
// before it and right after. It returns how many there were.
func killAt(kernel *vfiotest.Kernel, n int) *int {
	moments, dead := new(int), false
	moment := func() bool {
		*moments++
		dead = dead || *moments == n
		return dead
	}
	kernel.Before = func(string) error {
		if dead || moment() {
			return errKilled
		}
		return nil
	}
	kernel.After = func(string) { moment() }
	return moments
}

func TestAnAgentThatIsKilledAtAnyWriteLeavesNothingHalf(t *testing.T) {
	starts := map[string][]vfiotest.Function{
		"a GPU with its audio function": card(),
		"a function without a driver":   {{PCI: gpu, Group: "7", Class: "0x00ff00"}},
		"one that is vfio-pci's already beside one that is not": {
			{PCI: gpu, Group: "7", Class: "0x030200", Native: []string{"nvidia"}, Driver: "nvidia", Override: "nvidia"},
			{PCI: audio, Group: "7", Class: "0x040300", Driver: vfio.Driver},
		},
	}
	type act = func(*testing.T, *vfio.Step) error
	do := func(t *testing.T, s *vfio.Step) error { return s.Do(t.Context()) }
	undo := func(t *testing.T, s *vfio.Step) error { return s.Undo(t.Context()) }
	for name, functions := range starts {
		for _, scenario := range []struct {
			name          string
			killed, after act
			complete      bool
		}{
			{"killed while doing, then done again", do, do, true},
			{"killed while doing, then undone", do, undo, false},
			{"killed while undoing, then undone", undo, undo, false},
			{"killed while undoing, then done again", undo, do, true},
		} {
			t.Run(name+", "+scenario.name, func(t *testing.T) {
				for n, last := 1, 1; n <= last+1; n++ {
					kernel := boot(t, functions...)
					before := kernel.State()
					binding := admit(t, kernel, gpu)
					if strings.HasPrefix(scenario.name, "killed while undoing") {
						if err := step(kernel, binding).Do(t.Context()); err != nil {
							t.Fatal(err)
						}
					}
					moments := killAt(kernel, n)
					err := scenario.killed(t, step(kernel, binding))
					if last = *moments; err == nil && n < last {
						t.Fatalf("nobody noticed that the agent died at moment %d of %d", n, last)
					}
					kernel.Before, kernel.After = nil, nil
					s := step(kernel, binding)
					if err := scenario.after(t, s); err != nil {
						t.Fatalf("killed at moment %d: %v", n, err)
					}
					if scenario.complete {
						if err := s.Verify(t.Context()); err != nil {
							t.Errorf("killed at moment %d, it is not complete: %v", n, err)
						}
						if err := s.Undo(t.Context()); err != nil {
							t.Errorf("killed at moment %d, it cannot be undone: %v", n, err)
						}
					}
					if kernel.State() != before {
						t.Errorf("killed at moment %d, the machine was left as\n%s\nwant\n%s", n, kernel.State(), before)
					}
				}
			})
		}
	}
}

// Whatever drivers and overrides an administrator had given the functions.
func TestUndoingIsTheInverseOfDoing(t *testing.T) {
	folder := t.TempDir()
	machines := 0
	rapid.Check(t, func(t *rapid.T) {
		var functions []vfiotest.Function
		for i := range rapid.IntRange(1, 3).Draw(t, "functions") {
			f := vfiotest.Function{PCI: fmt.Sprintf("0000:17:00.%d", i), Group: "7", Class: "0x0c0330"}
			f.Native = rapid.SampledFrom([][]string{nil, {"nvidia"}, {"nvidia", "nouveau"}}).Draw(t, "native")
			f.Driver = rapid.SampledFrom([]string{"", "nvidia", "nouveau", "igb", vfio.Driver}).Draw(t, "driver")
			f.Override = rapid.SampledFrom([]string{"", "nvidia", "igb", vfio.Driver, "absent"}).Draw(t, "override")
			functions = append(functions, f)
		}
		machines++
		kernel, err := vfiotest.New(filepath.Join(folder, fmt.Sprint(machines)), functions, drivers...)
		if err != nil {
			t.Fatal(err)
		}
		before := kernel.State()
		binding := admit(t, kernel, gpu)
		killed := rapid.IntRange(0, 12).Draw(t, "killed at")
		killAt(kernel, killed)
		err = step(kernel, binding).Do(t.Context())
		if err == nil {
			if err := step(kernel, binding).Verify(t.Context()); err != nil {
				t.Fatal(err)
			}
		} else if !errors.Is(err, errKilled) {
			t.Fatal(err)
		}
		kernel.Before, kernel.After = nil, nil
		if err := step(kernel, binding).Undo(t.Context()); err != nil {
			t.Fatal(err)
		}
		if kernel.State() != before {
			t.Fatalf("undone, the machine is\n%s\nwant\n%s", kernel.State(), before)
		}
	})
}
