package driver

import (
	"errors"
	"os"
	"strings"
	"testing"

	"k8s.io/client-go/kubernetes/fake"

	"github.com/hostler-dev/hostler/driver/cdi"
	"github.com/hostler-dev/hostler/driver/claim"
	"github.com/hostler-dev/hostler/driver/publish"
)

// Journal and CDI specs are damaged under running pods. The agent starts, tells it by an
// event on the node, and has the claims again from the API server.
func TestLostJournalIsToldAndCompleted(t *testing.T) {
	c := claimOn("a", publish.GPUPool(node), "gpu-0000-20-00-0")
	paths, client, events := pathsIn(t), fake.NewClientset(c), &eventLog{}
	before, _ := newDriver(t, client, paths)
	before.SetSnapshot(machineOf(2))
	if err := prepareOnly(before, c); err != nil {
		t.Fatal(err)
	}
	spec := cdi.Directory{Path: paths.CDI}.File(c.UID)
	if err := errors.Join(os.WriteFile(journalPath(paths), []byte("damaged"), 0o600), os.WriteFile(spec, []byte("{"), 0o600)); err != nil {
		t.Fatal(err)
	}
	d, recorder := newDriver(t, client, paths, func(cfg *Config) { cfg.Events = events })
	d.tellRecoveries()
	if len(events.lines) != 1 || !strings.HasPrefix(events.lines[0], "v1 Node /"+node+" "+node+": Warning JournalDamaged: ") || !strings.Contains(events.lines[0], journalPath(paths)+".damaged-") {
		t.Errorf("events %q", events.lines)
	}
	d.SetSnapshot(machineOf(2))
	reconciling(t, d, recorder, c)
	if entry := d.cfg.Journal.Entry(c.UID); entry == nil || d.cfg.Journal.Incomplete() {
		t.Errorf("entry %+v, incomplete %v", entry, d.cfg.Journal.Incomplete())
	}
	if raw, err := os.ReadFile(spec); err != nil || !strings.Contains(string(raw), "nvidia") {
		t.Errorf("the CDI spec: %s, %v", raw, err)
	}
}

// A release leaves alone what a later version prepared, with force and in a dry run too.
func TestReleaseLeavesClaimsOfALaterVersion(t *testing.T) {
	n := abandon(t)
	directory := cdi.Directory{Path: n.paths.CDI}
	raw, err := os.ReadFile(directory.File("uid-gpu"))
	if err != nil {
		t.Fatal(err)
	}
	changed := strings.ReplaceAll(string(raw), `{\"claimUID\":\"uid-gpu\"`, `{\"apiVersion\":\"journal.hostler.dev/v9\",\"kind\":\"Journal\",\"claimUID\":\"uid-gpu\"`)
	if changed == string(raw) {
		t.Fatalf("the spec carries no entry: %s", raw)
	}
	if err := errors.Join(os.Remove(journalPath(n.paths)), os.WriteFile(directory.File("uid-gpu"), []byte(changed), 0o600)); err != nil {
		t.Fatal(err)
	}
	for _, dry := range []bool{true, false} {
		left := n.release(t, n.driver(t, "boot"), ReleaseOptions{Force: true, DryRun: dry})
		var later *claim.LaterError
		if len(left) != 1 || !errors.As(left["uid-gpu"], &later) || later.Version != "v9" {
			t.Errorf("dry run %v: left %v", dry, left)
		}
	}
	if _, err := os.Stat(directory.File("uid-gpu")); err != nil {
		t.Errorf("its CDI spec: %v", err)
	}
}
