package attach

// What cannot be looked at for a moment says nothing of what is there.

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"k8s.io/apimachinery/pkg/types"

	"github.com/hostler-dev/hostler/netattach"
	"github.com/hostler-dev/hostler/netattach/internal/nettest"
)

// obstruct has the path lead nowhere that can be told, and returns how to clear it up.
func obstruct(t *testing.T, path string) (clearUp func()) {
	t.Helper()
	if err := errors.Join(os.Rename(path, path+".away"), os.Symlink(path, path)); err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := os.Rename(path+".away", path); err != nil {
			t.Fatal(err)
		}
	}
}

// What hinders the agent in asking plugins is not what they say, and they are asked
// once it has passed.
func TestPluginsAreAskedOnceTheyCanBe(t *testing.T) {
	over, end := context.WithCancel(context.Background())
	end()
	for name, test := range map[string]struct {
		ctx      context.Context
		hindered func(n *node) (path string) // "" for nothing but the context
	}{
		"the pod's namespace cannot be opened": {context.Background(), func(n *node) string { return n.sandbox.NetNS }},
		"the record cannot be read": {context.Background(), func(n *node) string {
			return filepath.Join(n.run, "attached", "claim-1-pod-1.json")
		}},
		"the agent ends": {over, func(*node) string { return "" }},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			fails := n.checking(t)
			n.claim("claim-1", nil, n.withNetworks(t, "rail0", "net1", "10.1.0.5/24", network("a", "", "asked")))
			n.attach(t)
			n.restart(t)
			var told []string
			n.attacher.cfg.Checked = func(_ netattach.PodReference, _ types.UID, wrong string) { told = append(told, wrong) }
			n.called(t)
			clearUp := func() {}
			if path := test.hindered(n); path != "" {
				clearUp = obstruct(t, path)
			}
			for range 2 {
				if err := n.attacher.CheckAdopted(test.ctx); (err == nil) != (test.ctx.Err() != nil) {
					t.Errorf("while it lasts: %v", err)
				}
			}
			clearUp()
			if len(told)+len(n.called(t))+len(n.faults(t)) != 0 {
				t.Errorf("while it lasted: told %q, on record %v", told, n.faults(t))
			}
			if err := os.WriteFile(fails, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			n.reconcile(t)
			equal(t, "after that", n.called(t), "asked CHECK net1")
			if len(told) != 1 || len(n.faults(t)) != 1 {
				t.Errorf("after that: told %q, on record %v", told, n.faults(t))
			}
		})
	}
}

func TestWhichNamespaceARecordIsOf(t *testing.T) {
	own, other := nettest.New(t), nettest.New(t)
	namespace, err := namespaceOf(own.FD)
	if err != nil {
		t.Fatal(err)
	}
	directory := t.TempDir()
	link := func(name, to string) string {
		path := filepath.Join(directory, name)
		if err := os.Symlink(to, path); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for name, test := range map[string]struct {
		record Record
		in     bool
	}{
		"it is there": {Record{NetNS: own.Path, NetNSInode: namespace.inode}, true},
		"another is":  {Record{NetNS: other.Path, NetNSInode: namespace.inode + 1}, false},
		"it is gone, and its number is another's":   {Record{NetNS: link("gone", "/nowhere"), NetNSInode: namespace.inode}, false},
		"its path leads to another now":             {Record{NetNS: other.Path, NetNSInode: namespace.inode}, false},
		"its path cannot be opened at present":      {Record{NetNS: link("loop", filepath.Join(directory, "loop")), NetNSInode: namespace.inode}, true},
		"another's path cannot be opened":           {Record{NetNS: filepath.Join(directory, "loop"), NetNSInode: namespace.inode + 1}, false},
		"the host's, of which records have no path": {Record{NetNSInode: namespace.inode}, true},
	} {
		if got := test.record.in(namespace); got != test.in {
			t.Errorf("%s: %v, want %v", name, got, test.in)
		}
	}
}

func TestPodWhoseNamespaceCannotBeOpenedKeepsWhatItHas(t *testing.T) {
	n := newNode(t)
	n.claim("claim-1", nil, n.device(t, "rail0", "net1", "10.1.0.5/24"))
	n.attach(t)
	clearUp := obstruct(t, n.sandbox.NetNS)
	if err := n.attacher.Admit(context.Background(), Container{Sandbox: n.sandbox, Claim: "claim-1"}, n.pod.FD); err != nil {
		t.Errorf("its next container: %v", err)
	}
	if err := n.attacher.Reconcile(context.Background()); err == nil {
		t.Error("nobody is told that it cannot be opened")
	}
	clearUp()
	if record, found, err := n.attacher.records.read("claim-1", "pod-1"); err != nil || !found || record.State != StateAttached || !n.pod.Has(t, "net1") {
		t.Errorf("%v; its record is %+v", err, record)
	}
}
