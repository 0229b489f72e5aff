package cluster

// The cluster's long-running programs. Each is detached from its starter, writes
// to a log file of its own, joins the cluster's control group before it runs a
// single instruction of its own (so that nothing it forks can escape Stop), and
// is recorded by pid and start time, because a pid alone may have been reused.

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// component is one program of the cluster, such as "etcd" or "node1/kubelet".
type component struct {
	plan Plan
	name string
	argv []string
	env  []string
}

// process is a running component.
type process struct {
	component
	// exited is closed when the process ended; nil where another run started it.
	exited chan struct{}
	state  string
}

// ComponentError says which component failed and what its log said last.
type ComponentError struct {
	Component, Log, Tail string
	Err                  error
}

func (e *ComponentError) Error() string {
	return fmt.Sprintf("%s: %v; its log is %s and ends:\n%s", e.Component, e.Err, e.Log, e.Tail)
}

func (e *ComponentError) Unwrap() error { return e.Err }

func (c component) logPath() string {
	return c.plan.path("log", strings.ReplaceAll(c.name, "/", "-")+".log")
}
func (c component) pidPath() string { return c.plan.path("pid", strings.ReplaceAll(c.name, "/", "-")) }

func (c component) failure(err error) error {
	return &ComponentError{Component: c.name, Log: c.logPath(), Tail: tail(c.logPath(), 15), Err: err}
}

// start runs the component unless it runs already.
func (c component) start() (*process, error) {
	if _, alive := c.running(); alive {
		return &process{component: c}, nil
	}
	log, err := os.OpenFile(c.logPath(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, fmt.Errorf("open the log of %s: %w", c.name, err)
	}
	defer log.Close()
	join := append([]string{"-c", `for group in $GROUPS_TO_JOIN; do echo $$ > "$group/cgroup.procs"; done; unset GROUPS_TO_JOIN; exec "$@"`, "sh"}, c.argv...)
	cmd := exec.Command("/bin/sh", join...)
	cmd.Env = append(append(os.Environ(), c.env...),
		"GROUPS_TO_JOIN="+strings.Join(c.plan.systemCgroups(), " "), "PATH="+c.plan.searchPath())
	cmd.Stdout, cmd.Stderr, cmd.Dir = log, log, "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", c.name, err)
	}
	p := &process{component: c, exited: make(chan struct{})}
	go func() {
		// Reaps the process while its starter lives; afterwards init does.
		err := cmd.Wait()
		p.state = "it ended without an error"
		if err != nil {
			p.state = err.Error()
		}
		close(p.exited)
	}()
	started, err := startTime(cmd.Process.Pid)
	if err != nil {
		return nil, c.failure(errors.New("it ended at once"))
	}
	record := fmt.Sprintf("%d %d\n", cmd.Process.Pid, started)
	if err := os.WriteFile(c.pidPath(), []byte(record), 0o644); err != nil {
		return nil, fmt.Errorf("record the pid of %s: %w", c.name, err)
	}
	return p, nil
}

// patience is how long one question may take: an answer that is lost on the way
// must not cost all the time there is.
const patience = 5 * time.Second

// await polls until ready says yes; it gives up early when the process ends.
func (p *process) await(ctx context.Context, limit time.Duration, ready func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		asked, answered := context.WithTimeout(ctx, patience)
		last := ready(asked)
		answered()
		if last == nil {
			return nil
		}
		select {
		case <-p.exited:
			return p.failure(fmt.Errorf("ended before it was ready (%s)", p.state))
		case <-ctx.Done():
			return p.failure(fmt.Errorf("not ready after %s: %w", limit, last))
		case <-tick.C:
		}
	}
}

// running reads the record of an earlier start and says whether that process still lives.
func (c component) running() (pid int, alive bool) {
	record, err := os.ReadFile(c.pidPath())
	if err != nil {
		return 0, false
	}
	var started uint64
	if _, err := fmt.Sscan(string(record), &pid, &started); err != nil {
		return 0, false
	}
	now, err := startTime(pid)
	return pid, err == nil && now == started
}

// startTime is field 22 of /proc/<pid>/stat, in clock ticks after boot; a
// zombie counts as ended (proc_pid_stat(5)).
func startTime(pid int) (uint64, error) {
	stat, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return 0, err
	}
	// The command name may hold spaces and parentheses; the last one closes it.
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	if len(fields) < 20 || fields[0] == "Z" || fields[0] == "X" {
		return 0, fmt.Errorf("process %d has ended", pid)
	}
	return strconv.ParseUint(fields[19], 10, 64)
}

func (p Plan) searchPath() string {
	return p.Binaries + ":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
}

// tail returns a file's last lines, indented for an error message.
func tail(path string, lines int) string {
	content, err := os.ReadFile(path)
	if err != nil {
		return "  (" + err.Error() + ")"
	}
	all := strings.Split(strings.TrimRight(string(content), "\n"), "\n")
	if len(all) > lines {
		all = all[len(all)-lines:]
	}
	return "  " + strings.Join(all, "\n  ")
}
