package main

// What the agent costs when nothing happens: at default intervals it samples,
// probes and answers the kubelet's probes.

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// idle is how long the agent is left alone. One tick of process times, 10 ms,
// is then a third of a millicore.
const idle = 30 * time.Second

// ticksPerSecond of /proc/<pid>/stat: USER_HZ is 100 on every architecture
// that Kubernetes runs on (proc_pid_stat(5), sysconf(_SC_CLK_TCK)).
const ticksPerSecond = 100

func measureIdle(ctx context.Context, b *bed, results []*Result) error {
	rss, cpu := results[0], results[1]
	pid, err := b.agent()
	if err != nil {
		return err
	}
	if err := pause(ctx, 5*time.Second); err != nil { // the start's own work is over
		return err
	}
	before, err := processorTicks(pid)
	if err != nil {
		return err
	}
	began := time.Now()
	if err := pause(ctx, idle); err != nil {
		return err
	}
	after, err := processorTicks(pid)
	if err != nil {
		return err
	}
	cpu.Set(float64(after-before)/ticksPerSecond/time.Since(began).Seconds()*1000, 1)
	cpu.Note = fmt.Sprintf("user and system time over %.0f s at default intervals", idle.Seconds())
	total, err := memory(pid, "VmRSS")
	if err != nil {
		return err
	}
	own, err := memory(pid, "RssAnon")
	if err != nil {
		return err
	}
	rss.Set(total, 1)
	rss.Note = fmt.Sprintf("VmRSS after %.0f s idle; %.0f MiB of it anonymous, the rest pages of files", idle.Seconds(), own)
	return nil
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(d):
		return nil
	}
}

// processorTicks is utime+stime.
func processorTicks(pid int) (uint64, error) {
	path := fmt.Sprintf("/proc/%d/stat", pid)
	raw, err := os.ReadFile(path)
	if err != nil {
		return 0, fmt.Errorf("read the agent's times: %w", err)
	}
	return ticksOf(raw)
}

// ticksOf reads the text of /proc/<pid>/stat, whose second field is a name in
// parentheses that may hold anything; utime and stime are fields 14 and 15.
func ticksOf(stat []byte) (uint64, error) {
	end := bytes.LastIndexByte(stat, ')')
	fields := strings.Fields(string(stat[end+1:]))
	if end < 0 || len(fields) < 13 {
		return 0, fmt.Errorf("the kernel's line about the agent is %q, without process times", stat)
	}
	user, err := strconv.ParseUint(fields[11], 10, 64)
	if err != nil {
		return 0, fmt.Errorf("user time: %w", err)
	}
	system, err := strconv.ParseUint(fields[12], 10, 64)
	if err != nil {
		return 0, fmt.Errorf("system time: %w", err)
	}
	return user + system, nil
}

// memory is a line of /proc/<pid>/status in MiB.
func memory(pid int, line string) (float64, error) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, fmt.Errorf("read the agent's memory: %w", err)
	}
	for text := range strings.Lines(string(raw)) {
		if rest, found := strings.CutPrefix(text, line+":"); found {
			kib, err := strconv.ParseFloat(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 64)
			if err != nil {
				return 0, fmt.Errorf("%s of the agent: %w", line, err)
			}
			return kib / 1024, nil
		}
	}
	return 0, fmt.Errorf("the kernel does not say the agent's %s", line)
}
