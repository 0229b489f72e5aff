package topology_test

// When the observer looks, in virtual time: a minute of storm takes no time at all,
// and "never" can be waited for.

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hostler-dev/hostler/topology"
)

// running is an observer with its defaults, running in a bubble of virtual time.
type running struct {
	*fake
	t         *testing.T
	observer  *topology.Observer
	snapshots <-chan *topology.Snapshot
	// hint is what a watcher calls.
	hint func()
}

func inVirtualTime(t *testing.T, f *fake, test func(r *running)) {
	t.Helper()
	bootID := filepath.Join(t.TempDir(), "boot_id")
	if err := os.WriteFile(bootID, []byte("boot-1\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		r := &running{fake: f, t: t}
		watcher := func(ctx context.Context, changed func()) error {
			r.hint = changed
			<-ctx.Done()
			return nil
		}
		r.observer = topology.NewObserver(topology.ObserverConfig{Hardware: f, GPUs: f, Watchers: []topology.Watcher{watcher}, BootIDPath: bootID})
		var stop func()
		r.snapshots, stop = r.observer.Subscribe()
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- r.observer.Run(ctx) }()
		t.Cleanup(func() {
			stop()
			cancel()
			if err := <-ended; err != nil {
				t.Errorf("the observer ended with %v", err)
			}
			time.Sleep(time.Minute) // calls that it gave up end by themselves
		})
		synctest.Wait()
		test(r)
	})
}

// pass lets virtual time pass, and everything happen that is due by then.
func (r *running) pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// readsIn is how often the hardware is read in that time.
func (r *running) readsIn(d time.Duration) int {
	before := 0
	r.set(func(f *fake) { before = f.reads })
	r.pass(d)
	after := 0
	r.set(func(f *fake) { after = f.reads })
	return after - before
}

// storm hints at a pace for a time and returns how often the hardware was read meanwhile.
func (r *running) storm(every, length time.Duration) int {
	reads := 0
	for range length / every {
		r.hint()
		reads += r.readsIn(every)
	}
	return reads
}

func (r *running) mustBe(what string, is func(*topology.Snapshot) bool) {
	r.t.Helper()
	if s := r.observer.Snapshot(); s == nil || !is(s) {
		r.t.Errorf("want a snapshot with %s, have %+v", what, s)
	}
}

func between(t *testing.T, reads, low, high int) {
	t.Helper()
	if reads < low || reads > high {
		t.Errorf("the machine was read %d times, want %d to %d", reads, low, high)
	}
}

func nicWithoutPlace(pci string) topology.NIC {
	return topology.NIC{Name: topology.NICName(pci), Placement: topology.Placement{PCI: pci, NUMANode: -1, Socket: -1}}
}

func TestALoneHintIsFollowedAtOnce(t *testing.T) {
	inVirtualTime(t, ready(), func(r *running) {
		r.pass(3 * time.Second)
		r.set(func(f *fake) { f.hardware.NICs = []topology.NIC{nicWithoutPlace("0000:18:00.0")} })
		r.hint()
		r.pass(101 * time.Millisecond)
		r.mustBe("the NIC", func(s *topology.Snapshot) bool { return len(s.NICs) == 1 })
	})
}

func TestVFsThatAppearOneByOneAreFewSnapshots(t *testing.T) {
	inVirtualTime(t, ready(), func(r *running) {
		<-r.snapshots
		published := 0
		for vf := range 128 {
			r.set(func(f *fake) {
				f.hardware.NICs = append(slices.Clone(f.hardware.NICs), nicWithoutPlace(fmt.Sprintf("0000:18:%02x.%d", vf/8, vf%8)))
			})
			for range 10 { // a VF sends about ten messages
				r.hint()
			}
			r.pass(20 * time.Millisecond)
			select {
			case <-r.snapshots:
				published++
			default:
			}
		}
		if published < 2 || published > 3 {
			t.Errorf("in 2.56 s of storm %d snapshots were published, want one a second", published)
		}
		r.pass(101 * time.Millisecond)
		r.mustBe("all VFs", func(s *topology.Snapshot) bool { return len(s.NICs) == 128 })
	})
}

func TestALinkThatFlapsIsLookedAtEverySecond(t *testing.T) {
	inVirtualTime(t, ready(), func(r *running) {
		between(t, r.storm(10*time.Millisecond, 59500*time.Millisecond), 57, 60)
		between(t, r.readsIn(150*time.Millisecond), 1, 1) // the last word of the storm
		between(t, r.readsIn(9*time.Second), 0, 0)
	})
}

func TestAMachineThatTakesLongToReadIsReadLessOften(t *testing.T) {
	f := ready()
	f.takes = func() { time.Sleep(500 * time.Millisecond) }
	inVirtualTime(t, f, func(r *running) {
		// A fifth of the time, half a second each, and a second ahead.
		between(t, r.storm(10*time.Millisecond, time.Minute), 24, 26)
	})
}

// While the kernel makes VFs, a look waits for its locks for seconds; what it made must not wait for as many more.
func TestALookThatWaitedIsNotALookThatWorked(t *testing.T) {
	f := ready()
	f.takes = func() { time.Sleep(4 * time.Second) }
	inVirtualTime(t, f, func(r *running) {
		r.pass(4100 * time.Millisecond)
		r.hint()
		r.pass(4200 * time.Millisecond)
		r.set(func(f *fake) { f.driver.Version, f.takes = "new", func() {} })
		r.hint()
		r.pass(2500 * time.Millisecond)
		r.mustBe("the new driver", func(s *topology.Snapshot) bool { return s.Driver.Version == "new" })
	})
}

func TestAFewHintsDoNotWaitForOneAnother(t *testing.T) {
	f := ready()
	f.takes = func() { time.Sleep(200 * time.Millisecond) }
	inVirtualTime(t, f, func(r *running) {
		r.pass(250 * time.Millisecond) // the first look is over
		for i := range 3 {
			r.set(func(f *fake) { f.driver.Version = fmt.Sprint(i) })
			r.hint()
			r.pass(301 * time.Millisecond)
			r.mustBe("the new driver", func(s *topology.Snapshot) bool { return s.Driver.Version == fmt.Sprint(i) })
		}
	})
}

func TestPollsOfAMachineThatIsWell(t *testing.T) {
	inVirtualTime(t, ready(), func(r *running) {
		between(t, r.readsIn(10*time.Minute+time.Second), 60, 60)
	})
}

func TestADriverThatIsLoadedLateIsSeenWithoutAHint(t *testing.T) {
	for name, state := range map[string]topology.Driver{
		"missing": {State: topology.DriverMissing, Message: "no library"},
		"failed":  {State: topology.DriverFailed, Message: "no kernel module"},
	} {
		t.Run(name, func(t *testing.T) {
			f := ready()
			driver, gpus := f.driver, f.gpus
			f.driver, f.gpus = state, nil
			inVirtualTime(t, f, func(r *running) {
				r.pass(3 * time.Second)
				r.set(func(f *fake) { f.driver, f.gpus = driver, gpus })
				r.pass(3 * time.Second)
				r.mustBe("the GPU", func(s *topology.Snapshot) bool { return len(s.GPUs) == 1 && !s.GPUs[0].Lost })
				between(t, r.readsIn(time.Minute), 5, 6)
			})
		})
	}
}

func TestADriverThatNeverComesIsPolledAsSlowlyAsAnything(t *testing.T) {
	f := ready()
	f.driver, f.gpus = topology.Driver{State: topology.DriverMissing}, nil
	inVirtualTime(t, f, func(r *running) {
		between(t, r.readsIn(15*time.Second), 3, 3) // after 2, 6 and 14 s
		between(t, r.readsIn(10*time.Minute), 60, 60)
		r.hint() // something happens: the driver may be on its way
		between(t, r.readsIn(15*time.Second), 4, 4)
	})
}

func TestANodeWithoutGPUsIsNotPolledSooner(t *testing.T) {
	f := ready()
	f.driver, f.gpus, f.hardware.GPUFunctions = topology.Driver{State: topology.DriverMissing}, nil, nil
	inVirtualTime(t, f, func(r *running) {
		between(t, r.readsIn(61*time.Second), 6, 6)
	})
}

func TestALostGPUIsSeenToComeBack(t *testing.T) {
	inVirtualTime(t, ready(), func(r *running) {
		gpus := r.gpus
		r.set(func(f *fake) { f.gpus = nil })
		r.hint()
		r.pass(time.Second)
		r.mustBe("a lost GPU", func(s *topology.Snapshot) bool { return len(s.GPUs) == 1 && s.GPUs[0].Lost })
		r.set(func(f *fake) { f.gpus = gpus })
		r.pass(2 * time.Second)
		r.mustBe("the GPU in health", func(s *topology.Snapshot) bool { return len(s.GPUs) == 1 && !s.GPUs[0].Lost })
	})
}

func hasProblem(s *topology.Snapshot, subject string) bool {
	return slices.ContainsFunc(s.Problems, func(p topology.Problem) bool {
		return p.Subject == subject && strings.Contains(p.Message, "has not returned since")
	})
}

func TestAGPUReaderThatHangsDoesNotStopTheRest(t *testing.T) {
	inVirtualTime(t, ready(), func(r *running) {
		release := make(chan struct{})
		r.set(func(f *fake) {
			f.gpusTake = func() { <-release }
			f.hardware.NICs = []topology.NIC{nicWithoutPlace("0000:18:00.0")}
		})
		r.hint()
		r.pass(6 * time.Second) // the first look waits for the reader
		r.mustBe("the NIC, the GPU and a problem", func(s *topology.Snapshot) bool {
			return len(s.NICs) == 1 && len(s.GPUs) == 1 && s.GPUs[0].UUID == "GPU-1" && hasProblem(s, "GPU driver")
		})
		hung := r.observer.Snapshot()
		r.pass(time.Minute)
		if r.observer.Snapshot() != hung {
			t.Errorf("while nothing changed, the snapshot was replaced: %+v", r.observer.Snapshot())
		}
		r.set(func(f *fake) {
			f.hardware.NICs = append(slices.Clone(f.hardware.NICs), nicWithoutPlace("0000:19:00.0"))
		})
		r.pass(time.Second)
		r.hint()
		r.pass(101 * time.Millisecond) // later looks do not
		r.mustBe("a second NIC", func(s *topology.Snapshot) bool { return len(s.NICs) == 2 })
		r.set(func(f *fake) { f.gpusTake, f.gpus[0].MIGEnabled = nil, true })
		close(release)
		r.pass(101 * time.Millisecond)
		r.mustBe("what the reader said in the end", func(s *topology.Snapshot) bool {
			return s.GPUs[0].MIGEnabled && len(s.Problems) == 0
		})
	})
}

func TestAHardwareReaderThatHangsDoesNotStopTheRest(t *testing.T) {
	inVirtualTime(t, ready(), func(r *running) {
		release := make(chan struct{})
		r.set(func(f *fake) {
			f.takes = func() { <-release }
			f.gpus[0].MIGEnabled = true
		})
		r.hint()
		r.pass(6 * time.Second)
		r.mustBe("a GPU in MIG mode at its place", func(s *topology.Snapshot) bool {
			return s.GPUs[0].MIGEnabled && s.GPUs[0].Placement.PCIeRoot != "" && hasProblem(s, "PCI functions and NICs")
		})
		close(release)
		r.pass(time.Second)
		r.mustBe("no problem any more", func(s *topology.Snapshot) bool { return len(s.Problems) == 0 })
	})
}

func TestAReaderThatHangsAtTheStart(t *testing.T) {
	f := ready()
	f.gpusTake = func() { time.Sleep(time.Minute) }
	f.hardware.NICs = []topology.NIC{nicWithoutPlace("0000:18:00.0")}
	inVirtualTime(t, f, func(r *running) {
		r.pass(5 * time.Second)
		r.mustBe("the NIC, without a driver", func(s *topology.Snapshot) bool {
			return len(s.NICs) == 1 && len(s.GPUs) == 0 && s.Driver.State == topology.DriverFailed && strings.Contains(s.Driver.Message, "has not returned")
		})
	})
}

func TestAReaderSlowerThanTheLimitIsHeardAllTheSame(t *testing.T) {
	f := ready()
	f.gpusTake = func() { time.Sleep(8 * time.Second) }
	inVirtualTime(t, f, func(r *running) {
		r.pass(8*time.Second + 200*time.Millisecond)
		r.mustBe("the GPU", func(s *topology.Snapshot) bool { return len(s.GPUs) == 1 && s.GPUs[0].UUID == "GPU-1" })
	})
}

func TestASubscriberThatNeverTakesAnythingHoldsNobodyUp(t *testing.T) {
	inVirtualTime(t, ready(), func(r *running) {
		for i := range 5 {
			r.set(func(f *fake) { f.driver.Version = fmt.Sprint(i) })
			r.hint()
			r.pass(time.Second)
			r.mustBe("the new driver", func(s *topology.Snapshot) bool { return s.Driver.Version == fmt.Sprint(i) })
		}
		if got := <-r.snapshots; got != r.observer.Snapshot() {
			t.Errorf("the channel held %+v, not the newest snapshot", got)
		}
	})
}

func TestAWatcherThatFailsIsStartedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		started := 0
		f := ready()
		o := topology.NewObserver(topology.ObserverConfig{Hardware: f, GPUs: f, Watchers: []topology.Watcher{func(context.Context, func()) error {
			started++
			return fmt.Errorf("events were dropped")
		}}})
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second+time.Millisecond)
		defer cancel()
		if err := o.Run(ctx); err != nil || started != 11 {
			t.Errorf("in 10 s the watcher was started %d times; the observer ended with %v", started, err)
		}
	})
}
