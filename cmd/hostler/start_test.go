package main

// What the agent answers to a node on which it cannot run, and what it does on
// one where something is missing that may come: that is a state, not an end.

import (
	"bufio"
	"encoding/base64"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hostler-dev/hostler/netattach/gate"
	"github.com/hostler-dev/hostler/test/machine"
)

func TestAgentThatCannotStartSaysWhyOnce(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	n := newNode(t, machine.RenderOptions{NoDriver: true})
	config := "--kubeconfig=" + n.kubeconfig(t, "https://"+closedPort(t))
	// No one can make a directory under a file, root included.
	under := n.write(t, "file", "not a kubeconfig") + "/x"

	for name, test := range map[string]struct {
		flags []string
		says  []string
	}{
		"no kubeconfig and no service account":      {nil, []string{"no --kubeconfig is given", "no pod with a service account", "`hostler topology` works without a cluster"}},
		"a kubeconfig that is not there":            {[]string{"--kubeconfig=" + n.path("absent")}, []string{n.path("absent"), "no such file", "correct the file or --kubeconfig"}},
		"a kubeconfig that is none":                 {[]string{"--kubeconfig=" + n.path("file")}, []string{n.path("file") + " cannot be used", "correct the file or --kubeconfig"}},
		"a state directory that cannot be made":     {[]string{config, "--paths-state=" + under}, []string{n.path("file") + ": not a directory", "check paths.state"}},
		"a run directory that cannot be made":       {[]string{config, "--paths-run=" + under}, []string{n.path("file") + ": not a directory", "check paths.run"}},
		"a place for the gate that cannot be made":  {[]string{config, "--paths-gate=" + under + "/gate"}, []string{n.path("file") + ": not a directory", "check paths.gate"}},
		"a plugin directory that cannot be made":    {[]string{config, "--paths-kubelet-plugins=" + under}, []string{n.path("file") + ": not a directory", "check paths.kubeletPlugins"}},
		"a registry of the kubelet that is absent":  {[]string{config, "--paths-kubelet-registry=" + n.path("absent")}, []string{n.path("absent"), "no such file", "check paths.kubeletPlugins and paths.kubeletRegistry"}},
		"a plugin directory with too long a socket": {[]string{config, "--paths-kubelet-plugins=/" + strings.Repeat("x", 100)}, []string{"longer than the 107 characters", "set paths.kubeletPlugins to a shorter one"}},
		"a metrics port that is taken":              {[]string{config, "--metrics-address=" + taken.Addr().String()}, []string{taken.Addr().String(), "address already in use", "choose another metrics.address or stop what listens there"}},
	} {
		t.Run(name, func(t *testing.T) {
			agent := n.start(t, "agent", n.flags(test.flags...)...)
			if status := agent.exit(t); status != 1 {
				t.Errorf("exit status %d, want 1", status)
			}
			last := agent.errs.with("hostler: ")
			if len(last) != 1 {
				t.Fatalf("%d lines say why, want one:\n%s", len(last), agent.errs.String())
			}
			for _, words := range test.says {
				if !strings.Contains(last[0], words) {
					t.Errorf("it does not say %q: %s", words, last[0])
				}
			}
		})
	}
}

func TestAgentWithoutAPIServerDriverAndRuntimeWaitsForThem(t *testing.T) {
	n := newNode(t, machine.RenderOptions{NoDriver: true})
	server := "https://" + closedPort(t)
	// At verbosity 6 client-go logs its requests, which are counted below.
	agent := n.start(t, "agent", n.flags("--kubeconfig="+n.kubeconfig(t, server), "--logging-verbosity=6")...)
	address := regexp.MustCompile(`address="([^"]+)"`).FindStringSubmatch(agent.says(t, "Serving metrics and health"))[1]
	agent.says(t, "The machine's inventory changed", `driver="Missing"`, "no NVML library was found", "install the NVIDIA driver")
	agent.says(t, "Nothing can be published yet", server+" does not answer", "check the network and the kubeconfig")

	// A runtime without NRI has no socket of it, and its pods are attached by the gate.
	if _, page := get(t, "http://"+address+"/readyz"); !strings.Contains(page, "nri") || strings.Contains(page, "[-]nri") {
		t.Errorf("readiness wants a runtime that has NRI:\n%s", page)
	}
	if err := os.WriteFile(n.path("nri.sock"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	status, page := get(t, "http://"+address+"/readyz")
	if status == http.StatusOK || !strings.Contains(page, "[-]api-server failed: the API server "+server+" does not answer") || !strings.Contains(page, "[-]nri failed") {
		t.Errorf("readiness answers %d and does not name what is missing:\n%s", status, page)
	}
	if status, page := get(t, "http://"+address+"/healthz"); status != http.StatusOK {
		t.Errorf("liveness answers %d, so that the kubelet restarts the agent for what a restart does not mend:\n%s", status, page)
	}
	if answer := askGate(t, n.path("run/gate.sock"), gate.Question{PodUID: "the-pod"}); answer.OK || !strings.Contains(answer.Reason, "named no claim") {
		t.Errorf("the gate answers %+v to a question without a claim, want a refusal that says so", answer)
	}

	requests := func() int { return len(agent.errs.with("/api/v1/nodes/n1", `verb="GET"`)) }
	for requests() < 6 {
		select {
		case <-agent.ended:
			t.Fatalf("it ended:\n%s", agent.errs.String())
		case <-time.After(10 * time.Millisecond):
		}
	}
	for _, message := range []string{"Nothing can be published yet", "The node's condition or taint is out of date"} {
		if said := agent.errs.with(message); len(said) != 1 {
			t.Errorf("%d requests failed alike, and %q is said %d times, want once:\n%s", requests(), message, len(said), strings.Join(said, "\n"))
		}
	}
	if told := agent.errs.with("NRI is not connected"); len(told) == 0 {
		t.Error("nothing says that NRI is not connected")
	}
}

// A CNI plugin that hangs is waited for by the reconciliation alone.
func TestNoServerWaitsForACNIPluginThatHangs(t *testing.T) {
	n := newNode(t, machine.RenderOptions{NoDriver: true})
	boot, err := bootID()
	if err != nil {
		t.Fatal(err)
	}
	for _, folder := range []string{"run/attached", "cni", "cni-cache/results"} {
		if err := os.MkdirAll(n.path(folder), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	n.write(t, "run/attached/claim-1-pod-1.json", `{"state":"Attached","bootID":"`+boot+`","sandboxID":"sandbox1","pod":{"uid":"pod-1"},
		"intent":{"claimUID":"claim-1","devices":[{"hostName":"rail0","hostMAC":"02:00:00:00:00:01","networks":[{"namespace":"ns","name":"net"}]}]}}`)
	config := base64.StdEncoding.EncodeToString([]byte(`{"cniVersion":"1.0.0","name":"net","plugins":[{"type":"hangs"}]}`))
	n.write(t, "cni-cache/results/net-sandbox1-net1", `{"kind":"cniCacheV1","containerId":"sandbox1","config":"`+config+`","ifName":"net1","networkName":"net"}`)
	n.write(t, "cni/hangs", "#!/bin/sh\necho $$ > "+n.path("pid.new")+"; mv "+n.path("pid.new")+" "+n.path("pid")+"\nexec sleep 60\n")
	if err := os.Chmod(n.path("cni/hangs"), 0o755); err != nil {
		t.Fatal(err)
	}

	agent := n.start(t, "agent", n.flags("--kubeconfig="+n.kubeconfig(t, "https://"+closedPort(t)))...)
	var raw []byte
	for len(raw) == 0 {
		select {
		case <-agent.ended:
			t.Fatalf("it ended:\n%s", agent.errs.String())
		case <-time.After(10 * time.Millisecond):
			raw, _ = os.ReadFile(n.path("pid")) // not there yet
		}
	}
	plugin, err := strconv.Atoi(strings.TrimSpace(string(raw)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Kill(plugin, unix.SIGKILL) })
	address := regexp.MustCompile(`address="([^"]+)"`).FindStringSubmatch(agent.says(t, "Serving metrics and health"))[1]
	get(t, "http://"+address+"/healthz")
	askGate(t, n.path("run/gate.sock"), gate.Question{PodUID: "the-pod"})
	if err := unix.Kill(plugin, 0); err != nil {
		t.Errorf("the servers answered once the plugin had ended (%v), want before", err)
	}
}

func TestTopologyNamesTheDriversState(t *testing.T) {
	for name, test := range map[string]struct {
		options machine.RenderOptions
		library func(t *testing.T, n *node)
		says    []string
	}{
		"no driver":                            {machine.RenderOptions{NoDriver: true}, nil, []string{"Driver missing", "libnvidia-ml.so.1 is in none of the folders", "install the NVIDIA driver or set the driver root"}},
		"a driver before Hostler's oldest":     {machine.RenderOptions{NoDriver: true}, emptyLibrary, []string{"Driver failed", "too old", "lacks the function nvmlInit_v2", "needs NVIDIA driver 450 or newer"}},
		"a library that is none":               {machine.RenderOptions{NoDriver: true}, brokenLibrary, []string{"Driver failed", "load the NVML library"}},
		"a driver without NVML's newest calls": {machine.RenderOptions{OldDriver: true}, nil, []string{"GPU1:  gpu-0000-65-00-0", "Driver 570.124.06"}},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t, test.options)
			if test.library != nil {
				test.library(t, n)
			}
			topology := n.start(t, "topology", n.flags()...)
			if status := topology.exit(t); status != 0 {
				t.Fatalf("exit status %d:\n%s", status, topology.errs.String())
			}
			for _, words := range append(test.says, "NIC1:  mlx5_0") {
				if !strings.Contains(topology.out.String(), words) {
					t.Errorf("it does not say %q:\n%s", words, topology.out.String())
				}
			}
		})
	}
}

// emptyLibrary has none of NVML's functions.
func emptyLibrary(t *testing.T, n *node) {
	t.Helper()
	brokenLibrary(t, n)
	source := n.write(t, "empty.c", "")
	if out, err := exec.Command("gcc", "-shared", "-o", filepath.Join(n.machine.DriverRoot, "usr/lib64/libnvidia-ml.so.1"), source).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

// brokenLibrary is not even a library.
func brokenLibrary(t *testing.T, n *node) {
	t.Helper()
	path := filepath.Join(n.machine.DriverRoot, "usr/lib64/libnvidia-ml.so.1")
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("cut off in the middle"), 0o755); err != nil {
		t.Fatal(err)
	}
}

// closedPort is a loopback address that refuses connections: bound, so that no
// one else gets it, and not listened on.
func closedPort(t *testing.T) string {
	t.Helper()
	socket, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(socket) })
	if err := unix.Bind(socket, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	bound, err := unix.Getsockname(socket)
	if err != nil {
		t.Fatal(err)
	}
	return (&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: bound.(*unix.SockaddrInet4).Port}).String()
}

func get(t *testing.T, url string) (status int, page string) {
	t.Helper()
	response, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(body)
}

// askGate asks as the hook does, with this process's own network namespace.
func askGate(t *testing.T, socket string, question gate.Question) gate.Answer {
	t.Helper()
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	namespace, err := os.Open("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	defer namespace.Close()
	text, err := json.Marshal(question)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := conn.WriteMsgUnix(append(text, '\n'), unix.UnixRights(int(namespace.Fd())), nil); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(conn).ReadBytes('\n')
	if err != nil {
		t.Fatal(err)
	}
	var answer gate.Answer
	if err := json.Unmarshal(line, &answer); err != nil {
		t.Fatal(err)
	}
	return answer
}
