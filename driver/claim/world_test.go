package claim

// The machine that outlives its agents. Tests that kill agents start one after the
// other on the same world, and compare what is left on it with what was there in
// the beginning: journal, CDI directory, GPU instances, settings of VFs, bindings
// to vfio-pci, netdevs that are in pods.

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"sync"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"

	"github.com/hostler-dev/hostler/driver/gpu/gputest"
	"github.com/hostler-dev/hostler/driver/vfio/vfiotest"
	"github.com/hostler-dev/hostler/netattach"
	"github.com/hostler-dev/hostler/topology"
)

// quiet is for calls that fail by the hundred as they should.
func quiet() context.Context { return klog.NewContext(context.Background(), klog.Logger{}) }

// world is a machine. Its agent, if one runs, passes the moments of its changes.
type world struct {
	t         failer
	directory string
	boot      int
	gpu       *gputest.GPU
	// dead: the accelerator driver answers nothing.
	dead bool
	// replaces: the journal has no second file.
	replaces bool

	mu sync.Mutex
	// vfs are the settings of VFs by "PF's address/number", addresses those of their
	// netdevs, by PCI address.
	vfs       map[string]netattach.VFSettings
	addresses map[string]string
	// kernel is nil where nothing is given to user space.
	kernel *vfiotest.Kernel
	// away are the NICs that are in pods, by claim.
	away map[types.UID][]string
	// unhappy are the claims whose netdevs do not come home.
	unhappy map[types.UID]error
	inUse   map[types.UID]bool
	pass    func(moment string) error
}

func newWorld(t failer, directory string) *world {
	w := &world{
		t: t, directory: directory, gpu: migDevice(), unhappy: map[types.UID]error{}, inUse: map[types.UID]bool{},
		away: map[types.UID][]string{}, pass: func(string) error { return nil },
	}
	w.begin()
	return w
}

// begin has everything as the administrator's scripts leave it at boot.
func (w *world) begin() {
	w.vfs = map[string]netattach.VFSettings{"0000:1d:00.0/0": administrators(5), "0000:1d:00.0/1": administrators(6)}
	w.addresses = map[string]string{"0000:1d:00.1": "02:ad:00:00:00:05", "0000:1d:00.2": "02:ad:00:00:00:06"}
}

// administrators are the settings of a VF that nobody holds.
func administrators(last int) netattach.VFSettings {
	return netattach.VFSettings{
		MAC: new(fmt.Sprintf("02:ad:00:00:00:%02x", last)), VLAN: new(0), QoS: new(0), SpoofCheck: new(true), Trust: new(false),
		MinTxRate: new(0), MaxTxRate: new(10000), LinkState: new("auto"),
	}
}

func (w *world) bootID() string { return fmt.Sprint("boot-", w.boot) }

// reboot ends everything that does not survive one.
func (w *world) reboot() {
	w.boot++
	w.idle()
	w.gpu.Reboot()
	w.gpu.Interrupt, w.gpu.Fault, w.dead = nil, nil, false
	if _, err := w.gpu.CreatePartition(context.Background(), migPCI, 14, theirs); err != nil {
		w.t.Fatal(err)
	}
	w.begin()
	if w.kernel != nil {
		w.bus()
	}
	w.away, w.inUse, w.unhappy = map[types.UID][]string{}, map[types.UID]bool{}, map[types.UID]error{}
	w.wipe()
}

// idle ends all processes that use partitions.
func (w *world) idle() {
	for _, i := range w.gpu.Snapshot().MIG.Instances {
		w.gpu.SetBusy(i.GPUInstance, false)
	}
}

// wipe empties what is in memory only.
func (w *world) wipe() {
	for _, directory := range []string{"cdi", "metadata", "devinfo"} {
		if err := os.RemoveAll(filepath.Join(w.directory, directory)); err != nil {
			w.t.Fatal(err)
		}
	}
}

// attach puts the claim's netdevs into its pod, as the sandbox's hook does. Where the
// pod gets a child, the netdev stays.
func (w *world) attach(entry *Entry) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := range entry.Devices {
		if network := entry.Devices[i].Network; network != nil && network.HasNetdev() && network.Child == nil {
			w.away[entry.ClaimUID] = append(w.away[entry.ClaimUID], network.PCI)
		}
	}
}

// Release and InUse make the world an Attacher.
func (w *world) Release(_ context.Context, claim types.UID) error {
	if err := w.pass("before netdevs come home"); err != nil {
		return err
	}
	w.mu.Lock()
	err := w.unhappy[claim]
	if err == nil {
		delete(w.away, claim)
	}
	w.mu.Unlock()
	if err != nil {
		return err
	}
	return w.pass("netdevs are home")
}

func (w *world) InUse(claim types.UID) (bool, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.inUse[claim], nil
}

// InPods completes the Attacher. What pods call their netdevs is no matter of this world.
func (w *world) InPods(types.UID) ([]netattach.DeviceState, error) { return nil, nil }

// seen is a snapshot of the machine by what has become of its devices.
func (w *world) seen(now *topology.Snapshot) *topology.Snapshot {
	w.mu.Lock()
	defer w.mu.Unlock()
	seen := *now
	seen.NICs = slices.Clone(now.NICs)
	bindings := w.bindings()
	for i := range seen.NICs {
		nic := &seen.NICs[i]
		if w.isAway(nic.Placement.PCI) {
			nic.Link = nil
		}
		if bindings[nic.Placement.PCI] == "vfio-pci" {
			nic.Link, nic.RDMA = nil, nil
		}
	}
	return &seen
}

// isAway: the NIC is in a pod.
func (w *world) isAway(pci string) bool {
	for _, nics := range w.away {
		if slices.Contains(nics, pci) {
			return true
		}
	}
	return false
}

// still is all that claims may change, at one moment.
type still struct {
	Instances []topology.MIGInstance
	VFs       map[string]netattach.VFSettings
	Bindings  map[string]string
	Addresses map[string]string
	Away      map[types.UID][]string
	// Entries of the journal on disk, and CDI specs and metadata, by name. What
	// passes is left out of them.
	Entries, Files map[string]string
}

// passing are the numbers and UUIDs of GPU instances, which NVML gives anew each
// time, and what counts how often metadata was written.
var passing = regexp.MustCompile(`-gi\d+|MIG-0000:47:00.0-\d+|"generation": \d+`)

func (w *world) still() still {
	s := still{Instances: instances(w.gpu), Entries: map[string]string{}, Files: map[string]string{}}
	w.mu.Lock()
	s.VFs, s.Bindings, s.Away = maps.Clone(w.vfs), w.bindings(), maps.Clone(w.away)
	s.Addresses = maps.Clone(w.addresses)
	w.mu.Unlock()
	journal, err := ReadJournal(filepath.Join(w.directory, "state", "journal"))
	if err != nil {
		w.t.Fatal(err)
	}
	for _, entry := range journal.Entries() {
		raw, err := json.Marshal(entry)
		if err != nil {
			w.t.Fatal(err)
		}
		s.Entries[string(entry.ClaimUID)] = string(raw)
	}
	for _, directory := range []string{"cdi", "metadata", "devinfo"} {
		w.read(directory, s.Files)
	}
	return s
}

// read adds the files below a directory, which need not be there.
func (w *world) read(directory string, files map[string]string) {
	err := filepath.WalkDir(filepath.Join(w.directory, directory), func(path string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || entry.IsDir() {
			return err
		}
		raw, err := os.ReadFile(path)
		files[strings.TrimPrefix(path, w.directory)] = passing.ReplaceAllString(strings.ReplaceAll(string(raw), w.directory, ""), "…")
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
}

// start has an agent begin on the world, to be killed at that moment, 0 for never.
func (w *world) start(at int) *agent {
	w.t.Helper()
	k := &killer{at: at}
	w.pass, w.gpu.Interrupt = k.pass, k.pass
	a := &agent{room: newMIGRoom(w.t, w.directory, w.bootID(), w.gpu), killer: k, world: w}
	if w.dead {
		a.die()
	} else {
		a.revive()
	}
	a.see = w.seen
	if !w.replaces {
		a.journal.disk = mortalDisk{killer: &killer{}}
		if err := a.journal.makeSlots(); err != nil {
			w.t.Fatal(err)
		}
	}
	a.journal.disk = mortalDisk{killer: k}
	a.steps.Attacher, a.steps.VFs, a.admission.VFs, a.cfg.InUse = w, w, w, w.InUse
	if w.kernel != nil {
		a.steps.VFIO = w.kernel.Bus()
		a.admission.VFIO = a.steps.VFIO
	}
	steps, admit := a.cfg.Steps, a.cfg.Admit
	a.cfg.Steps = func(entry *Entry) []Step {
		list := slices.Clone(steps(entry))
		for i := range list {
			list[i] = mortal{list[i], k}
		}
		return list
	}
	a.cfg.Admit = func(ctx context.Context, entry *Entry) error {
		if err := k.pass("before admission"); err != nil {
			return err
		}
		if err := admit(ctx, entry); err != nil {
			return err
		}
		return k.pass("before the entry joins the journal")
	}
	return a
}

// overlaid is under with the settings of over that are there.
func overlaid(under, over netattach.VFSettings) netattach.VFSettings {
	out := under
	for i := range reflect.TypeFor[netattach.VFSettings]().NumField() {
		if field := reflect.ValueOf(over).Field(i); !field.IsNil() {
			reflect.ValueOf(&out).Elem().Field(i).Set(field)
		}
	}
	return out
}

// instances are a GPU's, without the numbers that NVML gives them anew each time.
func instances(device *gputest.GPU) []topology.MIGInstance {
	list := device.Snapshot().MIG.Instances
	for i := range list {
		list[i].GPUInstance = 0
		for range list[i].ComputeInstances {
			list[i].ComputeInstances = []topology.MIGComputeInstance{{}}
		}
	}
	return list
}

func wholeAt(profile int, place topology.MIGPlacement) topology.MIGInstance {
	return topology.MIGInstance{ProfileID: profile, Placement: place, ComputeInstances: []topology.MIGComputeInstance{{}}}
}
