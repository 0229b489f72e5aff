package nvml

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock"

	"github.com/hostler-dev/hostler/test/nvmlsim"
	"github.com/hostler-dev/hostler/topology"
)

// openedDriver is a source over a driver of one GPU, and what of it is open now.
func openedDriver(t *testing.T, gpu *mock.Device, has func(string) bool) (source *Source, sessions *atomic.Int32) {
	t.Helper()
	sessions = new(atomic.Int32)
	source = &Source{
		open: func() (*Session, error) {
			sessions.Add(1)
			api := driverWith(gpu)
			api.ShutdownFunc = func() nvml.Return { sessions.Add(-1); return nvml.SUCCESS }
			s := newSession(api, has, 0)
			s.driver = topology.Driver{State: topology.DriverReady}
			return s, nil
		},
		installed: func() string { return "" }, reason: errNotOpened, hints: map[*hint]struct{}{},
	}
	if driver, gpus, _ := source.ReadGPUs(t.Context()); driver.State != topology.DriverReady || len(gpus) != 1 {
		t.Fatalf("the driver is %+v with %d GPUs", driver, len(gpus))
	}
	return source, sessions
}

const somePCI = "0000:17:00.0"

func someGPU() *mock.Device { return gpuAt("00000000:17:00.0") }

func TestNobodyHasTheDriverOpenWhileAGPUChangesHands(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source, sessions := openedDriver(t, someGPU(), identityOnly)
		var hinted atomic.Bool
		defer source.subscribe(func() { hinted.Store(true) })()
		var read atomic.Bool
		err := source.Pause(t.Context(), func(context.Context) error {
			if n := sessions.Load(); n != 0 {
				t.Errorf("%d sessions are open", n)
			}
			if _, err := source.Sample(t.Context(), somePCI); !errors.Is(err, ErrPaused) {
				t.Errorf("who measures is told %v", err)
			}
			if probe, err := source.Probe(t.Context(), somePCI); !errors.Is(err, ErrPaused) || probe.Lost || probe.Hung {
				t.Errorf("who probes is told %v: %+v", err, probe)
			}
			go func() {
				if driver, gpus, _ := source.ReadGPUs(t.Context()); driver.State == topology.DriverReady && len(gpus) == 1 {
					read.Store(true)
				}
			}()
			synctest.Wait()
			if read.Load() || hinted.Load() {
				t.Error("the GPUs are read meanwhile")
			}
			return nil
		})
		synctest.Wait()
		if err != nil || sessions.Load() != 1 || !read.Load() || !hinted.Load() {
			t.Errorf("%v; afterwards %d sessions are open, the one who waited has read: %t, the machine is looked at: %t", err, sessions.Load(), read.Load(), hinted.Load())
		}
	})
}

func TestAPauseWaitsForWhoeverUsesTheDriver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gpu := someGPU()
		answer, asked := make(chan struct{}), make(chan struct{}, 1)
		source, _ := openedDriver(t, gpu, identityOnly)
		gpu.GetTemperatureFunc = func(nvml.TemperatureSensors) (uint32, nvml.Return) {
			asked <- struct{}{}
			<-answer
			return 40, nvml.SUCCESS
		}
		probed := make(chan error, 1)
		go func() {
			_, err := source.Probe(t.Context(), somePCI)
			probed <- err
		}()
		<-asked
		var acted atomic.Bool
		act := func(context.Context) error { acted.Store(true); return nil }
		impatient, giveUp := context.WithCancel(t.Context())
		refused := make(chan error)
		go func() { refused <- source.Pause(impatient, act) }()
		synctest.Wait()
		giveUp()
		if err := <-refused; !errors.Is(err, context.Canceled) || acted.Load() {
			t.Errorf("given up while the driver is asked: %v, acted: %t", err, acted.Load())
		}
		done := make(chan error)
		go func() { done <- source.Pause(t.Context(), act) }()
		synctest.Wait()
		if acted.Load() {
			t.Error("it acts while the driver is asked")
		}
		close(answer)
		if err := <-done; err != nil || !acted.Load() {
			t.Errorf("after the answer: %v, acted: %t", err, acted.Load())
		}
		if err := <-probed; err != nil {
			t.Errorf("whoever asked the driver before the pause gets no answer: %v", err)
		}
	})
}

func TestAPauseEndsAWatchAndTheNextOneGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source, _ := openedDriver(t, someGPU(), identityOnly)
		ctx, leave, err := source.watching(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		go func() { <-ctx.Done(); leave() }()
		if err := source.Pause(t.Context(), func(context.Context) error { return nil }); err != nil {
			t.Fatal(err)
		}
		if ctx.Err() == nil {
			t.Error("the watch goes on with a session that is closed")
		}
		ctx, leave, err = source.watching(t.Context())
		if err != nil || ctx.Err() != nil {
			t.Errorf("the next watch: %v, %v", err, ctx.Err())
		}
		leave()
	})
}

func TestADriverThatDoesNotLetItselfBeClosedIsLeftAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source, _ := openedDriver(t, someGPU(), identityOnly)
		never := make(chan struct{})
		source.session.api.(*mock.Interface).ShutdownFunc = func() nvml.Return { <-never; return nvml.SUCCESS }
		err := source.Pause(t.Context(), func(context.Context) error {
			t.Error("it acts although the driver may be open")
			return nil
		})
		if !errors.Is(err, ErrHung) || !strings.Contains(err.Error(), "let go of the NVIDIA driver") {
			t.Errorf("it is told as %v", err)
		}
		close(never)
	})
}

func TestAGPUThatProcessesUseIsNotLetGo(t *testing.T) {
	withProcesses := func(symbol string) bool {
		return identityOnly(symbol) || strings.HasSuffix(symbol, "RunningProcesses_v3")
	}
	list := func(ret nvml.Return, pids ...uint32) func() ([]nvml.ProcessInfo, nvml.Return) {
		return func() (processes []nvml.ProcessInfo, _ nvml.Return) {
			for _, pid := range pids {
				processes = append(processes, nvml.ProcessInfo{Pid: pid})
			}
			return processes, ret
		}
	}
	for name, test := range map[string]struct {
		compute, graphics func() ([]nvml.ProcessInfo, nvml.Return)
		pci               string
		refused           string
	}{
		"nobody uses it":                {list(nvml.SUCCESS), list(nvml.SUCCESS), somePCI, ""},
		"processes use it":              {list(nvml.SUCCESS, 4711, 12), list(nvml.SUCCESS, 12), somePCI, "while processes use it: 12 4711;"},
		"the driver does not list them": {list(nvml.ERROR_NOT_SUPPORTED), list(nvml.ERROR_NOT_SUPPORTED), somePCI, ""},
		"it is lost":                    {list(nvml.ERROR_GPU_IS_LOST), list(nvml.SUCCESS), somePCI, "GPU is lost"},
		"it is not the driver's":        {list(nvml.SUCCESS, 1), list(nvml.SUCCESS), "0000:99:00.0", ""},
	} {
		t.Run(name, func(t *testing.T) {
			gpu := someGPU()
			gpu.GetComputeRunningProcessesFunc, gpu.GetGraphicsRunningProcessesFunc = test.compute, test.graphics
			gpu.GetMPSComputeRunningProcessesFunc = list(nvml.SUCCESS)
			source, _ := openedDriver(t, gpu, withProcesses)
			acted := false
			err := source.LetGo(t.Context(), test.pci, func(context.Context) error { acted = true; return nil })
			switch {
			case test.refused == "" && (err != nil || !acted):
				t.Errorf("refused: %v", err)
			case test.refused != "" && (acted || err == nil || !strings.Contains(err.Error(), test.refused)):
				t.Errorf("acted: %t, error %v, want a refusal that says %q", acted, err, test.refused)
			}
		})
	}
}

// With the simulated library, while everybody who shares a source is at work.
func TestAGPUGoesAndComesBackBesideWatchesAndReaders(t *testing.T) {
	control, source := simulate(t, nvmlsim.Build, 0)
	ctx, cancel := context.WithCancel(t.Context())
	var others sync.WaitGroup
	defer others.Wait()
	defer cancel()
	others.Go(func() { must(t, source.Watch(ctx, func() {})) })
	others.Go(func() {
		for ctx.Err() == nil {
			if err := source.WatchEvents(ctx, func(Event) {}); err != nil && ctx.Err() == nil {
				t.Errorf("watching: %v", err)
				return
			}
		}
	})
	others.Go(func() {
		for ctx.Err() == nil {
			if _, err := source.Sample(ctx, first); err != nil && !errors.Is(err, ErrPaused) && ctx.Err() == nil {
				t.Errorf("measuring: %v", err)
				return
			}
		}
	})
	for _, unbound := range []bool{true, false} {
		if err := source.LetGo(t.Context(), second, func(context.Context) error { return control.SetUnbound(1, unbound) }); err != nil {
			t.Fatal(err)
		}
		want := 2
		if unbound {
			want = 1
		}
		if driver, gpus, _ := source.ReadGPUs(t.Context()); driver.State != topology.DriverReady || len(gpus) != want {
			t.Errorf("unbound %t: the driver is %+v with %d GPUs, want %d", unbound, driver, len(gpus), want)
		}
	}
	must(t, control.Set(1, "processes", "4711 1048576"))
	if err := source.LetGo(t.Context(), second, func(context.Context) error { t.Error("it is taken"); return nil }); err == nil || !strings.Contains(err.Error(), "4711") {
		t.Errorf("a GPU that process 4711 uses: %v", err)
	}
}
