package driver

// What is published of a whole machine can be prepared, all of it, and what was
// prepared leaves no trace: an HGX A100 with MIG in every state, as test/machine
// renders it, with test/nvmlsim as its driver.

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/hostler-dev/hostler/driver/publish"
	profiles "github.com/hostler-dev/hostler/test/machine"
	"github.com/hostler-dev/hostler/test/simulated"
	"github.com/hostler-dev/hostler/topology"
)

// simulatedDriver serves the machine; look has the driver see how it is now.
func simulatedDriver(t *testing.T, m *simulated.Machine, change func(*Config)) (d *Driver, look func()) {
	t.Helper()
	paths := pathsIn(t)
	paths.Dev, paths.DriverRoot = m.Rendered.Dev, m.Rendered.DriverRoot
	d, _ = newDriver(t, fake.NewClientset(), paths, func(c *Config) {
		c.Partitioner, c.Uplinks = m.GPUs, m.Hardware().Uplinks
		change(c)
	})
	look = func() {
		t.Helper()
		snapshot, err := m.Snapshot(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		d.SetSnapshot(snapshot)
	}
	look()
	return d, look
}

// onOffer are the devices of a type that the scheduler would give to anyone, with their pool.
func onOffer(d *Driver, kind string) map[string]string {
	offered := map[string]string{}
	in, _ := d.publishInput(time.Now())
	for pool, contents := range publish.Resources(in).Pools {
		for _, slice := range contents.Slices {
			for _, device := range slice.Devices {
				is := device.Attributes[publish.DriverName+"/type"]
				if is.StringValue != nil && *is.StringValue == kind && len(device.Taints) == 0 {
					offered[device.Name] = pool
				}
			}
		}
	}
	return offered
}

// cuts are the files in which the simulator keeps how GPUs are cut.
func cuts(t *testing.T, m *simulated.Machine) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(m.Control.Dir, "gpu*", "mig_instances"))
	var all strings.Builder
	for _, file := range files {
		raw, readErr := os.ReadFile(file)
		err = errors.Join(err, readErr)
		if len(raw) > 0 {
			fmt.Fprintf(&all, "%s:\n%s", filepath.Base(filepath.Dir(file)), raw)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	return all.String()
}

func TestEverythingPublishedCanBePrepared(t *testing.T) {
	m, err := simulated.New("hgx-a100-mig", profiles.TempDir(t), profiles.RenderOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	if len(m.Rendered.Notes) > 0 {
		t.Skipf("the machine is not complete here: %q", m.Rendered.Notes)
	}
	before := cuts(t, m)
	d, look := simulatedDriver(t, m, func(*Config) {})
	partitions := onOffer(d, "mig")
	if len(partitions) < 40 {
		t.Errorf("only %d partitions are on offer", len(partitions))
	}
	for name, pool := range partitions {
		c := claimOn(name, pool, name)
		if err := prepareOnly(d, c); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		look()
		owner, partition := d.machine.now().Partition(name)
		if partition == nil || partition.UUID() == "" {
			t.Fatalf("%s is prepared and does not exist", name)
		}
		capability := 3 + 135*owner.Minor + 9*partition.Instance.GPUInstance
		spec, err := os.ReadFile(d.directory.File(c.UID))
		for _, node := range []string{fmt.Sprintf("nvidia%d", owner.Minor), fmt.Sprintf("nvidia-caps/nvidia-cap%d", capability), fmt.Sprintf("nvidia-caps/nvidia-cap%d", capability+1)} {
			if !strings.Contains(string(spec), `"/dev/`+node+`"`) {
				t.Errorf("a container with %s lacks /dev/%s (%v)", name, node, err)
			}
		}
		if n := strings.Count(string(spec), `"path":"/dev/nvidia-caps/`); n != 2 {
			t.Errorf("a container with %s gets %d capabilities, want 2", name, n)
		}
		if got := onOffer(d, "mig"); len(got) != len(partitions) {
			t.Errorf("while %s is prepared, %d partitions are on offer instead of %d", name, len(got), len(partitions))
		}
		if err := unprepareOnly(d, c); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if after := cuts(t, m); after != before {
		t.Errorf("the GPUs are cut into\n%swant, as before,\n%s", after, before)
	}
	look()
	whole := claimOn("whole", publish.GPUPool(node), topology.GPUName("0000:90:00.0"))
	if err := prepareOnly(d, whole); err == nil || !strings.Contains(err.Error(), "is in MIG mode") {
		t.Errorf("%v; CUDA does not run on a whole GPU in MIG mode", err)
	}

	d, _ = simulatedDriver(t, m, func(c *Config) { c.Publish.CompositeDevices = true })
	pairs := onOffer(d, "pair")
	if len(pairs) == 0 {
		t.Error("no pairs are on offer")
	}
	var claims []*resourceapi.ResourceClaim
	for name, pool := range pairs {
		c := claimOn(name, pool, name)
		if err := prepareOnly(d, c); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		claims = append(claims, c)
	}
	if held := d.ledger.Held(); len(held) != len(pairs) {
		t.Errorf("%d NICs are held by %d pairs", len(held), len(pairs))
	}
	for _, c := range claims {
		if err := unprepareOnly(d, c); err != nil {
			t.Error(err)
		}
	}
}
