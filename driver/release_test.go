package driver

// A release is what an agent does when claims are unprepared, done without one.

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/hostler-dev/hostler/api/v1alpha1"
	"github.com/hostler-dev/hostler/driver/cdi"
	"github.com/hostler-dev/hostler/driver/gpu/gputest"
	"github.com/hostler-dev/hostler/driver/publish"
	"github.com/hostler-dev/hostler/netattach"
	"github.com/hostler-dev/hostler/netattach/attach"
	"github.com/hostler-dev/hostler/topology"
)

var errKilled = errors.New("killed")

// attached is what pods have of the node's network, with its records.
type attached struct {
	records map[types.UID]attach.Record
	// alive are the claims of which a sandbox lives; stuck are netdevs found nowhere.
	alive, stuck map[types.UID]bool
	// interrupt is called before and after a claim is released.
	interrupt func(string) error
}

func (a *attached) InUse(uid types.UID) (bool, error) { return a.alive[uid], nil }

func (a *attached) InPods(types.UID) ([]netattach.DeviceState, error) { return nil, nil }

func (a *attached) Release(_ context.Context, uid types.UID) error {
	if err := a.interrupt("before the netdevs come home"); err != nil {
		return err
	}
	if !a.stuck[uid] {
		delete(a.records, uid)
	}
	return a.interrupt("netdevs at home")
}

func (a *attached) Records() ([]attach.Record, error) {
	var list []attach.Record
	for _, record := range a.records {
		list = append(list, record)
	}
	return list, nil
}

// abandoned is a node that its agent has left with claims on a GPU, two
// partitions (one of which the administrator made), a NIC and an egress scope.
type abandoned struct {
	paths    v1alpha1.PathsConfig
	gpu      *gputest.GPU
	attached *attached
	proc     string
}

var theirs = topology.MIGPlacement{Start: 4, Size: 2}

func abandon(t *testing.T) *abandoned {
	t.Helper()
	n := &abandoned{paths: withCapabilities(t, pathsIn(t)), gpu: gputest.New(migPCI), proc: t.TempDir()}
	n.attached = &attached{records: map[types.UID]attach.Record{}, alive: map[types.UID]bool{}, stuck: map[types.UID]bool{}, interrupt: func(string) error { return nil }}
	if _, err := n.gpu.CreatePartition(t.Context(), migPCI, 14, theirs); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(n.paths.DriverRoot, "proc/driver/nvidia-caps/mig-minors"),
		[]byte("gpu0/gi1/access 12\ngpu0/gi1/ci0/access 13\ngpu0/gi2/access 21\ngpu0/gi2/ci0/access 22\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	d := n.driver(t, "boot")
	d.SetSnapshot(cutMachine(n.gpu))
	for name, device := range map[string][2]string{
		"gpu": {publish.GPUPool(node), "gpu-0000-20-00-0"}, "made": {publish.GPUPool(node), part1g}, "theirs": {publish.GPUPool(node), migGPU + "-mig-2g-20gb-4"},
		"nic": {publish.NICPool(node), "nic-0000-18-00-0"}, "scope": {publish.EgressPool(node), publish.EgressDevice},
	} {
		c := claimOn(name, device[0], device[1])
		if err := prepareOnly(d, c); err != nil {
			t.Fatal(err)
		}
		pod := netattach.PodReference{UID: "pod-" + types.UID(name), Namespace: "team", Name: name}
		n.attached.records[c.UID] = attach.Record{Pod: pod, Intent: d.cfg.Journal.Entry(c.UID).Intent()}
	}
	if got := len(n.gpu.Snapshot().MIG.Instances); got != 2 {
		t.Fatalf("%d partitions, want the administrator's and the claim's", got)
	}
	return n
}

// driver starts on what is on disk, as a process would.
func (n *abandoned) driver(t *testing.T, bootID string) *Driver {
	t.Helper()
	d, _ := newDriver(t, fake.NewClientset(), n.paths, func(c *Config) {
		c.KubeClient, c.Attacher, c.Partitioner, c.BootID = nil, n.attached, n.gpu, bootID
	})
	return d
}

// release runs once, and returns what it left, by claim.
func (n *abandoned) release(t *testing.T, d *Driver, o ReleaseOptions) map[types.UID]error {
	t.Helper()
	o.Records, o.Proc = n.attached.Records, n.proc
	if o.Look == nil {
		o.Look = func(context.Context) *topology.Snapshot { return cutMachine(n.gpu) }
	}
	released, err := d.Release(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	left := map[types.UID]error{}
	for _, r := range released {
		if r.Err != nil {
			left[r.Claim] = r.Err
		}
	}
	return left
}

// remains lists everything of claims that is on the node.
func (n *abandoned) remains(t *testing.T) []string {
	t.Helper()
	var all []string
	journal, err := OpenJournal(t.Context(), n.paths)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range journal.Entries() {
		all = append(all, "entry "+entry.ClaimName)
	}
	specs, err := cdi.Directory{Path: n.paths.CDI}.List()
	if err != nil {
		t.Fatal(err)
	}
	for _, uid := range specs {
		all = append(all, "spec "+string(uid))
	}
	described, err := n.driver(t, "boot").steps.Metadata.List()
	if err != nil {
		t.Fatal(err)
	}
	for _, uid := range described {
		all = append(all, "metadata "+string(uid))
	}
	for uid := range n.attached.records {
		all = append(all, "record "+string(uid))
	}
	for _, instance := range n.gpu.Snapshot().MIG.Instances {
		if instance.Placement != theirs {
			all = append(all, fmt.Sprintf("partition at %d", instance.Placement.Start))
		}
	}
	slices.Sort(all)
	return all
}

// administrators reports whether the partition that is nobody's claim's is there.
func (n *abandoned) administrators() bool {
	return slices.ContainsFunc(n.gpu.Snapshot().MIG.Instances, func(i topology.MIGInstance) bool { return i.Placement == theirs })
}

func TestReleaseLeavesTheNodeAsItWasBeforeItsClaims(t *testing.T) {
	for name, lose := range map[string]func(*abandoned) error{
		"nothing is lost":             func(*abandoned) error { return nil },
		"the journal is gone":         func(n *abandoned) error { return os.Remove(journalPath(n.paths)) },
		"the journal is damaged":      func(n *abandoned) error { return os.WriteFile(journalPath(n.paths), []byte("rubbish"), 0o600) },
		"the CDI directory was wiped": func(n *abandoned) error { return os.RemoveAll(n.paths.CDI) },
		"nothing but metadata is left": func(n *abandoned) error {
			clear(n.attached.records)
			return errors.Join(os.Remove(journalPath(n.paths)), os.RemoveAll(n.paths.CDI), n.gpu.DestroyPartition(t.Context(), migPCI, 2))
		},
		"a partition was removed by hand":    func(n *abandoned) error { return n.gpu.DestroyPartition(t.Context(), migPCI, 2) },
		"the GPU with the partition is lost": func(n *abandoned) error { n.gpu.Fault = errors.New("GPU is lost"); return nil },
	} {
		t.Run(name, func(t *testing.T) {
			n := abandon(t)
			if err := lose(n); err != nil {
				t.Fatal(err)
			}
			o := ReleaseOptions{Records: n.attached.Records, Proc: n.proc, Look: func(context.Context) *topology.Snapshot {
				s := cutMachine(n.gpu)
				s.GPUs[1].Lost = n.gpu.Fault != nil
				return s
			}}
			released, err := n.driver(t, "boot").Release(t.Context(), o)
			if err != nil || len(released) != 5 {
				t.Fatalf("%d claims, %v", len(released), err)
			}
			for _, r := range released {
				if r.Err != nil {
					t.Errorf("%s is left: %v", r.Name(), r.Err)
				}
			}
			left := slices.DeleteFunc(n.remains(t), func(what string) bool { return n.gpu.Fault != nil && strings.HasPrefix(what, "partition") })
			if len(left) > 0 || !n.administrators() {
				t.Errorf("left: %q; the administrator's partition is there: %v", left, n.administrators())
			}
			if again, err := n.driver(t, "boot").Release(t.Context(), o); err != nil || len(again) > 0 {
				t.Errorf("a second time it finds %d claims (%v)", len(again), err)
			}
		})
	}
}

func TestReleaseKilledAtAnyMomentIsCompletedByTheNext(t *testing.T) {
	// Five claims' netdevs, before and after, and the end of the partition that was made.
	const moments = 12
	for at := 1; at <= moments+1; at++ {
		n := abandon(t)
		seen, when := 0, ""
		interrupt := func(moment string) error {
			if seen++; seen < at {
				return nil
			}
			when = cmp.Or(when, moment)
			return errKilled
		}
		n.gpu.Interrupt, n.attached.interrupt = interrupt, interrupt
		if left := n.release(t, n.driver(t, "boot"), ReleaseOptions{}); (len(left) > 0) != (at <= moments) {
			t.Fatalf("moment %d (%s): left: %v", at, when, left)
		}
		n.gpu.Interrupt, n.attached.interrupt = nil, func(string) error { return nil }
		if left := n.release(t, n.driver(t, "boot"), ReleaseOptions{}); len(left) > 0 {
			t.Errorf("killed at moment %d (%s), the next leaves %v", at, when, left)
		}
		if left := n.remains(t); len(left) > 0 || !n.administrators() {
			t.Errorf("killed at moment %d (%s): left: %q", at, when, left)
		}
	}
}

func TestReleaseOfClaimsWhosePodsRun(t *testing.T) {
	const uid = "uid-gpu"
	for name, run := range map[string]struct {
		begin func(*abandoned) error
		says  string
	}{
		"a sandbox lives": {func(n *abandoned) error { n.attached.alive[uid] = true; return nil }, "the sandbox of pod team/gpu still lives"},
		"a process runs in the pod's control group": {func(n *abandoned) error {
			return errors.Join(os.MkdirAll(filepath.Join(n.proc, "7"), 0o755),
				os.WriteFile(filepath.Join(n.proc, "7", "cgroup"), []byte("0::/kubepods/burstable/podpod-gpu/abc\n"), 0o600))
		}, "pod team/gpu still runs"},
		"the kubelet uses systemd's slices": {func(n *abandoned) error {
			return errors.Join(os.MkdirAll(filepath.Join(n.proc, "7"), 0o755),
				os.WriteFile(filepath.Join(n.proc, "7", "cgroup"), []byte("0::/kubepods.slice/kubepods-podpod_gpu.slice/cri-containerd-abc.scope\n"), 0o600))
		}, "pod team/gpu still runs"},
	} {
		t.Run(name, func(t *testing.T) {
			n := abandon(t)
			if err := run.begin(n); err != nil {
				t.Fatal(err)
			}
			left := n.release(t, n.driver(t, "boot"), ReleaseOptions{})
			if len(left) != 1 || left[uid] == nil || !strings.Contains(left[uid].Error(), run.says) || !strings.Contains(left[uid].Error(), "--force") {
				t.Errorf("left: %v", left)
			}
			if got := n.remains(t); !slices.Equal(got, []string{"entry gpu", "metadata " + uid, "record " + uid, "spec " + uid}) {
				t.Errorf("on the node is %q, want all of that one claim", got)
			}
			if left := n.release(t, n.driver(t, "boot"), ReleaseOptions{Force: true}); len(left) > 0 || len(n.remains(t)) > 0 {
				t.Errorf("by force: left: %v, %q", left, n.remains(t))
			}
		})
	}
}

func TestReleaseSaysWhatItCouldNotTakeBack(t *testing.T) {
	n := abandon(t)
	n.gpu.SetBusy(2, true)
	n.attached.stuck["uid-nic"] = true
	left := n.release(t, n.driver(t, "boot"), ReleaseOptions{})
	if len(left) != 2 || !errors.Is(left["uid-made"], gputest.ErrBusy) || !strings.Contains(left["uid-nic"].Error(), "netdev eth1: neither in pod team/nic nor on the host") {
		t.Errorf("left: %v", left)
	}
	n.gpu.SetBusy(2, false)
	delete(n.attached.stuck, "uid-nic")
	if left := n.release(t, n.driver(t, "boot"), ReleaseOptions{}); len(left) > 0 || len(n.remains(t)) > 0 {
		t.Errorf("once mended: left: %v, %q", left, n.remains(t))
	}
}

func TestReleaseOfOneClaimAndOfNone(t *testing.T) {
	n := abandon(t)
	before := n.remains(t)
	if left := n.release(t, n.driver(t, "boot"), ReleaseOptions{DryRun: true}); len(left) > 0 || !slices.Equal(n.remains(t), before) {
		t.Errorf("a dry run: left %v; on the node is %q, before it was %q", left, n.remains(t), before)
	}
	if left := n.release(t, n.driver(t, "boot"), ReleaseOptions{Claim: "uid-made"}); len(left) > 0 {
		t.Error(left)
	}
	want := slices.DeleteFunc(before, func(what string) bool { return strings.HasSuffix(what, "made") || strings.HasPrefix(what, "partition") })
	if got := n.remains(t); !slices.Equal(got, want) {
		t.Errorf("on the node is\n%q, want all but the one claim's:\n%q", got, want)
	}
}

func TestReleaseUnderADeadDriverSaysWhatIsLeft(t *testing.T) {
	n := abandon(t)
	n.gpu.Fault = errors.New("Driver Not Loaded")
	dead := func(context.Context) *topology.Snapshot {
		return &topology.Snapshot{Driver: topology.Driver{State: topology.DriverFailed, Message: "Driver Not Loaded"}}
	}
	left := n.release(t, n.driver(t, "boot"), ReleaseOptions{Look: dead})
	if err := left["uid-made"]; len(left) != 1 || err == nil || !strings.Contains(err.Error(), part1g) || !strings.Contains(err.Error(), "run this again") {
		t.Errorf("left: %v; want the partition that was made, and no more", left)
	}
	n.gpu.Fault = nil
	if left := n.release(t, n.driver(t, "boot"), ReleaseOptions{}); len(left) > 0 {
		t.Error(left)
	}
	if got := n.remains(t); len(got) > 0 || !n.administrators() {
		t.Errorf("on the node remain %q, the administrator's partition: %v", got, n.administrators())
	}
}

// What is in a partition's place after a reboot is somebody else's.
func TestReleaseAfterARebootTouchesNoPartition(t *testing.T) {
	n := abandon(t)
	changes := n.gpu.Changes()
	if left := n.release(t, n.driver(t, "later boot"), ReleaseOptions{}); len(left) > 0 || n.gpu.Changes() != changes {
		t.Errorf("left: %v; %d changes to the GPU", left, n.gpu.Changes()-changes)
	}
}

func TestDryRunLooksAtACopyOfTheJournal(t *testing.T) {
	for name, raw := range map[string][]byte{"missing": nil, "damaged": []byte("rubbish")} {
		t.Run(name, func(t *testing.T) {
			n := abandon(t)
			err := os.Remove(journalPath(n.paths))
			if raw != nil {
				err = errors.Join(err, os.WriteFile(journalPath(n.paths), raw, 0o600))
			}
			if err != nil {
				t.Fatal(err)
			}
			journal, err := CopyJournal(t.Context(), n.paths, t.TempDir())
			if err != nil || len(journal.Entries()) != 5 {
				t.Fatalf("%v; the copy has %d entries, want those of the CDI specs", err, len(journal.Entries()))
			}
			after, err := os.ReadFile(journalPath(n.paths))
			if string(after) != string(raw) || raw == nil && !errors.Is(err, os.ErrNotExist) {
				t.Errorf("the journal itself is now %q (%v)", after, err)
			}
		})
	}
}

func TestStateIsForAgentsOrForOneRelease(t *testing.T) {
	paths := v1alpha1.PathsConfig{State: filepath.Join(t.TempDir(), "state")}
	if _, err := SeizeState(paths); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v; a release where no agent has been is a wrong path", err)
	}
	share := func() *StateLock {
		t.Helper()
		lock, err := ShareState(t.Context(), paths)
		if err != nil {
			t.Fatal(err)
		}
		return lock
	}
	older, newer := share(), share()
	for _, agent := range []*StateLock{older, newer} {
		if _, err := SeizeState(paths); !errors.Is(err, ErrStateInUse) {
			t.Errorf("%v while an agent runs", err)
		}
		if err := agent.Close(); err != nil {
			t.Fatal(err)
		}
	}
	release, err := SeizeState(paths)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	waited := make(chan error, 1)
	go func() {
		_, err := ShareState(ctx, paths)
		waited <- err
	}()
	stop()
	if err := <-waited; !errors.Is(err, ErrStateInUse) || !errors.Is(err, context.Canceled) {
		t.Errorf("%v; want the wait ended by the caller", err)
	}
	if err := release.Close(); err != nil {
		t.Fatal(err)
	}
	if err := share().Close(); err != nil {
		t.Error(err)
	}
}
