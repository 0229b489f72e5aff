package main

// Commands of the story. They go to bash at the root of the tree, with the
// environment that `. .run/env` gives a user, so what is shown can be typed again.

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/hostler-dev/hostler/test/cluster"
)

// patience is how long the demo waits for what should take a second or two.
const patience = 90 * time.Second

// errAnswered marks a command that should have failed.
var errAnswered = errors.New("it succeeded, and should not have")

// run shows a command and what it answers.
func (s *story) run(ctx context.Context, command string) (string, error) {
	s.command(command)
	out, err := s.shell(ctx, command)
	s.output(out)
	return out, err
}

// refused runs a command that must fail.
func (s *story) refused(ctx context.Context, command string) (string, error) {
	out, err := s.run(ctx, command)
	var exit *exec.ExitError
	switch {
	case err == nil:
		return out, fmt.Errorf("$ %s\n%w", command, errAnswered)
	case errors.As(err, &exit):
		return out, nil
	}
	return out, err
}

// quietly runs a command that no reader needs to see unless it fails.
func (s *story) quietly(ctx context.Context, command string) error {
	out, err := s.shell(ctx, command)
	if err != nil {
		return fmt.Errorf("%w\n%s", err, strings.TrimSpace(out))
	}
	return nil
}

// shell returns stdout and stderr together, as a terminal shows them.
func (s *story) shell(ctx context.Context, command string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*patience)
	defer cancel()
	// pipefail: kubectl's failure counts, not the filter's success.
	cmd := exec.CommandContext(ctx, "bash", "-o", "pipefail", "-c", command)
	cmd.Dir = s.tree
	cmd.Env = append(os.Environ(), s.cluster.Env()...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.WaitDelay = time.Second // bash's children may outlive it and hold its output
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("$ %s\nfailed: %w", command, err)
	}
	return out.String(), nil
}

// expect fails the chapter whose output lacks what it promised.
func expect(out, want, promise string) error {
	if !strings.Contains(out, want) {
		return fmt.Errorf("%s: the output above lacks %q", promise, want)
	}
	return nil
}

// fetcher is what gets a URL here: busybox is among the packages that test/deps.sh installs, curl may be missing.
func fetcher() string {
	if _, err := exec.LookPath("curl"); err == nil {
		return "curl -s"
	}
	return "busybox wget -qO-"
}

// lookCloser says where a failed demo can be examined.
func (s *story) lookCloser() {
	s.title("The demo failed; the error is below. To look closer:")
	if s.cluster == nil {
		s.output("make demo          start again: it goes on where it can\nmake demo-down     remove what was started\nls " + filepath.Join(cluster.StateDir(cluster.DefaultName), "log"))
		return
	}
	s.output(fmt.Sprintf(`. %s
kubectl -n %s get pods,resourceclaims,events
kubectl -n %s logs ds/hostler --tail=50
ls %s`, envFile, namespace, cluster.AgentNamespace, filepath.Join(s.cluster.Dir(), "log")))
}
