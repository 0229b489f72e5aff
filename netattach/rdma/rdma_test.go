package rdma_test

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"github.com/hostler-dev/hostler/api/v1alpha1"
	"github.com/hostler-dev/hostler/netattach"
	"github.com/hostler-dev/hostler/netattach/internal/rdmatest"
	"github.com/hostler-dev/hostler/netattach/rdma"
)

// guids are those of mlx5_0 and mlx5_1.
var guids = []string{"946d:ae03:0012:3450", "946d:ae03:0012:3451"}

// machine is a host and a pod. Any two files do for namespaces.
type machine struct {
	hostFD, podFD int
	kernel        *rdmatest.Kernel
	host          *rdma.Host
}

func newMachine(t *testing.T, mode rdma.Mode, devices ...rdmatest.Device) *machine {
	t.Helper()
	m := &machine{hostFD: file(t), podFD: file(t)}
	m.kernel = rdmatest.New(mode, m.hostFD, devices...)
	var err error
	if m.host, err = rdma.NewHost(rdma.HostConfig{Namespace: &m.hostFD, Kernel: m.kernel}); err != nil {
		t.Fatal(err)
	}
	return m
}

func file(t *testing.T) int {
	t.Helper()
	f, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return int(f.Fd())
}

func hardware(name string, i int) rdmatest.Device {
	return rdmatest.Device{Device: rdma.Device{Name: name, NodeGUID: guids[i]}}
}

func claimed(mode v1alpha1.RDMAMode) netattach.DeviceIntent {
	return netattach.DeviceIntent{Device: "nic-0000-18-00-0", RDMA: &netattach.RDMAIntent{Device: "mlx5_1", Mode: mode}}
}

// attach is what an attachment does with the device.
func (m *machine) attach(t *testing.T, device netattach.DeviceIntent) (netattach.DeviceIntent, error) {
	t.Helper()
	device, err := m.host.Remember(t.Context(), device)
	if err == nil {
		device.RDMA, err = m.host.Into(t.Context(), m.podFD, device)
	}
	return device, err
}

// where lists the devices of host and pod by name, "mlx5_0 | mlx5_1".
func (m *machine) where() string {
	var names []string
	for _, namespace := range []int{m.hostFD, m.podFD} {
		devices, _ := m.kernel.Devices(namespace)
		var here []string
		for _, d := range devices {
			here = append(here, d.Name)
		}
		names = append(names, strings.Join(here, " "))
	}
	return strings.Join(names, " | ")
}

func TestWhatBecomesOfADeviceIsDecidedByNodeAndClaim(t *testing.T) {
	const inPod, onHost, everywhere = "mlx5_0 | mlx5_1", "mlx5_0 mlx5_1 | ", "mlx5_0 mlx5_1 | mlx5_0 mlx5_1"
	fixed := hardware("mlx5_1", 1)
	fixed.Fixed = true
	for name, test := range map[string]struct {
		node     rdma.Mode
		asked    v1alpha1.RDMAMode
		device   rdmatest.Device
		where    string
		fallback string
		refused  string
	}{
		"an exclusive node, Auto":                   {rdma.Exclusive, v1alpha1.RDMAAuto, hardware("mlx5_1", 1), inPod, "", ""},
		"an exclusive node, Exclusive":              {rdma.Exclusive, v1alpha1.RDMAExclusive, hardware("mlx5_1", 1), inPod, "", ""},
		"an exclusive node, Shared":                 {rdma.Exclusive, v1alpha1.RDMAShared, hardware("mlx5_1", 1), onHost, "", "cannot be opened in a pod"},
		"a shared node, Auto":                       {rdma.Shared, v1alpha1.RDMAAuto, hardware("mlx5_1", 1), everywhere, "", ""},
		"a shared node, Shared":                     {rdma.Shared, v1alpha1.RDMAShared, hardware("mlx5_1", 1), everywhere, "", ""},
		"a shared node, Exclusive":                  {rdma.Shared, v1alpha1.RDMAExclusive, hardware("mlx5_1", 1), everywhere, "", "ib_core netns_mode=0"},
		"a kernel without RDMA, Auto":               {rdma.Absent, v1alpha1.RDMAAuto, hardware("mlx5_1", 1), onHost, "", ""},
		"a kernel without RDMA, Shared":             {rdma.Absent, v1alpha1.RDMAShared, hardware("mlx5_1", 1), onHost, "", ""},
		"a kernel without RDMA, Exclusive":          {rdma.Absent, v1alpha1.RDMAExclusive, hardware("mlx5_1", 1), onHost, "", "has no RDMA"},
		"an exclusive node and driver, Auto":        {rdma.Exclusive, v1alpha1.RDMAAuto, fixed, onHost, "operation not supported", ""},
		"an exclusive node and driver, Exclusive":   {rdma.Exclusive, v1alpha1.RDMAExclusive, fixed, onHost, "", "operation not supported"},
		"an exclusive node without the device":      {rdma.Exclusive, v1alpha1.RDMAAuto, hardware("mlx5_7", 1), "mlx5_0 mlx5_7 | ", "", "not in the host's network namespace"},
		"a shared node without the device":          {rdma.Shared, v1alpha1.RDMAAuto, hardware("mlx5_7", 1), "mlx5_0 mlx5_7 | mlx5_0 mlx5_7", "went away", ""},
		"a shared node without the device, Shared":  {rdma.Shared, v1alpha1.RDMAShared, hardware("mlx5_7", 1), "mlx5_0 mlx5_7 | mlx5_0 mlx5_7", "", "went away"},
		"an exclusive node, no claim on the device": {rdma.Exclusive, v1alpha1.RDMANone, hardware("mlx5_1", 1), onHost, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t, test.node, hardware("mlx5_0", 0), test.device)
			asked := claimed(test.asked)
			if test.asked == v1alpha1.RDMANone {
				asked.RDMA = nil
			}
			device, err := m.attach(t, asked)
			if test.refused == "" != (err == nil) || err != nil && !strings.Contains(err.Error(), test.refused) {
				t.Errorf("error %v, want %q", err, test.refused)
			}
			if where := m.where(); where != test.where {
				t.Errorf("devices are at %s, want %s", where, test.where)
			}
			if state := rdma.State(device); err == nil && state != nil {
				if state.Exclusive != (test.where == inPod) || test.fallback == "" != (state.Fallback == "") || !strings.Contains(state.Fallback, test.fallback) {
					t.Errorf("state %+v, want fallback %q", *state, test.fallback)
				}
			}
			if asked.RDMA != nil && (asked.RDMA.Moves || asked.RDMA.Fallback != "") {
				t.Errorf("the journal's own intent was changed: %+v", *asked.RDMA)
			}
			// Whatever was done or refused can be undone, and once more.
			for range 2 {
				if found, err := m.host.Home(t.Context(), m.podFD, device); err != nil || !found {
					t.Errorf("Home: %v, %v", found, err)
				}
			}
			if where := m.where(); test.node != rdma.Shared && !strings.HasSuffix(where, "| ") {
				t.Errorf("afterwards devices are at %s", where)
			}
		})
	}
}

// The kernel lets its mode be changed while there is no pod's namespace, under a running agent.
func TestModeThatWasChangedIsNoticed(t *testing.T) {
	m := newMachine(t, rdma.Shared, hardware("mlx5_0", 0), hardware("mlx5_1", 1))
	for _, mode := range []rdma.Mode{rdma.Shared, rdma.Exclusive, rdma.Shared} {
		m.kernel.SetMode(mode)
		device, err := m.attach(t, claimed(v1alpha1.RDMAAuto))
		if err != nil || device.RDMA.Moves != (mode == rdma.Exclusive) {
			t.Errorf("%s: %v; the device moves: %t", mode, err, device.RDMA.Moves)
		}
		if found, err := m.host.Home(t.Context(), m.podFD, device); err != nil || !found {
			t.Errorf("%s: Home: %v, %v", mode, found, err)
		}
	}
}

// Neither what a child's parent has nor what Multus attached is for us to move. With a
// child nothing but Shared can be asked for.
func TestDeviceThatIsNotOursToMove(t *testing.T) {
	child := func(d *netattach.DeviceIntent) { d.Child = &netattach.ChildIntent{Kind: "macvlan", Mode: "bridge"} }
	external := func(d *netattach.DeviceIntent) { d.External = true }
	ipoib := func(d *netattach.DeviceIntent) {
		d.HostName, d.HostMAC = "ib0", "80:00:02:08:fe:80:00:00:00:00:00:00:94:6d:ae:03:00:12:34:51"
	}
	for name, test := range map[string]struct {
		node     rdma.Mode
		asked    v1alpha1.RDMAMode
		kind     func(*netattach.DeviceIntent)
		brought  bool
		fallback string
		refused  string
	}{
		"a child on a shared node":                                {rdma.Shared, v1alpha1.RDMAShared, child, false, "", ""},
		"a child on an exclusive node":                            {rdma.Exclusive, v1alpha1.RDMAShared, child, false, "", "cannot be opened in a pod"},
		"IPoIB on a shared node":                                  {rdma.Shared, v1alpha1.RDMAAuto, ipoib, false, "", ""},
		"IPoIB on an exclusive node":                              {rdma.Exclusive, v1alpha1.RDMAAuto, ipoib, false, "unload ib_ipoib", ""},
		"IPoIB on an exclusive node, Exclusive":                   {rdma.Exclusive, v1alpha1.RDMAExclusive, ipoib, false, "", "unload ib_ipoib"},
		"Multus on a shared node":                                 {rdma.Shared, v1alpha1.RDMAAuto, external, false, "", ""},
		"Multus on an exclusive node, without the plugin rdma":    {rdma.Exclusive, v1alpha1.RDMAAuto, external, false, "add the CNI plugin rdma", ""},
		"Multus on an exclusive node, without it and Exclusive":   {rdma.Exclusive, v1alpha1.RDMAExclusive, external, false, "", "add the CNI plugin rdma"},
		"Multus on an exclusive node, with the plugin, Exclusive": {rdma.Exclusive, v1alpha1.RDMAExclusive, external, true, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t, test.node, hardware("mlx5_0", 0), hardware("mlx5_1", 1))
			if test.brought {
				if err := m.kernel.Move(m.hostFD, 1, m.podFD); err != nil {
					t.Fatal(err)
				}
			}
			before := m.where()
			device := claimed(test.asked)
			test.kind(&device)
			device, err := m.attach(t, device)
			if test.refused == "" != (err == nil) || err != nil && !strings.Contains(err.Error(), test.refused) {
				t.Errorf("error %v, want %q", err, test.refused)
			}
			if got := device.RDMA.Fallback; test.fallback == "" != (got == "") || !strings.Contains(got, test.fallback) {
				t.Errorf("fallback %q, want %q", got, test.fallback)
			}
			if found, err := m.host.Home(t.Context(), m.podFD, device); err != nil || !found || m.where() != before {
				t.Errorf("Home: %v, %v; devices are at %s, were at %s", found, err, m.where(), before)
			}
		})
	}
}

func TestDeviceThatCameOfADriverLoadedAnewIsFound(t *testing.T) {
	for name, test := range map[string]struct {
		happens func(m *machine)
		found   bool
	}{
		"under its name, with another index": {func(m *machine) {
			m.kernel.Unplug("mlx5_1")
			m.kernel.Add(hardware("mlx5_1", 1), m.podFD)
		}, true},
		"under another name": {func(m *machine) {
			m.kernel.Unplug("mlx5_1")
			m.kernel.Add(hardware("mlx5_9", 1), m.podFD)
		}, true},
		"not while another device has its name": {func(m *machine) {
			m.kernel.Unplug("mlx5_1")
			m.kernel.Add(rdmatest.Device{Device: rdma.Device{Name: "mlx5_1", NodeGUID: "946d:ae03:0012:9999"}}, m.podFD)
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t, rdma.Exclusive, hardware("mlx5_0", 0), hardware("mlx5_1", 1))
			device, err := m.attach(t, claimed(v1alpha1.RDMAAuto))
			if err != nil {
				t.Fatal(err)
			}
			test.happens(m)
			if present, err := m.host.Present(m.podFD, device); err != nil || present != test.found {
				t.Errorf("Present: %v, %v", present, err)
			}
			found, err := m.host.Home(t.Context(), m.podFD, device)
			if err != nil || found != test.found {
				t.Errorf("Home: %v, %v", found, err)
			}
			if where := m.where(); test.found && where != "mlx5_0 mlx5_1 | " {
				t.Errorf("devices are at %s", where)
			}
		})
	}
}

func TestNameThatAnotherDeviceTookIsAskedFor(t *testing.T) {
	m := newMachine(t, rdma.Exclusive, hardware("mlx5_0", 0), hardware("mlx5_1", 1))
	device, err := m.attach(t, claimed(v1alpha1.RDMAAuto))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(m.kernel.Rename(m.podFD, 1, "mine"), m.kernel.Rename(m.hostFD, 0, "mlx5_1")); err != nil {
		t.Fatal(err)
	}
	found, err := m.host.Home(t.Context(), m.podFD, device)
	if !found || !errors.Is(err, unix.EEXIST) || !strings.Contains(err.Error(), "rdma dev set mine name mlx5_1") {
		t.Errorf("Home: %v, %v", found, err)
	}
	if err := m.kernel.Rename(m.hostFD, 0, "mlx5_0"); err != nil {
		t.Fatal(err)
	}
	if found, err := m.host.Home(t.Context(), m.podFD, device); !found || err != nil || m.where() != "mlx5_0 mlx5_1 | " {
		t.Errorf("Home: %v, %v; %s", found, err, m.where())
	}
}

// The kernel may refuse for other reasons than that it never moves this device;
// then the pod is tried again rather than started without.
func TestMoveThatFailsForNowIsNoReasonToDoWithout(t *testing.T) {
	m := newMachine(t, rdma.Exclusive, hardware("mlx5_0", 0), hardware("mlx5_1", 1))
	m.kernel.Around = func(bool) error { return unix.EBUSY }
	if _, err := m.attach(t, claimed(v1alpha1.RDMAAuto)); !errors.Is(err, unix.EBUSY) {
		t.Errorf("error %v, want EBUSY", err)
	}
}

func TestMoveThatDoesNotShowIsNone(t *testing.T) {
	deaf := hardware("mlx5_1", 1)
	deaf.Deaf = true
	m := newMachine(t, rdma.Exclusive, hardware("mlx5_0", 0), deaf)
	if _, err := m.attach(t, claimed(v1alpha1.RDMAAuto)); err == nil || !strings.Contains(err.Error(), "does not show it there") {
		t.Errorf("error %v", err)
	}
}

// Whatever happens in whatever order, and wherever the agent is killed: one that has
// nothing but what was recorded brings the device home under its name.
func TestDeviceComesHomeWhateverHappens(t *testing.T) {
	killed := errors.New("killed")
	rapid.Check(t, func(r *rapid.T) {
		m := newMachine(t, rdma.Exclusive, hardware("mlx5_0", 0), hardware("mlx5_1", 1))
		recorded, err := m.host.Remember(t.Context(), claimed(v1alpha1.RDMAAuto))
		if err != nil {
			r.Fatal(err)
		}
		kill := false
		m.kernel.Around = func(bool) error {
			if kill && rapid.Bool().Draw(r, "killed here") {
				kill = false
				return killed
			}
			return nil
		}
		ended := false
		for range rapid.IntRange(1, 12).Draw(r, "events") {
			kill = rapid.Bool().Draw(r, "with a kill")
			switch event := rapid.SampledFrom([]string{"into", "home", "restore", "rename", "end"}).Draw(r, "event"); event {
			case "into":
				if !ended {
					_, err = m.host.Into(context.Background(), m.podFD, recorded)
				}
			case "home":
				_, err = m.host.Home(context.Background(), m.podFD, recorded)
			case "restore":
				_, err = m.host.Restore(context.Background(), recorded)
			case "rename":
				for _, namespace := range []int{m.hostFD, m.podFD} {
					_ = m.kernel.Rename(namespace, recorded.RDMA.Index, rapid.StringMatching("ib[0-9]").Draw(r, "name"))
				}
			case "end":
				m.kernel.End(m.podFD, m.hostFD)
				ended = true
			}
			if err != nil && !errors.Is(err, killed) {
				r.Fatal(err)
			}
			err = nil
		}
		kill = false
		if found, err := m.host.Home(context.Background(), m.podFD, recorded); err != nil || !found || m.where() != "mlx5_0 mlx5_1 | " {
			r.Fatalf("Home: %v, %v; devices are at %s", found, err, m.where())
		}
	})
}
