package vm

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"time"
)

func TestStatusAndOutputOfSerialLines(t *testing.T) {
	var s status
	s.read(strings.NewReader("\x00noise\r\nstarted\r\nexit 3\r\n"), time.Now())
	if !s.started || !s.ended || s.exit != 3 {
		t.Errorf("status %+v, want started and ended with 3", s)
	}
	var out bytes.Buffer
	copyLines(&out, strings.NewReader("one\r\ntwo\r\nunfinished"))
	if want := "one\ntwo\nunfinished\n"; out.String() != want {
		t.Errorf("output %q, want %q", out.String(), want)
	}
}

func TestTailKeepsTheEnd(t *testing.T) {
	var console tail
	for range 3 {
		console.Write(bytes.Repeat([]byte("x"), tailBytes/2))
	}
	console.Write([]byte("\r\nthe end\r\n"))
	if got := console.String(); len(got) > tailBytes || !strings.HasSuffix(got, "x\nthe end") {
		t.Errorf("%d bytes kept, ending in %q", len(got), got[len(got)-20:])
	}
}

func TestReasonSaysWhyAndWhen(t *testing.T) {
	cancelled, cancel := context.WithCancel(context.Background())
	cancel()
	late, cancel := context.WithDeadline(context.Background(), time.Unix(0, 0))
	defer cancel()
	booting, running := status{}, status{started: true}
	exit := errors.New("exit status 1")
	for name, tc := range map[string]struct {
		ctx     context.Context
		err     error
		status  status
		console string
		want    string
	}{
		"a deadline":             {late, exit, running, "", "the time was up while the program ran"},
		"a cancelled run":        {cancelled, exit, booting, "", "the run was cancelled while it booted"},
		"a panic":                {context.Background(), nil, booting, "Kernel panic - not syncing", "the kernel panicked while it booted"},
		"QEMU refuses its flags": {context.Background(), exit, booting, "", "QEMU failed while it booted (exit status 1)"},
		"a power-off by the program": {context.Background(), nil, running, "reboot: Power down",
			"the machine powered off while the program ran"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := reason(tc.ctx, tc.err, tc.status, tc.console); got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}
