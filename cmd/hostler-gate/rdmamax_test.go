package main

// A node in files: its RDMA devices with their uverbs nodes, and the cgroup of the process
// 42, whose rdma.max takes and shows limits as the kernel does (kernel/cgroup/rdma.c).

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"pgregory.net/rapid"
)

const (
	unified = "31 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
	legacy  = "35 31 0:28 / /sys/fs/cgroup/pids rw shared:9 - cgroup cgroup rw,pids\n" +
		"36 31 0:29 / /sys/fs/cgroup/rdma rw shared:10 - cgroup cgroup rw,rdma\n"
)

// fakeNode has the devices by name, each with the minor number of its uverbs node.
type fakeNode struct {
	limits rdmaLimits
	// path of the rdma.max of process 42, and what it holds for each device.
	path   string
	values map[string]string
	// sets are the writes that came.
	sets []string
}

// newNode has no rdma.max if folder is "".
func newNode(t failer, root, mounts, own, container, folder string, devices map[string]int64) *fakeNode {
	n := &fakeNode{values: map[string]string{}}
	n.limits = rdmaLimits{root: root, set: n.set(t)}
	put(t, root+"/proc/self/mountinfo", mounts)
	put(t, root+"/proc/self/cgroup", own)
	put(t, root+"/proc/42/cgroup", container)
	for name, minor := range devices {
		node := fmt.Sprintf("%s/sys/class/infiniband_verbs/uverbs%d", root, minor-192)
		put(t, node+"/dev", fmt.Sprintf("231:%d\n", minor))
		put(t, node+"/ibdev", name+"\n")
		n.values[name] = "hca_handle=max hca_object=max"
	}
	if folder != "" {
		n.path = root + folder + "/rdma.max"
		n.show(t)
	}
	return n
}

type failer interface {
	Helper()
	Fatal(...any)
}

func put(t failer, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// show writes what the kernel would, in any order and with a blank after each limit.
func (n *fakeNode) show(t failer) {
	var lines strings.Builder
	for device, limits := range n.values {
		fmt.Fprintf(&lines, "%s %s \n", device, limits)
	}
	put(t, n.path, lines.String())
}

func (n *fakeNode) set(t failer) func(string, string) error {
	return func(path, line string) error {
		device, limits, _ := strings.Cut(line, " hca_")
		n.sets = append(n.sets, device)
		if _, known := n.values[device]; !known || path != n.path {
			return &os.PathError{Op: "write", Path: path, Err: syscall.ENODEV}
		}
		n.values[device] = "hca_" + limits
		n.show(t)
		return nil
	}
}

// kept are the devices that the container can make nothing on.
func (n *fakeNode) kept() []string {
	kept := []string{}
	for device, limits := range n.values {
		if limits == "hca_handle=0 hca_object=0" {
			kept = append(kept, device)
		}
	}
	slices.Sort(kept)
	return kept
}

func allow(minor int64) deviceRule {
	return deviceRule{Allow: true, Type: "c", Major: new(int64(231)), Minor: &minor, Access: "rw"}
}

// everything is the rule of a privileged container.
var everything = deviceRule{Allow: true, Access: "rwm"}

func TestRDMALimitsAreSetWhereTheContainersCgroupHasThem(t *testing.T) {
	const deep = "/kubepods/pod1/container"
	for name, test := range map[string]struct {
		mounts, own, container, folder string
		limited                        bool
	}{
		"the unified hierarchy": {unified, "0::/runtime\n", "0::" + deep + "\n", "/sys/fs/cgroup" + deep, true},
		"a hierarchy of version 1, whose number says nothing": {unified + legacy, "12:rdma:/runtime\n0::/runtime\n",
			"7:pids:/elsewhere\n12:rdma:" + deep + "\n0::/unified" + deep + "\n", "/sys/fs/cgroup/rdma" + deep, true},
		"one that has another controller too":                              {strings.ReplaceAll(legacy, "rw,rdma", "rw,misc,rdma"), "12:misc,rdma:/\n", "12:misc,rdma:" + deep + "\n", "/sys/fs/cgroup/rdma" + deep, true},
		"a mount of a part":                                                {strings.ReplaceAll(unified, "0:26 / ", "0:26 /kubepods "), "0::/runtime\n", "0::" + deep + "\n", "/sys/fs/cgroup/pod1/container", true},
		"a mount with a blank in its name":                                 {strings.ReplaceAll(unified, "/sys/fs/cgroup", `/my\040groups`), "0::/runtime\n", "0::" + deep + "\n", "/my groups" + deep, true},
		"a second mount that shows it":                                     {strings.ReplaceAll(unified, "0:26 / ", "0:26 /kubepods/pod2 ") + strings.ReplaceAll(unified, "/sys/fs/cgroup", "/all"), "0::/\n", "0::" + deep + "\n", "/all" + deep, true},
		"a runtime in a cgroup of a name that begins like the container's": {unified, "0::" + deep + "-runtime\n", "0::" + deep + "\n", "/sys/fs/cgroup" + deep, true},

		"no controller in the unified hierarchy":              {unified, "0::/runtime\n", "0::" + deep + "\n", "", false},
		"no controller in version 1":                          {strings.ReplaceAll(legacy, "rdma", "memory"), "3:memory:/\n", "3:memory:" + deep + "\n", "", false},
		"no cgroups at all":                                   {"", "", "", "", false},
		"the root, which has limits only where it is a child": {unified, "0::/\n", "0::/\n", "/sys/fs/cgroup", false},
		"the runtime's own cgroup":                            {legacy, "12:rdma:/runtime\n", "12:rdma:/runtime\n", "/sys/fs/cgroup/rdma/runtime", false},
		"a cgroup that the runtime is in":                     {legacy, "12:rdma:/system/runtime\n", "12:rdma:/system\n", "/sys/fs/cgroup/rdma/system", false},
		"a cgroup that no mount shows":                        {strings.ReplaceAll(unified, "0:26 / ", "0:26 /kube "), "0::/runtime\n", "0::" + deep + "\n", "/sys/fs/cgroup" + deep, false},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t, t.TempDir(), test.mounts, test.own, test.container, test.folder, map[string]int64{"mlx5_0": 192, "mlx5_1": 193})
			if err := n.limits.hold(container{Pid: 42, rules: []deviceRule{allow(192)}}); err != nil {
				t.Fatal(err)
			}
			want := []string{}
			if test.limited {
				want = append(want, "mlx5_1")
			}
			if kept := n.kept(); !slices.Equal(kept, want) || len(n.sets) != len(want) {
				t.Errorf("the container is kept from %v by writes for %v, want %v", kept, n.sets, want)
			}
		})
	}
}

func TestContainerIsKeptFromWhatItWasNotGiven(t *testing.T) {
	major, all := int64(231), int64(-1)
	for name, test := range map[string]struct {
		rules []deviceRule
		kept  []string
	}{
		"given one":                           {[]deviceRule{{Access: "rwm"}, allow(193)}, []string{"mlx5_0", "mlx5_2"}},
		"given two":                           {[]deviceRule{allow(193), allow(194)}, []string{"mlx5_0"}},
		"given none":                          {nil, []string{"mlx5_0", "mlx5_1", "mlx5_2"}},
		"given one, and privileged":           {[]deviceRule{everything, allow(192)}, []string{"mlx5_1", "mlx5_2"}},
		"given none, and privileged":          {[]deviceRule{everything}, []string{"mlx5_0", "mlx5_1", "mlx5_2"}},
		"given all of them by one rule":       {[]deviceRule{{Allow: true, Type: "c", Major: &major, Access: "rw"}}, []string{}},
		"given all of them by a -1":           {[]deviceRule{{Allow: true, Type: "c", Major: &major, Minor: &all, Access: "rw"}}, []string{}},
		"given a node of another driver":      {[]deviceRule{{Allow: true, Type: "c", Major: new(int64(195)), Minor: new(int64(192)), Access: "rw"}}, []string{"mlx5_0", "mlx5_1", "mlx5_2"}},
		"given a disk of the same number":     {[]deviceRule{{Allow: true, Type: "b", Major: &major, Minor: new(int64(192)), Access: "rw"}}, []string{"mlx5_0", "mlx5_1", "mlx5_2"}},
		"denied one, and allowed to make one": {[]deviceRule{{Type: "c", Major: &major, Minor: new(int64(192)), Access: "rwm"}, {Allow: true, Type: "c", Major: &major, Minor: new(int64(193)), Access: "m"}}, []string{"mlx5_0", "mlx5_1", "mlx5_2"}},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t, t.TempDir(), unified, "0::/\n", "0::/c\n", "/sys/fs/cgroup/c", map[string]int64{"mlx5_0": 192, "mlx5_1": 193, "mlx5_2": 194})
			if err := n.limits.hold(container{Pid: 42, rules: test.rules}); err != nil {
				t.Fatal(err)
			}
			if kept := n.kept(); !slices.Equal(kept, test.kept) {
				t.Errorf("the container is kept from %v, want %v", kept, test.kept)
			}
		})
	}
}

// The hooks of a container's claims run one after the other, and all of them again if it
// restarts in its cgroup, and may find limits that somebody set.
func TestAnyNumberOfHooksComesToTheSame(t *testing.T) {
	base := t.TempDir()
	rapid.Check(t, func(t *rapid.T) {
		root, err := os.MkdirTemp(base, "")
		if err != nil {
			t.Fatal(err)
		}
		devices, want := map[string]int64{}, []string{}
		c := container{Pid: 42}
		if rapid.Bool().Draw(t, "privileged") {
			c.rules = append(c.rules, everything)
		}
		for i, given := range rapid.SliceOfN(rapid.Bool(), 0, 8).Draw(t, "given") {
			name := fmt.Sprintf("mlx5_%d", i)
			devices[name] = int64(192 + i)
			if given {
				c.rules = append(c.rules, allow(devices[name]))
			} else {
				want = append(want, name)
			}
		}
		n := newNode(t, root, unified, "0::/\n", "0::/c\n", "/sys/fs/cgroup/c", devices)
		before := map[string]string{}
		for name := range n.values {
			n.values[name] = rapid.SampledFrom([]string{"hca_handle=max hca_object=max", "hca_handle=2 hca_object=0", "hca_handle=0 hca_object=max", "hca_handle=7 hca_object=100"}).Draw(t, "limits")
			before[name] = n.values[name]
		}
		n.show(t)
		for range rapid.IntRange(1, 3).Draw(t, "hooks") {
			if err := n.limits.hold(c); err != nil {
				t.Fatal(err)
			}
		}
		if kept := n.kept(); !slices.Equal(kept, want) || len(n.sets) != len(want) {
			t.Errorf("kept from %v by writes for %v, want %v", kept, n.sets, want)
		}
		for name, limits := range n.values {
			if !slices.Contains(want, name) && limits != before[name] {
				t.Errorf("%s, which was given, has the limits %s, and had %s", name, limits, before[name])
			}
		}
	})
}

func TestWhatChangesWhileLimitsAreSet(t *testing.T) {
	for name, test := range map[string]struct {
		// change happens at the first write.
		change func(t *testing.T, n *fakeNode)
		kept   []string
	}{
		"the device goes": {func(_ *testing.T, n *fakeNode) { delete(n.values, "mlx5_1") }, []string{}},
		"the device gets another name": {func(t *testing.T, n *fakeNode) {
			delete(n.values, "mlx5_1")
			n.values["rail1"] = "hca_handle=max hca_object=max"
			put(t, n.limits.root+"/sys/class/infiniband_verbs/uverbs1/ibdev", "rail1\n")
		}, []string{"rail1"}},
		"the device given gets another name": {func(t *testing.T, n *fakeNode) {
			delete(n.values, "mlx5_0")
			n.values["rail0"] = "hca_handle=max hca_object=max"
			put(t, n.limits.root+"/sys/class/infiniband_verbs/uverbs0/ibdev", "rail0\n")
		}, []string{"mlx5_1"}},
		"another comes": {func(_ *testing.T, n *fakeNode) { n.values["mlx5_2"] = "hca_handle=max hca_object=max" }, []string{"mlx5_1", "mlx5_2"}},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t, t.TempDir(), unified, "0::/\n", "0::/c\n", "/sys/fs/cgroup/c", map[string]int64{"mlx5_0": 192, "mlx5_1": 193})
			set := n.limits.set
			n.limits.set = func(path, line string) error {
				if len(n.sets) == 0 {
					test.change(t, n)
					n.show(t)
				}
				return set(path, line)
			}
			if err := n.limits.hold(container{Pid: 42, rules: []deviceRule{allow(192)}}); err != nil {
				t.Fatal(err)
			}
			if kept := n.kept(); !slices.Equal(kept, test.kept) {
				t.Errorf("the container is kept from %v, want %v", kept, test.kept)
			}
		})
	}
}

func TestContainerDoesNotStartWithLessThanItsLimits(t *testing.T) {
	for name, test := range map[string]struct {
		set  func(path, line string) error
		says string
	}{
		"the kernel refuses":          {func(path, _ string) error { return &os.PathError{Op: "write", Path: path, Err: syscall.EPERM} }, "mlx5_1"},
		"the kernel does not mean it": {func(string, string) error { return nil }, "still not limited"},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t, t.TempDir(), unified, "0::/\n", "0::/c\n", "/sys/fs/cgroup/c", map[string]int64{"mlx5_0": 192, "mlx5_1": 193})
			n.limits.set = test.set
			err := n.limits.hold(container{Pid: 42, rules: []deviceRule{allow(192)}})
			if err == nil || !strings.Contains(err.Error(), test.says) || !strings.Contains(err.Error(), "rdma.max") {
				t.Errorf("error %v, want one that says %q and where", err, test.says)
			}
		})
	}
	t.Run("its process is gone", func(t *testing.T) {
		n := newNode(t, t.TempDir(), unified, "0::/\n", "0::/c\n", "", nil)
		if err := n.limits.hold(container{Pid: 43}); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("error %v", err)
		}
	})
}

func TestOnlyClaimsWithNICsSayWhichRDMADevicesThereAre(t *testing.T) {
	for name, test := range map[string]struct {
		record string
		want   bool
		says   string
	}{
		"a NIC":              {`{"state": "Attached", "intent": {"devices": [{"device": "nic"}]}}`, true, ""},
		"a GPU":              {`{"state": "Attached", "intent": {}}`, false, ""},
		"nobody knows":       {"", false, "claim c"},
		"nobody can read it": {`{"intent": {"devices": [`, false, "damaged"},
	} {
		t.Run(name, func(t *testing.T) {
			records := t.TempDir()
			if test.record != "" {
				put(t, records+"/c-p.json", test.record)
			}
			got, err := hasNICs(records, question{Claim: "c", PodUID: "p"})
			if got != test.want || (err == nil) != (test.says == "") || err != nil && !strings.Contains(err.Error(), test.says) {
				t.Errorf("%v, %v; want %v and %q", got, err, test.want, test.says)
			}
		})
	}
}

// Devices of one name in several network namespaces, should a kernel tell them apart by a
// second word: what was read is what is written.
func TestDevicesAreNamedToTheKernelAsItNamesThem(t *testing.T) {
	got := others("rxe0 index=3 hca_handle=max hca_object=max \nrxe1 hca_handle=0 hca_object=0 mr=max \nrxe2 hca_handle=0 hca_object=1 \n", map[string]bool{"rxe2": true})
	if !slices.Equal(got, []string{"rxe0 index=3"}) {
		t.Errorf("%q", got)
	}
}

func FuzzCgroupFiles(f *testing.F) {
	f.Add("12:misc,rdma:/a\n0::/b:c\n", unified+legacy, "rxe0 hca_handle=max hca_object=0 \n")
	f.Add("0::", "1 2 3 / - cgroup2\n", "hca_handle")
	f.Fuzz(func(t *testing.T, cgroups, mountinfo, limits string) {
		for version, path := range memberships(cgroups) {
			if version != cgroupV1 && version != cgroupV2 || !strings.Contains(cgroups, path) {
				t.Errorf("%s: %q", version, path)
			}
		}
		for _, mount := range rdmaMounts(mountinfo) {
			if mount.root == "" || mount.point == "" || mount.version != cgroupV1 && mount.version != cgroupV2 {
				t.Errorf("%+v", mount)
			}
		}
		for _, device := range others(limits, nil) {
			if strings.ContainsAny(device, "\n") || device == "" {
				t.Errorf("%q", device)
			}
		}
	})
}
