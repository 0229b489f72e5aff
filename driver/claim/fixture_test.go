package claim

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"

	resourceapi "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"

	"github.com/hostler-dev/hostler/driver/cdi"
	"github.com/hostler-dev/hostler/driver/gpu/gputest"
	"github.com/hostler-dev/hostler/driver/metadata"
	"github.com/hostler-dev/hostler/driver/publish"
	"github.com/hostler-dev/hostler/netattach"
	"github.com/hostler-dev/hostler/netattach/multus"
	"github.com/hostler-dev/hostler/topology"
)

const (
	node = "node-a"
	boot = "6b2f7c1e-boot"
)

// machine has three GPUs, one of them lost, and NICs of every sort.
func machine() *topology.Snapshot {
	place := func(pci string) topology.Placement { return topology.Placement{PCI: pci, NUMANode: -1, Socket: -1} }
	link := func(name string) *topology.Link {
		return &topology.Link{Name: name, MAC: "02:00:00:00:00:0" + name[3:], MTU: 9000, Up: true, Addresses: []netip.Prefix{netip.MustParsePrefix("192.0.2.7/24")}}
	}
	rdma := &topology.RDMADevice{Name: "mlx5_0", CharDevices: []string{"/dev/infiniband/uverbs0"}}
	infiniBand := *rdma
	infiniBand.Ports = []topology.RDMAPort{{Port: 1, LinkLayer: "InfiniBand"}}
	return &topology.Snapshot{
		BootID: boot,
		Driver: topology.Driver{State: topology.DriverReady, Version: "570.124.06"},
		GPUs: []topology.GPU{
			{Name: "gpu-0000-17-00-0", UUID: "GPU-a", Placement: place("0000:17:00.0")},
			{Name: "gpu-0000-27-00-0", UUID: "GPU-b", Minor: 1, Placement: place("0000:27:00.0")},
			{Name: "gpu-0000-37-00-0", UUID: "GPU-c", Lost: true, Placement: place("0000:37:00.0")},
		},
		NICs: []topology.NIC{
			{Name: "nic-0000-18-00-0", Kind: topology.PF, Link: link("eth1"), RDMA: rdma, Placement: place("0000:18:00.0")},
			{Name: "nic-0000-19-00-0", Kind: topology.PF, Link: link("eth2"), Placement: place("0000:19:00.0")},
			{Name: "nic-0000-1a-00-0", Kind: topology.PF, RDMA: &infiniBand, Placement: place("0000:1a:00.0")},
			{Name: "nic-0000-1b-00-0", Kind: topology.PF, Placement: place("0000:1b:00.0")},
			{Name: "nic-0000-1c-00-0", Kind: topology.PF, Link: link("eth0"), Uplink: "carries the default route", Placement: place("0000:1c:00.0")},
			{Name: "nic-0000-1d-00-0", Kind: topology.PF, VFID: -1, NumVFs: 2, Link: link("eth3"), Placement: place("0000:1d:00.0")},
			{Name: "nic-0000-1d-00-1", Kind: topology.VF, Parent: "nic-0000-1d-00-0", Link: link("eth4"), Placement: place("0000:1d:00.1")},
			{Name: "nic-0000-1d-00-2", Kind: topology.VF, Parent: "nic-0000-1d-00-0", VFID: 1, Link: link("eth5"), Placement: place("0000:1d:00.2")},
		},
	}
}

// migPCI is where the machine has a GPU in MIG mode.
const migPCI = "0000:47:00.0"

// Names of partitions of that GPU. The 2g at slice 4 is the administrator's where there is one.
const (
	migGPU  = "gpu-0000-47-00-0"
	part1g0 = migGPU + "-mig-1g-10gb-0"
	part1g1 = migGPU + "-mig-1g-10gb-1"
	part1g4 = migGPU + "-mig-1g-10gb-4"
	part2g0 = migGPU + "-mig-2g-20gb-0"
	part2g4 = migGPU + "-mig-2g-20gb-4"
	part7g  = migGPU + "-mig-7g-80gb-0"
)

// theirs is the administrator's partition.
var theirs = topology.MIGPlacement{Start: 4, Size: 2}

// cutMachine is the machine with the GPU in MIG mode as it is cut now.
func cutMachine(device *gputest.GPU) *topology.Snapshot {
	s := machine()
	s.GPUs = append(s.GPUs, device.Snapshot())
	return s
}

// migDevice is a GPU that its administrator has cut once.
func migDevice() *gputest.GPU {
	device := gputest.New(migPCI)
	if _, err := device.CreatePartition(context.Background(), migPCI, 14, theirs); err != nil {
		panic(err)
	}
	return device
}

// allocated makes a claim whose requests r0, r1, … got the devices, given as "pool/device".
func allocated(name string, devices ...[2]string) *resourceapi.ResourceClaim {
	claim := &resourceapi.ResourceClaim{
		ObjectMeta: metav1.ObjectMeta{Namespace: "team", Name: name, UID: types.UID("uid-" + name)},
		Status: resourceapi.ResourceClaimStatus{
			Allocation:  &resourceapi.AllocationResult{},
			ReservedFor: []resourceapi.ResourceClaimConsumerReference{{Resource: "pods", Name: "pod-" + name, UID: types.UID("pod-" + name)}},
		},
	}
	for i, d := range devices {
		claim.Status.Allocation.Devices.Results = append(claim.Status.Allocation.Devices.Results, resourceapi.DeviceRequestAllocationResult{
			Request: fmt.Sprintf("r%d", i), Driver: publish.DriverName, Pool: node + "/" + d[0], Device: d[1],
		})
	}
	return claim
}

func onGPU(device string) [2]string { return [2]string{"gpu", device} }
func onNIC(device string) [2]string { return [2]string{"nic", device} }
func onEgress() [2]string           { return [2]string{"egress", "egress"} }

// onAny is a device of the pool that GPUs, NICs and pairs share.
func onAny(device string) [2]string { return [2]string{"device", device} }

// with adds an opaque config, for all requests if none is named.
func with(claim *resourceapi.ResourceClaim, source resourceapi.AllocationConfigSource, body string, requests ...string) *resourceapi.ResourceClaim {
	claim.Status.Allocation.Devices.Config = append(claim.Status.Allocation.Devices.Config, resourceapi.DeviceAllocationConfiguration{
		Source: source, Requests: requests,
		DeviceConfiguration: resourceapi.DeviceConfiguration{Opaque: &resourceapi.OpaqueDeviceConfiguration{
			Driver: publish.DriverName, Parameters: runtime.RawExtension{Raw: config(body)},
		}},
	})
	return claim
}

// config completes `Kind {…}` to a config object.
func config(body string) []byte {
	var kind string
	var fields map[string]any
	if n, err := fmt.Sscan(body, &kind); n != 1 || err != nil {
		panic(body)
	}
	if err := json.Unmarshal([]byte(body[len(kind):]), &fields); err != nil {
		panic(err)
	}
	fields["apiVersion"], fields["kind"] = "hostler.dev/v1alpha1", kind
	raw, err := json.Marshal(fields)
	if err != nil {
		panic(err)
	}
	return raw
}

const (
	class = resourceapi.AllocationConfigSourceClass
	claim = resourceapi.AllocationConfigSourceClaim
)

// fakeAttacher counts releases and fails on demand.
type fakeAttacher struct {
	mu       sync.Mutex
	fail     error
	released map[types.UID]int
	inUse    map[types.UID]bool
	inPods   map[types.UID][]netattach.DeviceState
}

func (a *fakeAttacher) InUse(claim types.UID) (bool, error) { return a.inUse[claim], nil }

func (a *fakeAttacher) InPods(claim types.UID) ([]netattach.DeviceState, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.inPods[claim], nil
}

func (a *fakeAttacher) Release(_ context.Context, claim types.UID) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.released == nil {
		a.released = map[types.UID]int{}
	}
	a.released[claim]++
	return a.fail
}

// fakeNetworks knows one definition.
type fakeNetworks struct{}

func (fakeNetworks) Resolve(_ context.Context, wanted netattach.NetworkIntent, deviceID string) (netattach.NetworkIntent, error) {
	if wanted.Name != "storage" {
		return wanted, errors.New("there is no such NetworkAttachmentDefinition")
	}
	wanted.Config = []byte(`{"deviceID":"` + deviceID + `"}`)
	return wanted, nil
}

// room is a runner on a machine in temporary directories.
type room struct {
	*Runner
	journal  *Journal
	path     string
	cdi      cdi.Directory
	metadata *metadata.Directory
	attacher *fakeAttacher
	snapshot *topology.Snapshot
	// mig is the GPU in MIG mode, nil if the machine has none.
	mig       *gputest.GPU
	admission *Admission
	// silent is why GPUs cannot be asked.
	silent string
	steps  *Steps
	// see, if set, is how the snapshot looks by what has happened since.
	see func(*topology.Snapshot) *topology.Snapshot
}

type failer interface {
	Helper()
	Fatal(...any)
}

// newRoom starts on directory, which may hold what an earlier one left.
func newRoom(t failer, directory, bootID string) *room { return newMIGRoom(t, directory, bootID, nil) }

func newMIGRoom(t failer, directory, bootID string, mig *gputest.GPU) *room {
	t.Helper()
	r := &room{
		path: filepath.Join(directory, "state", "journal"), cdi: cdi.Directory{Path: filepath.Join(directory, "cdi")},
		attacher: &fakeAttacher{}, snapshot: machine(), mig: mig,
	}
	r.snapshot.BootID = bootID
	var err error
	if r.journal, err = OpenJournal(context.Background(), r.path, r.cdi); err != nil {
		t.Fatal(err)
	}
	verbs := filepath.Join(directory, "dev", "infiniband", "uverbs0")
	if err := errors.Join(os.MkdirAll(filepath.Dir(verbs), 0o755), os.WriteFile(verbs, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	if r.metadata, err = metadata.New(filepath.Join(directory, "metadata")); err != nil {
		t.Fatal(err)
	}
	r.steps = &Steps{
		Metadata: r.metadata,
		Describe: func(s publish.Subject) (publish.Attributes, bool) {
			return publish.NewDescriber(publish.Input{Snapshot: r.now()}).Describe(s)
		},
		Attacher: r.attacher, Directory: r.cdi, Snapshot: r.now, BootID: bootID, GPUGone: func(string) string { return "" }, GPUsSilent: func() string { return r.silent }, Recut: func() {},
		DeviceInfo: multus.DeviceInfo{Path: filepath.Join(directory, "devinfo")},
		Specs:      &cdi.Builder{GPUs: anyGPU{}, Dev: filepath.Join(directory, "dev"), HostDev: "/dev"},
	}
	r.admission = &Admission{Journal: r.journal, BootID: bootID}
	if mig != nil {
		r.steps.Partitioner, r.admission.Partitioner = mig, mig
	}
	r.Runner = NewRunner(RunnerConfig{
		Journal: r.journal, Steps: r.steps.Of, Networks: fakeNetworks{}, Admit: r.admission.Admit, InUse: r.attacher.InUse, BootID: bootID, Metadata: r.metadata,
		Plan: func(c *resourceapi.ResourceClaim) (*Entry, error) {
			return Plan(PlanInput{Claim: c, NodeName: node, Snapshot: r.now(), Held: NewLedger(r.journal).Held(), Resolvers: []netip.Addr{}})
		},
	})
	return r
}

// now is the machine with its GPU in MIG mode as it is cut now.
func (r *room) now() *topology.Snapshot {
	now := *r.snapshot
	if r.mig != nil {
		now.GPUs = append(slices.Clone(now.GPUs), r.mig.Snapshot())
	}
	if r.see != nil {
		return r.see(&now)
	}
	return &now
}

func (r *room) prepare(c *resourceapi.ResourceClaim) (*Entry, error) {
	return r.Prepare(context.Background(), r.Arrive(), c)
}
