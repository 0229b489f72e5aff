package claim

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"

	resourceapi "k8s.io/api/resource/v1"

	"github.com/hostler-dev/hostler/api/v1alpha1"
	"github.com/hostler-dev/hostler/driver/gpu/gputest"
	"github.com/hostler-dev/hostler/driver/publish"
	"github.com/hostler-dev/hostler/topology"
)

// watching gives the claim's first device admin access.
func watching(c *resourceapi.ResourceClaim) *resourceapi.ResourceClaim {
	yes := true
	c.Status.Allocation.Devices.Results[0].AdminAccess = &yes
	return c
}

const pairRDMA, pairPlain = "pair-0000-17-00-0-0000-18-00-0", "pair-0000-27-00-0-0000-19-00-0"

func TestPlanOfEachKindOfDevice(t *testing.T) {
	for _, test := range []struct {
		name                string
		device              [2]string
		gpu, partition, nic string
	}{
		{"a GPU", onGPU("gpu-0000-17-00-0"), "gpu-0000-17-00-0", "", ""},
		{"a NIC", onNIC("nic-0000-19-00-0"), "", "", "nic-0000-19-00-0"},
		{"a GPU of the shared pool", onAny("gpu-0000-17-00-0"), "gpu-0000-17-00-0", "", ""},
		{"a NIC of the shared pool", onAny("nic-0000-19-00-0"), "", "", "nic-0000-19-00-0"},
		{"a partition", onGPU(part1g0), migGPU, "1g.10gb", ""},
		{"a partition of the shared pool", onAny(part2g4), migGPU, "2g.20gb", ""},
		{"a pair", onAny(pairPlain), "gpu-0000-27-00-0", "", "nic-0000-19-00-0"},
		{"a pair with a VF", onAny("pair-0000-27-00-0-0000-1d-00-2"), "gpu-0000-27-00-0", "", "nic-0000-1d-00-2"},
		{"a pair that would not be matched now", onAny("pair-0000-27-00-0-0000-18-00-0"), "gpu-0000-27-00-0", "", "nic-0000-18-00-0"},
	} {
		t.Run(test.name, func(t *testing.T) {
			entry, err := Plan(PlanInput{Claim: allocated("c", test.device), NodeName: node, Snapshot: cutMachine(migDevice())})
			if err != nil {
				t.Fatal(err)
			}
			d := entry.Devices[0]
			var gpu, partition, nic string
			if d.GPU != nil {
				if gpu = d.GPU.Name; d.GPU.MIG != nil {
					t.Error("the journal keeps how the GPU could be cut")
				}
			}
			if d.Partition != nil {
				partition = d.Partition.Profile
			}
			if d.NIC != nil {
				nic = d.NIC.Name
			}
			if d.Name != test.device[1] || gpu != test.gpu || partition != test.partition || nic != test.nic {
				t.Errorf("device %s is GPU %q, partition %q and NIC %q", d.Name, gpu, partition, nic)
			}
			if d.NIC != nil && (d.Network == nil || d.Network.Device != d.Name || d.Network.PCI != d.NIC.Placement.PCI) {
				t.Errorf("the network's intent: %+v", d.Network)
			}
		})
	}
}

func TestPlanOfPartitionsAndPairsRefuses(t *testing.T) {
	lost, dead, uncut := cutMachine(migDevice()), cutMachine(migDevice()), cutMachine(migDevice())
	lost.GPUs[3].Lost = true
	lost.GPUs[0].Lost = true
	dead.Driver = topology.Driver{State: topology.DriverFailed, Message: "NVML answers Driver Not Loaded"}
	uncut.GPUs[3].MIG, uncut.GPUs[3].MIGEnabled = nil, false
	silent := &topology.Snapshot{Driver: dead.Driver}
	now := cutMachine(migDevice())
	for _, test := range []struct {
		name       string
		snapshot   *topology.Snapshot
		partitions v1alpha1.PartitionOffer
		claim      *resourceapi.ResourceClaim
		want       string
	}{
		{"a whole GPU in MIG mode", now, "", allocated("c", onGPU(migGPU)), "is in MIG mode; CUDA does not run on it whole; ask for a partition (class mig.hostler.dev)"},
		{"a pair with a GPU in MIG mode", now, "", allocated("c", onAny("pair-0000-47-00-0-0000-19-00-0")), "GPU gpu-0000-47-00-0 (of device pair-0000-47-00-0-0000-19-00-0) is in MIG mode"},
		{"a partition nobody made where none are made", now, v1alpha1.PartitionsExisting, allocated("c", onGPU(part1g0)), "publish.partitions is Existing"},
		{"a partition of a lost GPU", lost, "", allocated("c", onGPU(part1g0)), "GPU gpu-0000-47-00-0 (of device " + part1g0 + ") has fallen off the bus"},
		{"a pair with a lost GPU", lost, "", allocated("c", onAny(pairRDMA)), "has fallen off the bus"},
		{"a partition while the driver is dead", dead, "", allocated("c", onGPU(part1g0)), "driver does not work (Failed): NVML answers Driver Not Loaded"},
		{"a partition when nothing is known of GPUs", silent, "", allocated("c", onGPU(part1g0)), "driver does not work (Failed)"},
		{"a pair when nothing is known of GPUs", silent, "", allocated("c", onAny(pairRDMA)), "device " + pairRDMA + " cannot be given to a pod while"},
		{"a partition after MIG mode was switched off", uncut, "", allocated("c", onGPU(part1g0)), "the node no longer has the device"},
		{"a pair whose NIC was unplugged", now, "", allocated("c", onAny("pair-0000-17-00-0-0000-99-00-0")), "the node no longer has the device"},
		{"a pair with the node's uplink", now, "", allocated("c", onAny("pair-0000-17-00-0-0000-1c-00-0")), "is the node's own: it carries the default route"},
		{"admin access to a pair", now, "", watching(allocated("c", onAny(pairPlain))), "a NIC is in one network namespace at a time"},
		{"a pair and its GPU", now, "", allocated("c", onAny(pairPlain), onAny("gpu-0000-27-00-0")), `device gpu-0000-27-00-0 of request "r1" shares hardware with device ` + pairPlain + ` of request "r0"`},
		{"a PF and its VF", now, "", allocated("c", onNIC("nic-0000-1d-00-1"), onNIC("nic-0000-1d-00-0")), "shares hardware"},
		{"two partitions of one memory slice", now, "", allocated("c", onGPU(part1g0), onGPU(part2g0)), "shares hardware"},
		{"one partition twice", now, "", allocated("c", onGPU(part1g0), onGPU(part1g0)), `requests "r0" and "r1"`},
		{"a NICConfig for a partition", now, "", with(allocated("c", onGPU(part1g0)), claim, `NICConfig {"mtu": 1500}`), "no device of that kind"},
		{"an EgressConfig that names a pair's request", now, "", with(allocated("c", onAny(pairPlain), onEgress()), claim, `EgressConfig {"dns": "None"}`, "r0", "r1"), `request "r0" got device ` + pairPlain},
		{"RDMA of a pair around a scope", now, "", allocated("c", onAny(pairRDMA), onEgress()), "RDMA verbs bypass"},
	} {
		t.Run(test.name, func(t *testing.T) {
			in := PlanInput{Claim: test.claim, NodeName: node, Snapshot: test.snapshot, Partitions: test.partitions}
			if strings.Contains(test.name, "scope") {
				test.claim = with(test.claim, claim, `EgressConfig {"dns": "None"}`)
			}
			_, err := Plan(in)
			if err == nil || !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), "team/c") {
				t.Errorf("%v; want it to name the claim and say %q", err, test.want)
			}
		})
	}
	if _, err := Plan(PlanInput{Claim: watching(allocated("c", onGPU(migGPU))), NodeName: node, Snapshot: now}); err != nil {
		t.Errorf("admin access to a whole GPU in MIG mode: %v", err)
	}
	if _, err := Plan(PlanInput{Claim: allocated("c", onGPU(part2g4)), NodeName: node, Snapshot: now, Partitions: v1alpha1.PartitionsExisting}); err != nil {
		t.Errorf("the administrator's partition where none are made: %v", err)
	}
}

func TestConfigsOfAPair(t *testing.T) {
	c := allocated("c", onAny(pairRDMA))
	with(c, class, `GPUConfig {"driverCapabilities": ["compute"]}`)
	with(c, class, `NICConfig {"mtu": 9000, "rdma": "None"}`, "r0")
	with(c, claim, `NICConfig {"mtu": 1500}`, "r0")
	with(c, claim, `GPUConfig {"driverCapabilities": ["video"]}`, "r0")
	entry, err := Plan(PlanInput{Claim: c, NodeName: node, Snapshot: machine()})
	if err != nil {
		t.Fatal(err)
	}
	d := entry.Devices[0]
	if d.Network.MTU != 1500 || d.RDMA || len(d.Capabilities) != 1 || d.Capabilities[0] != "video" {
		t.Errorf("MTU %d, RDMA %v, capabilities %v", d.Network.MTU, d.RDMA, d.Capabilities)
	}
}

func TestHeldNICOfAPair(t *testing.T) {
	r := newRoom(t, t.TempDir(), boot)
	if _, err := r.prepare(allocated("c", onAny(pairRDMA))); err != nil {
		t.Fatal(err)
	}
	ledger := NewLedger(r.journal)
	if held := ledger.Held(); len(held) != 1 || held["nic-0000-18-00-0"].Link == nil {
		t.Errorf("held NICs %v; want the pair's by its own name", held)
	}
	if holders := ledger.Holders(); len(holders) != 1 || holders[0].GPU != "gpu-0000-17-00-0" || holders[0].NIC != "nic-0000-18-00-0" {
		t.Errorf("holders %+v; want the pair's GPU and NIC", holders)
	}
	want := publish.Use{Pool: publish.DevicePool(node), GPU: "gpu-0000-17-00-0", NIC: "nic-0000-18-00-0"}
	if used := ledger.InUse(); len(used) != 1 || used[pairRDMA] != want {
		t.Errorf("in use %v; want the pair with its parts: %v", used, want)
	}
}

// Else a faulty GPU that a monitor looks at would stay on offer where the API server
// has no taints, and its partitions would not be offered where it has no counters.
func TestAdminAccessAndEgressUseNothingUp(t *testing.T) {
	r := newRoom(t, t.TempDir(), boot)
	for _, c := range []*resourceapi.ResourceClaim{watching(allocated("monitor", onGPU("gpu-0000-17-00-0"))), allocated("scope", onEgress())} {
		if _, err := r.prepare(c); err != nil {
			t.Fatal(err)
		}
	}
	if used := NewLedger(r.journal).InUse(); len(used) > 0 {
		t.Errorf("in use %v; want nothing", used)
	}
}

func TestParts(t *testing.T) {
	snapshot := cutMachine(migDevice())
	away := *snapshot.NIC("nic-0000-18-00-0")
	snapshot.NICs = snapshot.NICs[1:]
	held := map[string]topology.NIC{away.Name: away}
	for device, want := range map[string]string{
		"gpu-0000-17-00-0": "gpu-0000-17-00-0", part1g0: migGPU, "nic-0000-19-00-0": "nic-0000-19-00-0", away.Name: away.Name,
		pairRDMA: "gpu-0000-17-00-0 nic-0000-18-00-0", "egress": "", "pair-0000-17-00-0-": "",
	} {
		if got := strings.Join(Parts(snapshot, held, device), " "); got != want {
			t.Errorf("device %s consists of %q, want %q", device, got, want)
		}
	}
}

func TestAdmissionLooksAtUplinksAgain(t *testing.T) {
	for _, test := range []struct {
		name    string
		device  [2]string
		uplinks func(context.Context, []topology.NIC) (map[string]string, error)
		want    string
	}{
		{"a NIC that got the default route since", onNIC("nic-0000-19-00-0"), nowUplink, "is the node's own: it carries the default route via eth2"},
		{"the NIC of a pair", onAny(pairPlain), nowUplink, "is the node's own"},
		{"another NIC", onNIC("nic-0000-18-00-0"), nowUplink, ""},
		{"routes that cannot be read", onNIC("nic-0000-18-00-0"), func(context.Context, []topology.NIC) (map[string]string, error) {
			return nil, errors.New("netlink: no buffer space")
		}, "no buffer space; the kubelet tries again"},
		{"a GPU, for which routes do not matter", onGPU("gpu-0000-17-00-0"), func(context.Context, []topology.NIC) (map[string]string, error) {
			return nil, errors.New("asked for nothing")
		}, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := newRoom(t, t.TempDir(), boot)
			r.admission.Uplinks = test.uplinks
			_, err := r.prepare(allocated("c", test.device))
			if (err == nil) != (test.want == "") || err != nil && (!strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), "team/c")) {
				t.Errorf("%v, want %q", err, test.want)
			}
			if err != nil && len(r.journal.Entries()) != 0 {
				t.Error("the refused claim is in the journal")
			}
		})
	}
}

// nowUplink finds that eth2 has become an uplink.
func nowUplink(_ context.Context, nics []topology.NIC) (map[string]string, error) {
	uplinks := map[string]string{}
	for _, nic := range nics {
		if nic.Link.Name == "eth2" {
			uplinks[nic.Name] = "carries the default route via eth2"
		}
	}
	return uplinks, nil
}

func TestAdmissionSettlesWhoseAPartitionIs(t *testing.T) {
	half := gputest.New(migPCI)
	half.Interrupt = func(moment string) error {
		if moment == "gpu instance made" {
			return errors.New("the administrator stopped here")
		}
		return nil
	}
	if _, err := half.CreatePartition(t.Context(), migPCI, 14, theirs); err == nil {
		t.Fatal("the instance is whole")
	}
	for _, test := range []struct {
		name       string
		device     *gputest.GPU
		partitions v1alpha1.PartitionOffer
		claim      *resourceapi.ResourceClaim
		static     bool
		want       string
	}{
		{"the administrator's", migDevice(), "", allocated("c", onGPU(part2g4)), true, ""},
		{"one that is not there", migDevice(), "", allocated("c", onGPU(part1g0)), false, ""},
		{"admin access to one that is there", migDevice(), "", watching(allocated("c", onGPU(part2g4))), true, ""},
		{"admin access to one that is not", migDevice(), "", watching(allocated("c", onGPU(part1g0))), false, "admin access is for looking at what is there"},
		{"one that is gone since it was published", gputest.New(migPCI), v1alpha1.PartitionsExisting, allocated("c", onGPU(part2g4)), false, "publish.partitions is Existing"},
		{"half of one", half, "", allocated("c", onGPU(part2g4)), false, "cut it into 0 compute instances"},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := newMIGRoom(t, t.TempDir(), boot, test.device)
			r.admission.Partitions = test.partitions
			before := len(test.device.Snapshot().MIG.Instances)
			entry, err := r.prepare(test.claim)
			if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
				t.Fatalf("%v, want %q", err, test.want)
			}
			if err == nil && entry.Devices[0].Partition.Static != test.static {
				t.Errorf("taken for the administrator's: %v, want %v", entry.Devices[0].Partition.Static, test.static)
			}
			if made := NewLedger(r.journal).Made(boot); len(made) == 1 != (err == nil && !test.static) {
				t.Errorf("made for claims: %v", made)
			}
			if err := r.Unprepare(t.Context(), test.claim.UID); err != nil || len(test.device.Snapshot().MIG.Instances) != before {
				t.Errorf("unprepared: %v, instances %v", err, test.device.Snapshot().MIG.Instances)
			}
		})
	}
	r := newRoom(t, t.TempDir(), boot)
	r.mig = migDevice()
	if _, err := r.prepare(allocated("c", onGPU(part1g0))); err == nil || !strings.Contains(err.Error(), "without access to GPU partitions") {
		t.Errorf("%v; an agent without partitioner makes none", err)
	}
}

// Between admission and the journal the other claim may let go of it, and so
// remove it: what is there now is not there to stay.
func TestPartitionOfAnotherClaimIsNotTheAdministrators(t *testing.T) {
	r := newMIGRoom(t, t.TempDir(), boot, migDevice())
	if _, err := r.prepare(allocated("first", onGPU(part1g0))); err != nil {
		t.Fatal(err)
	}
	second, err := r.cfg.Plan(allocated("second", onGPU(part1g0)))
	if err := errors.Join(err, r.admission.Admit(t.Context(), second)); err != nil {
		t.Fatal(err)
	}
	if second.Devices[0].Partition.Static {
		t.Error("another claim's partition is taken for the administrator's")
	}
}

func TestWatchedPartitionIsNotTheWatchers(t *testing.T) {
	device := migDevice()
	r := newMIGRoom(t, t.TempDir(), boot, device)
	for _, c := range []*resourceapi.ResourceClaim{allocated("using", onGPU(part1g0)), watching(allocated("watching", onGPU(part1g0)))} {
		if _, err := r.prepare(c); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.Unprepare(t.Context(), "uid-watching"); err != nil || len(device.Snapshot().MIG.Instances) != 2 {
		t.Errorf("%v; the watcher took the partition along: %v", err, device.Snapshot().MIG.Instances)
	}
}

func TestPartitionInUseStaysHeld(t *testing.T) {
	device := migDevice()
	r := newMIGRoom(t, t.TempDir(), boot, device)
	if _, err := r.prepare(allocated("c", onGPU(part1g0))); err != nil {
		t.Fatal(err)
	}
	number := device.Snapshot().MIG.Instances[0].GPUInstance
	device.SetBusy(number, true)
	if err := r.Unprepare(t.Context(), "uid-c"); !errors.Is(err, gputest.ErrBusy) || !strings.Contains(err.Error(), "the kubelet tries again") {
		t.Errorf("%v; want the reason and what happens next", err)
	}
	if _, err := r.prepare(allocated("d", onGPU(part2g0))); err == nil || !strings.Contains(err.Error(), part1g0) {
		t.Errorf("%v; the memory slice is not free", err)
	}
	if _, err := os.Stat(r.cdi.File("uid-c")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v; a container could still start with the partition", err)
	}
	device.SetBusy(number, false)
	if err := r.Unprepare(t.Context(), "uid-c"); err != nil || len(device.Snapshot().MIG.Instances) != 1 {
		t.Errorf("%v, instances %v", err, device.Snapshot().MIG.Instances)
	}
}

func TestPartitionsAfterAReboot(t *testing.T) {
	directory, device := t.TempDir(), migDevice()
	c := allocated("c", onGPU(part1g0))
	if _, err := newMIGRoom(t, directory, boot, device).prepare(c); err != nil {
		t.Fatal(err)
	}
	device.Reboot()
	r := newMIGRoom(t, directory, "second-boot", device)
	if err := r.Reconcile(t.Context(), reader(c), r.cdi); err != nil {
		t.Fatal(err)
	}
	if instances := device.Snapshot().MIG.Instances; len(instances) != 1 || instances[0].ProfileID != 19 || r.journal.Entry(c.UID).Devices[0].Partition.Static {
		t.Errorf("after the reboot: instances %v, entry %+v; want the partition made again", instances, r.journal.Entry(c.UID).Devices[0].Partition)
	}
	// The administrator's tools were faster this time.
	device.Reboot()
	if _, err := device.CreatePartition(t.Context(), migPCI, 19, topology.MIGPlacement{Size: 1}); err != nil {
		t.Fatal(err)
	}
	r = newMIGRoom(t, directory, "third-boot", device)
	if err := errors.Join(r.Reconcile(t.Context(), reader(c), r.cdi), r.Unprepare(t.Context(), c.UID)); err != nil {
		t.Fatal(err)
	}
	if instances := device.Snapshot().MIG.Instances; len(instances) != 1 {
		t.Errorf("the administrator's partition was removed: %v", instances)
	}
}
