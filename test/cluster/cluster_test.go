package cluster

// One real cluster of two nodes, asked what tests rely on, and then taken down:
// afterwards the machine must be as it was. It needs root and some minutes when
// nothing is built yet, so it runs on request only.

import (
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/hostler-dev/hostler/test/cluster/images"
)

func requireCluster(t *testing.T) {
	t.Helper()
	if os.Getenv("HOSTLER_E2E") != "1" {
		t.Skip("starts a real cluster; set HOSTLER_E2E=1 and run as root")
	}
	if os.Geteuid() != 0 {
		t.Skip(ErrNotRoot)
	}
}

// footprint is everything on the machine that a cluster could leave behind.
func footprint(t *testing.T) map[string][]string {
	t.Helper()
	found := map[string][]string{}
	links, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, link := range links {
		found["links"] = append(found["links"], link.Name)
	}
	for what, pattern := range map[string]string{
		"namespaces": netNSDir + "/*", "control groups": cgroupMount + "/*/*testbed*", "directories": stateRoot + "*/*",
	} {
		if found[what], err = filepath.Glob(pattern); err != nil {
			t.Fatal(err)
		}
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		found["mounts"] = append(found["mounts"], strings.Fields(line)[1])
	}
	tables, err := exec.Command("nft", "list", "tables").Output()
	if err != nil {
		t.Fatal(err)
	}
	found["nftables"] = strings.Split(string(tables), "\n")
	for _, key := range settings() {
		if value, err := os.ReadFile(filepath.Join("/proc/sys", key)); err == nil {
			found["settings"] = append(found["settings"], key+"="+string(value))
		}
	}
	processes, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range processes {
		pid, err := strconv.Atoi(filepath.Base(path))
		if err != nil {
			t.Fatal(err)
		}
		// One that has ended and waits for init to reap it is not left behind.
		if _, ended := startTime(pid); ended != nil {
			continue
		}
		if groups, err := os.ReadFile(filepath.Join(path, "cgroup")); err == nil && strings.Contains(string(groups), "hostler-testbed-selftest") {
			found["processes"] = append(found["processes"], path)
		}
	}
	slices.Sort(found["mounts"])
	return found
}

// kubectl runs one command, which must succeed, and returns its output.
func kubectl(t *testing.T, c *Cluster, args ...string) string {
	t.Helper()
	output, err := tryKubectl(c, args...)
	if err != nil {
		t.Fatalf("kubectl %s: %v\n%s", strings.Join(args, " "), err, output)
	}
	return output
}

func tryKubectl(c *Cluster, args ...string) (string, error) {
	cmd := exec.Command(filepath.Join(c.Binaries(), "kubectl"), args...)
	cmd.Env = append(os.Environ(), c.Env()...)
	output, err := cmd.CombinedOutput()
	return string(output), err
}

func TestClusterWorksAndLeavesNothing(t *testing.T) {
	requireCluster(t)
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Minute)
	defer cancel()
	before := footprint(t)
	c, err := Start(ctx, Options{Name: "selftest", Nodes: []NodeOptions{{Name: "one"}, {Name: "two"}}, Progress: t.Output()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := Down(context.WithoutCancel(ctx), c.Dir()); err != nil {
			t.Error(err)
		}
	})

	t.Run("a second start finds it up", func(t *testing.T) {
		began := time.Now()
		if _, err := Start(ctx, Options{Name: "selftest", Nodes: []NodeOptions{{Name: "one"}, {Name: "two"}}}); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("it took %s: it cannot have been found up", took)
		}
	})
	t.Run("a start after a crash starts what is missing and nothing else", func(t *testing.T) {
		etcd, _ := c.plan.etcd().running()
		kubelet, _ := c.plan.inNode(c.plan.Nodes[0], 0, "kubelet").running()
		if err := killAll(ctx, func() []int { return []int{kubelet} }); err != nil {
			t.Fatal(err)
		}
		again, err := Start(ctx, Options{Name: "selftest", Nodes: []NodeOptions{{Name: "one"}, {Name: "two"}}})
		if err != nil {
			t.Fatal(err)
		}
		if err := again.Check(ctx); err != nil {
			t.Error(err)
		}
		if now, _ := c.plan.etcd().running(); now != etcd {
			t.Errorf("etcd was process %d and is %d: the whole cluster was started afresh", etcd, now)
		}
	})
	t.Run("a start with other nodes is refused", func(t *testing.T) {
		if _, err := Start(ctx, Options{Name: "selftest", Nodes: []NodeOptions{{Name: "three"}}}); err == nil {
			t.Error("it was answered with a cluster of other nodes")
		}
	})
	for _, node := range c.Nodes() {
		kubectl(t, c, "run", "on-"+node.Name, "--image="+images.Busybox, "--image-pull-policy=Never",
			`--overrides={"spec":{"nodeName":"`+node.Name+`","terminationGracePeriodSeconds":0}}`, "--", "httpd", "-f", "-p", "[::]:8080", "-h", "/etc")
	}
	kubectl(t, c, "wait", "--for=condition=Ready", "pod", "--all", "--timeout=60s")
	kubectl(t, c, "expose", "pod", "on-two", "--name=two", "--port=80", "--target-port=8080")
	reach(t, c)
	t.Run("stop leaves nothing, even with a process entered from outside", func(t *testing.T) {
		stray := exec.Command("nsenter", "--net="+c.WorldNetNS(), "sleep", "infinity")
		if err := stray.Start(); err != nil {
			t.Fatal(err)
		}
		go stray.Wait()
		began := time.Now()
		if err := c.Stop(ctx); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took > 15*time.Second {
			t.Errorf("it took %s", took)
		}
		if diff := cmp.Diff(before, footprint(t)); diff != "" {
			t.Errorf("the machine is not as before (-before +after):\n%s", diff)
		}
	})
}

// reach asks from a pod for what every e2e test takes for granted.
func reach(t *testing.T, c *Cluster) {
	t.Helper()
	rows := []struct{ what, command, want string }{
		{"the API server's name resolves", "nslookup kubernetes.default.svc.cluster.local", "10."},
		{"the API server answers through its Service", "nc -w 3 kubernetes.default 443 </dev/null && echo open", "open"},
		{"a pod on the other node answers through its Service", "timeout 3 wget -qO- http://two/passwd", "nobody"},
		{"the world answers by name", "timeout 3 wget -qO- http://www.example.com/", "outside world"},
		{"the world answers over IPv6", "timeout 3 wget -qO- 'http://[2001:db8::7]/'", "outside world"},
		{"the metadata address answers", "timeout 3 wget -qO- http://169.254.169.254/", "outside world"},
		{"the pod has its service account's token", "wc -c < /var/run/secrets/kubernetes.io/serviceaccount/token", ""},
	}
	for _, row := range rows {
		t.Run(row.what, func(t *testing.T) {
			// kube-proxy learns of a Service some time after it was made.
			var output string
			var err error
			for deadline := time.Now().Add(20 * time.Second); ; {
				output, err = tryKubectl(c, "exec", "on-one", "--", "sh", "-c", row.command)
				if err == nil && strings.Contains(output, row.want) {
					return
				}
				if time.Now().After(deadline) {
					t.Fatalf("%s: got %q, %v; want %q in it", row.command, output, err, row.want)
				}
			}
		})
	}
}

func TestStopRemovesAHalfStartedCluster(t *testing.T) {
	requireCluster(t)
	before := footprint(t)
	ctx, cancel := context.WithCancel(t.Context())
	// The start is cut off as soon as the nodes' processes exist.
	interrupted := &cutter{when: "container runtime answers", cut: cancel}
	if _, err := Start(ctx, Options{Name: "selftest", Progress: interrupted}); err == nil {
		t.Error("the start was cut off and still succeeded")
	}
	if err := Down(t.Context(), StateDir("selftest")); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before, footprint(t)); diff != "" {
		t.Errorf("the machine is not as before (-before +after):\n%s", diff)
	}
}

// cutter calls cut at the first progress line that holds when.
type cutter struct {
	when string
	cut  func()
}

func (c *cutter) Write(line []byte) (int, error) {
	if strings.Contains(string(line), c.when) {
		c.cut()
	}
	return len(line), nil
}

func TestAFailureShowsTheComponentsLog(t *testing.T) {
	requireCluster(t)
	port, err := net.Listen("tcp", "127.0.0.1:23790")
	if err != nil {
		t.Skip("another cluster holds etcd's port of the first one")
	}
	defer port.Close()
	_, err = Start(t.Context(), Options{Name: "selftest"})
	t.Cleanup(func() {
		if err := Down(context.WithoutCancel(t.Context()), StateDir("selftest")); err != nil {
			t.Error(err)
		}
	})
	var failure *ComponentError
	if !errors.As(err, &failure) || failure.Component != "etcd" || !strings.Contains(err.Error(), "address already in use") {
		t.Errorf("got %v, want etcd's failure with its log", err)
	}
}
