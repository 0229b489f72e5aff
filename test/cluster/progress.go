package cluster

// Progress for people: one line per step, with how long it took.

import (
	"fmt"
	"io"
	"sync"
	"time"
)

type progress struct {
	mu  sync.Mutex
	out io.Writer
}

func newProgress(out io.Writer) *progress {
	if out == nil {
		out = io.Discard
	}
	return &progress{out: out}
}

func (p *progress) say(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	fmt.Fprintf(p.out, format+"\n", args...)
}

// begin returns a function that reports the step as done.
func (p *progress) begin(what string) (done func()) {
	began := time.Now()
	return func() { p.took(what, time.Since(began)) }
}

func (p *progress) took(what string, took time.Duration) {
	if took == 0 {
		p.say("  … %s", what)
		return
	}
	p.say("  ✓ %-58s %6.1fs", what, took.Seconds())
}
