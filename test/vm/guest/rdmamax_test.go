package guest

// The gate itself against the kernel's rdma controller: a privileged container, which has
// all device nodes, can use the RDMA device that it was given and no other.

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/hostler-dev/hostler/api/v1alpha1"
	"github.com/hostler-dev/hostler/netattach"
	"github.com/hostler-dev/hostler/netattach/attach"
	"github.com/hostler-dev/hostler/topology"
)

// contained is a container of the pod whose claim has an RDMA device.
type contained struct {
	cgroup, records, bundle string
	// descriptor of the cgroup.
	descriptor int
	process    *exec.Cmd
}

// inCgroup has a process begin in the container's cgroup.
func (c *contained) inCgroup(cmd *exec.Cmd) *exec.Cmd {
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: c.descriptor}
	return cmd
}

// passGate runs the hook as a runtime would. There is no agent, only its record.
func (c *contained) passGate(t *testing.T) {
	t.Helper()
	state, err := json.Marshal(map[string]any{"id": "container", "pid": c.process.Process.Pid, "bundle": c.bundle})
	if err != nil {
		t.Fatal(err)
	}
	gate := exec.Command("./hostler-gate", "--socket", "/run/none", "--records", c.records, "--claim", "claim")
	gate.Stdin = bytes.NewReader(state)
	if out, err := gate.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

// contain attaches a pod to the device and starts a privileged container of it.
func contain(t *testing.T, device *topology.RDMADevice) *contained {
	t.Helper()
	run, sandbox := t.TempDir(), namespace(t, "pod")
	c := &contained{cgroup: "/sys/fs/cgroup/container", records: filepath.Join(run, "attached"), bundle: t.TempDir()}
	pod := netattach.PodReference{UID: "pod", Namespace: "ns", Name: "p"}
	attacher, err := attach.New(attach.Config{
		Intents: journal{netattach.Intent{ClaimUID: "claim", ClaimNamespace: "ns", ClaimName: "c", Pods: []netattach.PodReference{pod}, Devices: []netattach.DeviceIntent{
			{Device: "nic", RDMA: &netattach.RDMAIntent{Device: device.Name, NodeGUID: device.NodeGUID, Mode: v1alpha1.RDMAShared}}}}},
		Run: run, CNICache: t.TempDir(),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(attacher.DetachSandbox(context.Background(), "pod", "sandbox"), attacher.Close()); err != nil {
			t.Error(err)
		}
	})
	if err := attacher.Attach(t.Context(), attach.Sandbox{ID: "sandbox", NetNS: "/run/netns/pod", Pod: pod}); err != nil {
		t.Fatal(err)
	}
	c.configure(t, uverbs(t, device))

	if err := os.Mkdir(c.cgroup, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		eventually(t, func() string { // what was in it may not be gone yet
			if err := os.Remove(c.cgroup); err != nil {
				return err.Error()
			}
			return ""
		})
	})
	folder, err := os.Open(c.cgroup)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { folder.Close() })
	c.descriptor = int(folder.Fd())
	c.process = c.inCgroup(exec.Command("sleep", "1000"))
	if err := inNamespace(t, sandbox, c.process.Start); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.process.Process.Kill(); c.process.Wait() })
	return c
}

// configure writes what containerd makes of a privileged container and a claim's CDI spec.
func (c *contained) configure(t *testing.T, node string) {
	t.Helper()
	var stat unix.Stat_t
	if err := unix.Stat(node, &stat); err != nil {
		t.Fatal(err)
	}
	config, err := json.Marshal(map[string]any{
		"annotations": map[string]string{"io.kubernetes.cri.sandbox-id": "sandbox", "io.kubernetes.cri.sandbox-uid": "pod"},
		"linux": map[string]any{"resources": map[string]any{"devices": []map[string]any{
			{"allow": true, "access": "rwm"},
			{"allow": true, "type": "c", "major": unix.Major(stat.Rdev), "minor": unix.Minor(stat.Rdev), "access": "rw"},
		}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(c.bundle, "config.json"), config, 0o600); err != nil {
		t.Fatal(err)
	}
}

// limits are the lines of the container's rdma.max.
func (c *contained) limits(t *testing.T) (lines []string) {
	t.Helper()
	raw, err := os.ReadFile(c.cgroup + "/rdma.max")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(raw)) {
		lines = append(lines, strings.TrimSpace(line))
	}
	slices.Sort(lines)
	return lines
}

func TestPrivilegedContainersAreKeptFromOthersRDMADevices(t *testing.T) {
	needMachine(t)
	asBefore(t)
	s := discover(t, noUplink)
	ends := newWire(t, s)
	// A cgroup without the controller is let be. Only with none that has it can it be taken back.
	t.Cleanup(func() { write(t, "/sys/fs/cgroup/cgroup.subtree_control", "-rdma") })
	c := contain(t, find(t, s, pf0).RDMA)
	c.passGate(t)
	write(t, "/sys/fs/cgroup/cgroup.subtree_control", "+rdma")
	ping := func(end wireEnd, peer ...string) *exec.Cmd {
		return exec.Command("/opt/ibv_rc_pingpong", append([]string{"--chk", "-d", end.rdma, "-g", fmt.Sprint(end.gid), "-n", "20", "-s", "256"}, peer...)...)
	}

	var want []string
	for _, nic := range s.NICs {
		switch {
		case nic.RDMA == nil:
		case nic.RDMA.Name == ends[0].rdma:
			want = append(want, nic.RDMA.Name+" hca_handle=max hca_object=max")
		default:
			want = append(want, nic.RDMA.Name+" hca_handle=0 hca_object=0")
		}
	}
	slices.Sort(want)
	for range 2 { // as the gates of two claims
		c.passGate(t)
		if got := c.limits(t); !slices.Equal(got, want) || len(got) < 2 {
			t.Fatalf("rdma.max has %q, want %q", got, want)
		}
	}

	out, err := c.inCgroup(ping(ends[1])).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "Couldn't get context") {
		t.Errorf("in the container %s is opened: %v: %s", ends[1].rdma, err, out)
	}
	t.Logf("the device of another: %v: %s", err, out)

	server := c.inCgroup(ping(ends[0]))
	var heard bytes.Buffer
	server.Stdout, server.Stderr = &heard, &heard
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Wait() }()
	eventually(t, func() string {
		if listening := said(t, "netstat", "-ltn"); !strings.Contains(listening, ":18515") {
			return "the server in the container does not listen"
		}
		return ""
	})
	out, err = ping(ends[1], "127.0.0.1").CombinedOutput()
	if err != nil {
		killed := server.Process.Kill()
		t.Fatalf("%v: %s\nthe server, killed (%v, %v): %s", err, out, killed, <-ended, heard.String())
	}
	if err := <-ended; err != nil {
		t.Errorf("the server in the container: %v: %s", err, heard.String())
	}
	if !strings.Contains(string(out), "20 iters in") {
		t.Errorf("the client outside of it says %s", out)
	}
}
