package driver

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/dynamic-resource-allocation/kubeletplugin"
	"k8s.io/dynamic-resource-allocation/resourceslice"

	"github.com/hostler-dev/hostler/api/v1alpha1"
	"github.com/hostler-dev/hostler/driver/gpu/gputest"
	"github.com/hostler-dev/hostler/driver/publish"
	"github.com/hostler-dev/hostler/topology"
)

const (
	migPCI = "0000:47:00.0"
	migGPU = "gpu-0000-47-00-0"
	part1g = migGPU + "-mig-1g-10gb-0"
	aPair  = "pair-0000-20-00-0-0000-18-00-0"
)

// cutMachine is a machine with one GPU, the GPU in MIG mode as it is cut now, and one NIC.
func cutMachine(device *gputest.GPU) *topology.Snapshot {
	s := machineOf(1)
	s.GPUs = append(s.GPUs, device.Snapshot())
	return s
}

// withCapabilities has the driver list the capabilities of GPU instance 1 of the
// GPU with minor 0, and no nodes for them.
func withCapabilities(t *testing.T, paths v1alpha1.PathsConfig) v1alpha1.PathsConfig {
	t.Helper()
	for name, content := range map[string]string{
		"proc/driver/nvidia-caps/mig-minors": "gpu0/gi1/access 12\ngpu0/gi1/ci0/access 13\n", "proc/devices": "237 nvidia-caps\n",
	} {
		path := filepath.Join(paths.DriverRoot, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(content), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	return paths
}

func prepareOnly(d *Driver, c *resourceapi.ResourceClaim) error {
	results, err := d.PrepareResourceClaims(context.Background(), []*resourceapi.ResourceClaim{c})
	return errors.Join(err, results[c.UID].Err)
}

func unprepareOnly(d *Driver, c *resourceapi.ResourceClaim) error {
	results, err := d.UnprepareResourceClaims(context.Background(), []kubeletplugin.NamespacedObject{{UID: c.UID}})
	return errors.Join(err, results[c.UID])
}

func TestPartitionFromClaimToContainer(t *testing.T) {
	device, rescans := gputest.New(migPCI), 0
	d, _ := newDriver(t, fake.NewClientset(), withCapabilities(t, pathsIn(t)), func(c *Config) {
		c.Partitioner, c.Rescan = device, func() { rescans++ }
	})
	d.SetSnapshot(cutMachine(device))
	c := claimOn("a", publish.GPUPool(node), part1g)
	if err := prepareOnly(d, c); err != nil {
		t.Fatal(err)
	}
	if instances := device.Snapshot().MIG.Instances; len(instances) != 1 || instances[0].ProfileID != 19 || rescans != 1 {
		t.Errorf("instances %+v, %d looks at the machine", instances, rescans)
	}
	spec, err := os.ReadFile(d.directory.File(c.UID))
	for _, path := range []string{"/dev/nvidia0", "/dev/nvidia-caps/nvidia-cap12", "/dev/nvidia-caps/nvidia-cap13"} {
		if !strings.Contains(string(spec), `"`+path+`"`) {
			t.Errorf("the spec does not have %s: %v", path, err)
		}
	}
	in, _ := d.publishInput(time.Now())
	if _, used := in.InUse[part1g]; !used || !in.Made[part1g] {
		t.Errorf("made %v, in use %v", in.Made, in.InUse)
	}
	if err := unprepareOnly(d, c); err != nil {
		t.Fatal(err)
	}
	if instances := device.Snapshot().MIG.Instances; len(instances) != 0 || rescans != 2 {
		t.Errorf("instances %+v, %d looks at the machine", instances, rescans)
	}
	if in, _ := d.publishInput(time.Now()); len(in.InUse) > 0 {
		t.Error("the partition is still in use")
	}
}

func TestPartitionOfAGPUThatIsGoneIsLetGo(t *testing.T) {
	device := gputest.New(migPCI)
	d, _ := newDriver(t, fake.NewClientset(), withCapabilities(t, pathsIn(t)), func(c *Config) { c.Partitioner = device })
	d.SetSnapshot(cutMachine(device))
	c := claimOn("a", publish.GPUPool(node), part1g)
	if err := prepareOnly(d, c); err != nil {
		t.Fatal(err)
	}
	device.Fault = errors.New("GPU is lost")
	if err := unprepareOnly(d, c); err == nil || !strings.Contains(err.Error(), "GPU is lost") {
		t.Errorf("%v; while discovery still sees the GPU its word counts", err)
	}
	lost := cutMachine(device)
	lost.GPUs[1].Lost = true
	d.SetSnapshot(lost)
	if err := unprepareOnly(d, c); err != nil {
		t.Errorf("%v; the pod would hang in its termination", err)
	}
}

func TestGPUsThatAreGone(t *testing.T) {
	lost, dead := machineOf(1), machineOf(1)
	lost.GPUs[0].Lost = true
	dead.Driver = topology.Driver{State: topology.DriverFailed, Message: "Driver Not Loaded"}
	for name, test := range map[string]struct {
		snapshot *topology.Snapshot
		want     string
	}{
		"before the first look":  {nil, ""},
		"a GPU that is there":    {machineOf(1), ""},
		"an unplugged GPU":       {machineOf(0), "unplugged"},
		"a lost GPU":             {lost, "fallen off the bus"},
		"under a driver that is": {dead, ""},
	} {
		m := &machine{snapshot: test.snapshot}
		if got := m.gpuGone("gpu-0000-20-00-0"); (got == "") != (test.want == "") || !strings.Contains(got, test.want) {
			t.Errorf("%s: %q, want %q", name, got, test.want)
		}
		if silent := m.driverSilent(); (silent != "") != (test.snapshot == dead) {
			t.Errorf("%s: nobody can tell because %q", name, silent)
		}
	}
}

func TestPartitionOnItsWayOut(t *testing.T) {
	device := gputest.New(migPCI)
	empty := cutMachine(device)
	if _, err := device.CreatePartition(t.Context(), migPCI, 19, topology.MIGPlacement{Size: 1}); err != nil {
		t.Fatal(err)
	}
	cut := cutMachine(device)
	ledger := map[string]bool{part1g: true}
	begin := time.Unix(1000, 0)
	for _, test := range []struct {
		name   string
		during *topology.Snapshot // the last one while the claim held it
		later  *topology.Snapshot
		after  time.Duration
		made   bool
	}{
		{"removed, and not seen gone yet", cut, cut, time.Second, true},
		{"removed, and seen gone", cut, empty, time.Second, false},
		{"a look from before it was made does not count", empty, empty, time.Second, true},
		{"a look that saw it in between", empty, cut, time.Second, true},
		{"never seen gone: somebody made it again", cut, cut, time.Minute, false},
	} {
		m := &machine{snapshot: test.during}
		if m.made(ledger, begin); !m.made(ledger, begin)[part1g] {
			t.Errorf("%s: not made while a claim holds it", test.name)
		}
		m.made(nil, begin)
		m.snapshot = test.later
		if got := m.made(nil, begin.Add(test.after)); got[part1g] != test.made {
			t.Errorf("%s: made %v", test.name, got)
		}
	}
}

func TestNothingIsPublishedBeforeTheAPIServerIsKnown(t *testing.T) {
	var features publish.Features
	known := false
	d, _ := newDriver(t, fake.NewClientset(), pathsIn(t), func(c *Config) {
		c.Features = func() (publish.Features, bool) { return features, known }
	})
	d.SetSnapshot(machineOf(2))
	if _, ready := d.publishInput(time.Now()); ready || len(d.healthReport().Devices) != 0 {
		t.Error("slices would be published that the API server may not understand")
	}
	features, known = publish.Features{Taints: true}, true
	changed := d.machine.watch()
	d.Republish()
	<-changed
	if in, ready := d.publishInput(time.Now()); !ready || in.Features != features {
		t.Errorf("input for %+v, ready: %v", in.Features, ready)
	}
}

// diary keeps the messages of events.
type diary struct{ messages chan string }

func (d diary) Event(_ runtime.Object, eventType, reason, message string) {
	d.messages <- eventType + " " + reason + ": " + message
}

func TestShortfallsAreToldOnce(t *testing.T) {
	events := diary{make(chan string, 10)}
	d, _ := newDriver(t, fake.NewClientset(), pathsIn(t), func(c *Config) {
		c.Events = events
		c.Features = func() (publish.Features, bool) { return publish.Features{Taints: true, Counters: true}, true }
	})
	p := countingPublisher{make(chan resourceslice.DriverResources, 100)}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { d.publish(ctx, p); close(done) }()
	for n := range 4 {
		d.SetSnapshot(machineOf(n))
		<-p.published
	}
	stop()
	<-done
	close(events.messages)
	told := slices.Collect(func(yield func(string) bool) {
		for m := range events.messages {
			if !yield(m) {
				return
			}
		}
	})
	if len(told) != 1 || !strings.HasPrefix(told[0], "Warning DevicesNotOffered: ") || !strings.Contains(told[0], "DRAConsumableCapacity") {
		t.Errorf("told %q, want once that scopes cannot be shared", told)
	}
	if now := d.tellShortfalls(t.Context(), []string{"gone"}, nil); len(now) != 0 {
		t.Errorf("still told: %q", now)
	}
}

func TestHealthOfPartitionsAndPairs(t *testing.T) {
	device := gputest.New(migPCI)
	d, _ := newDriver(t, fake.NewClientset(), pathsIn(t), func(c *Config) { c.Publish.CompositeDevices = true })
	d.SetSnapshot(cutMachine(device))
	of := func(name string) string {
		for _, h := range d.healthReport().Devices {
			if h.DeviceName == name && h.PoolName == publish.DevicePool(node) {
				return fmt.Sprintf("%s %s", h.Health, h.Message)
			}
		}
		return "not reported"
	}
	sick, unknown := kubeletplugin.HealthStatusUnhealthy, kubeletplugin.HealthStatusUnknown
	for _, test := range []struct {
		name     string
		verdicts []DeviceHealth
		want     map[string]string
	}{
		{"all is well", nil, map[string]string{part1g: "Healthy ", aPair: "Healthy ", migGPU: "Healthy "}},
		{"the GPU of partitions is broken", []DeviceHealth{{migGPU, sick, "XID 79"}}, map[string]string{part1g: "Unhealthy XID 79", aPair: "Healthy ", migGPU: "Unhealthy XID 79"}},
		{"the NIC of a pair is broken", []DeviceHealth{{"nic-0000-18-00-0", sick, "link errors"}}, map[string]string{aPair: "Unhealthy link errors", part1g: "Healthy "}},
		{"both of a pair, the worse counts", []DeviceHealth{{"nic-0000-18-00-0", sick, "link errors"}, {"gpu-0000-20-00-0", unknown, "it hangs"}}, map[string]string{aPair: "Unhealthy it hangs; link errors"}},
		{"one partition alone", []DeviceHealth{{part1g, sick, "its instance"}}, map[string]string{part1g: "Unhealthy its instance", migGPU: "Healthy "}},
	} {
		d.SetVerdicts(nil, test.verdicts)
		for device, want := range test.want {
			if got := of(device); got != want {
				t.Errorf("%s: %s is %q, want %q", test.name, device, got, want)
			}
		}
	}
}

func TestUplinksAreAskedForAgain(t *testing.T) {
	d, _ := newDriver(t, fake.NewClientset(), pathsIn(t), func(c *Config) {
		c.Uplinks = func(_ context.Context, nics []topology.NIC) (map[string]string, error) {
			return map[string]string{nics[0].Name: "carries the default route via eth1"}, nil
		}
	})
	d.SetSnapshot(machineOf(1))
	if err := prepareOnly(d, claimOn("a", publish.NICPool(node), "nic-0000-18-00-0")); err == nil || !strings.Contains(err.Error(), "is the node's own: it carries the default route via eth1") {
		t.Errorf("%v; the NIC has become an uplink", err)
	}
	if err := prepareOnly(d, claimOn("b", publish.GPUPool(node), "gpu-0000-20-00-0")); err != nil {
		t.Errorf("a GPU: %v", err)
	}
}
