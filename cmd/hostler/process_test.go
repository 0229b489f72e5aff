package main

// The agent as a process: the test's own executable, copied beside a hook and
// started under the name hostler, is the command. So a start costs no build, and
// what the tests read is what an administrator reads.

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hostler-dev/hostler/test/machine"
)

// asCommand in the environment makes the test's executable the command.
const asCommand = "HOSTLER_TEST_AS_COMMAND=1"

func TestMain(m *testing.M) {
	name, value, _ := strings.Cut(asCommand, "=")
	if os.Getenv(name) == value {
		main()
		return
	}
	os.Exit(m.Run())
}

// node is a place for one agent to run in: a rendered machine without a driver,
// and directories for everything that a configuration can name.
type node struct {
	dir     string
	program string
	machine *machine.Rendered
}

func newNode(t *testing.T, options machine.RenderOptions) *node {
	t.Helper()
	// Socket paths have 107 characters at most, so the test's name stays out.
	dir, err := os.MkdirTemp("", "hostler")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	profile, err := machine.Load("workstation")
	if err != nil {
		t.Fatal(err)
	}
	n := &node{dir: dir, program: filepath.Join(dir, "bin", "hostler")}
	if n.machine, err = machine.Render(profile, filepath.Join(machine.TempDir(t), "machine"), options); err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, folder := range []string{"bin", "registry"} {
		if err := os.Mkdir(n.path(folder), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Link(self, n.program); err != nil { // another file system
		program, err := os.ReadFile(self)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(n.program, program, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	n.write(t, "bin/hostler-gate", "the hook, which nothing runs here")
	return n
}

func (n *node) path(name string) string { return filepath.Join(n.dir, name) }

func (n *node) write(t *testing.T, name, content string) string {
	t.Helper()
	if err := os.WriteFile(n.path(name), []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	return n.path(name)
}

// kubeconfig for an API server that no one asks for a certificate.
func (n *node) kubeconfig(t *testing.T, server string) string {
	t.Helper()
	return n.write(t, "kubeconfig", `apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "`+server+`"}}]
contexts: [{name: c, context: {cluster: c, user: u}}]
current-context: c
users: [{name: u, user: {}}]
`)
}

// flags keep the agent inside the node's directory; later ones beat earlier ones.
func (n *node) flags(more ...string) []string {
	return append([]string{
		"--node-name=n1", "--metrics-address=127.0.0.1:0",
		"--paths-sys=" + n.machine.Sys, "--paths-dev=" + n.machine.Dev, "--paths-driver-root=" + n.machine.DriverRoot,
		"--paths-cdi=" + n.path("cdi"), "--paths-state=" + n.path("state"), "--paths-run=" + n.path("run"),
		"--paths-gate=" + n.path("hooks/hostler-gate"), "--paths-cdi-hook=" + n.path("hooks/nvidia-cdi-hook"),
		"--paths-kubelet-plugins=" + n.path("plugins"), "--paths-kubelet-registry=" + n.path("registry"),
		"--paths-kubelet-pod-resources=" + n.path("pod-resources.sock"), "--paths-nri=" + n.path("nri.sock"),
		"--paths-cni-bin=" + n.path("cni"), "--paths-cni-cache=" + n.path("cni-cache"),
	}, more...)
}

// started is a running command and what it has said.
type started struct {
	command *exec.Cmd
	out     lines
	errs    lines
	ended   chan struct{}
	err     error
}

func (n *node) start(t *testing.T, command string, flags ...string) *started {
	t.Helper()
	return n.startWith(t, nil, command, flags...)
}

// startWith starts a command with more in its environment.
func (n *node) startWith(t *testing.T, environment []string, command string, flags ...string) *started {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	s := &started{command: exec.CommandContext(ctx, n.program, append([]string{command}, flags...)...), ended: make(chan struct{})}
	// The race detector's runtime else sleeps for a second at each exit.
	s.command.Env = []string{asCommand, "PATH=" + os.Getenv("PATH"), "HOME=" + n.dir, "GORACE=atexit_sleep_ms=0"}
	s.command.Env = append(s.command.Env, environment...)
	s.command.Stdout, s.command.Stderr = &s.out, &s.errs
	if err := s.command.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		s.err = s.command.Wait()
		close(s.ended)
	}()
	t.Cleanup(func() {
		cancel()
		<-s.ended
	})
	return s
}

// exit waits for the end and returns the exit status.
func (s *started) exit(t *testing.T) int {
	t.Helper()
	<-s.ended
	var failed *exec.ExitError
	if s.err != nil && !errors.As(s.err, &failed) {
		t.Fatal(s.err)
	}
	return s.command.ProcessState.ExitCode()
}

// says waits until a line of the log holds all words, and returns it.
func (s *started) says(t *testing.T, words ...string) string {
	t.Helper()
	for {
		if found := s.errs.with(words...); len(found) > 0 {
			return found[0]
		}
		select {
		case <-s.ended:
			t.Fatalf("it ended without saying %q:\n%s", words, s.errs.String())
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// lines collects output; it is written and read at the same time.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer
}

var _ io.Writer = (*lines)(nil)

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// with returns the lines that hold all words.
func (l *lines) with(words ...string) []string {
	var found []string
next:
	for line := range strings.Lines(l.String()) {
		for _, word := range words {
			if !strings.Contains(line, word) {
				continue next
			}
		}
		found = append(found, strings.TrimSpace(line))
	}
	return found
}
