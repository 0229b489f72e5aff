package attach

// What CNI plugins keep for a pod, whatever goes wrong between ADD and the end of DEL: it
// is given back in the end, and until then something says that it is not.

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hostler-dev/hostler/netattach"
)

// leasing puts a plugin in place that keeps a lease on disk for each attachment, with
// the note of its configuration, and fails as often as there are files to say so.
func (n *node) leasing(t *testing.T, name string) {
	t.Helper()
	n.plugin(t, name, "")
	script := `#!/bin/sh
note=$(sed 's/.*"note":"\([a-z]*\)".*/\1/')
echo "` + name + ` $CNI_COMMAND $CNI_IFNAME $note" >> ` + n.calls() + `
for i in 1 2 3; do
  if rm ` + n.run + `/fail-$CNI_COMMAND-$i 2>/dev/null; then echo '{"cniVersion": "1.0.0", "code": 7, "msg": "no luck"}'; exit 1; fi
done
lease=` + n.run + `/state/$CNI_CONTAINERID-$CNI_IFNAME
case $CNI_COMMAND in
ADD) echo "$note" > $lease; echo '{"cniVersion": "1.0.0"}';;
DEL) rm -f $lease;;
esac
`
	if err := errors.Join(os.MkdirAll(filepath.Join(n.run, "state"), 0o755), os.WriteFile(filepath.Join(n.bin, name), []byte(script), 0o755)); err != nil {
		t.Fatal(err)
	}
}

// fail has the plugins fail the next times that they are told the command.
func (n *node) fail(t *testing.T, command string, times int) {
	t.Helper()
	for i := range times {
		if err := os.WriteFile(filepath.Join(n.run, fmt.Sprintf("fail-%s-%d", command, i+1)), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func noted(note string) netattach.NetworkIntent {
	wanted := network("a", "", "leases")
	wanted.Config = []byte(strings.Replace(string(wanted.Config), `"leases"`, `"leases","note":"`+note+`"`, 1))
	return wanted
}

// cacheFiles are those of libcni's cache.
func (n *node) cacheFiles(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(n.run, "cni", "results", "*"))
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// damage has the cache's files end in the middle, some time ago.
func (n *node) damage(t *testing.T) {
	t.Helper()
	files := n.cacheFiles(t)
	if len(files) == 0 {
		t.Fatal("there is nothing to damage")
	}
	for _, file := range files {
		before := time.Now().Add(-time.Hour)
		if err := errors.Join(os.Truncate(file, 10), os.Chtimes(file, before, before)); err != nil {
			t.Fatal(err)
		}
	}
}

// reboot leaves of the agent's files what is not on a tmpfs, and of the kernel's nothing.
func (n *node) reboot(t *testing.T) {
	t.Helper()
	if n.pod.Has(t, "net1") {
		carry(t, n.pod, "net1", n.host, "rail0")
		n.host.Up(t, "rail0")
	}
	if err := os.RemoveAll(filepath.Join(n.run, "attached")); err != nil {
		t.Fatal(err)
	}
	n.restart(t)
}

func TestNothingThatPluginsKeepIsForgotten(t *testing.T) {
	ctx := context.Background()
	detach := func(n *node) error { return n.attacher.DetachSandbox(ctx, "pod-1", "sandbox-1") }
	release := func(n *node) error { return n.attacher.Release(ctx, "claim-1") }
	reconcile := func(n *node) error { return n.attacher.Reconcile(ctx) }
	for name, test := range map[string]struct {
		// before the pod is attached, which it is unless that fails.
		before func(t *testing.T, n *node)
		// then goes wrong, and end undoes what can be. It says that something is left, if
		// there is.
		then func(t *testing.T, n *node)
		end  func(n *node) error
		says string
		// mend, if set, is what an administrator does. Later looks need no more than that.
		mend  func(t *testing.T, n *node)
		calls []string
	}{
		"all goes well": {nil, nil, detach, "", nil, []string{"ADD net1 old", "DEL net1 old"}},
		"DEL fails once": {nil, func(t *testing.T, n *node) { n.fail(t, "DEL", 1) }, detach, "no luck", nil,
			[]string{"ADD net1 old", "DEL net1 old", "DEL net1 old"}},
		"DEL fails once, for a claim that ends": {nil, func(t *testing.T, n *node) { n.fail(t, "DEL", 1); delete(n.intents, "claim-1") }, release, "no luck", nil,
			[]string{"ADD net1 old", "DEL net1 old", "DEL net1 old"}},
		"DEL fails once, and the agent is killed": {nil, func(t *testing.T, n *node) {
			n.fail(t, "DEL", 1)
			if err := detach(n); err == nil {
				t.Error("the failure is not told")
			}
			n.restart(t)
		}, reconcile, "", nil, []string{"ADD net1 old", "DEL net1 old", "DEL net1 old"}},
		"the definition is changed": {nil, func(_ *testing.T, n *node) {
			intent := n.intents["claim-1"]
			intent.Devices = slices.Clone(intent.Devices)
			intent.Devices[0].Networks = []netattach.NetworkIntent{noted("new")}
			n.intents["claim-1"] = intent
		}, detach, "", nil, []string{"ADD net1 old", "DEL net1 old"}},
		"the definition is changed, and the agent another": {nil, func(t *testing.T, n *node) {
			intent := n.intents["claim-1"]
			intent.Devices = slices.Clone(intent.Devices)
			intent.Devices[0].Networks = []netattach.NetworkIntent{noted("new")}
			n.intents["claim-1"] = intent
			n.restart(t)
		}, detach, "", nil, []string{"ADD net1 old", "DEL net1 old"}},
		"the definition and the claim are deleted": {nil, func(t *testing.T, n *node) { delete(n.intents, "claim-1"); n.restart(t) }, reconcile, "", nil,
			[]string{"ADD net1 old", "DEL net1 old"}},
		"the plugin is gone for a while": {nil, func(t *testing.T, n *node) {
			if err := os.Rename(filepath.Join(n.bin, "leases"), filepath.Join(n.run, "leases")); err != nil {
				t.Fatal(err)
			}
		}, detach, `failed to find plugin "leases"`, func(t *testing.T, n *node) {
			if err := os.Rename(filepath.Join(n.run, "leases"), filepath.Join(n.bin, "leases")); err != nil {
				t.Fatal(err)
			}
		}, []string{"ADD net1 old", "DEL net1 old"}},
		"the cache is damaged": {nil, func(t *testing.T, n *node) { n.damage(t) }, detach, "", nil, []string{"ADD net1 old", "DEL net1 old"}},
		"the cache is damaged, and DEL fails once": {nil, func(t *testing.T, n *node) { n.damage(t); n.fail(t, "DEL", 1) }, detach, "", nil,
			[]string{"ADD net1 old", "DEL net1 old", "DEL net1 old"}},
		"the cache is gone, and DEL fails twice": {nil, func(t *testing.T, n *node) {
			n.fail(t, "DEL", 2)
			if err := errors.Join(os.RemoveAll(filepath.Join(n.run, "cni")), detach(n)); err != nil {
				t.Error(err)
			}
		}, reconcile, "no luck", nil, []string{"ADD net1 old", "DEL net1 old", "DEL net1 old", "DEL net1 old"}},
		"ADD fails, and so do all its undoings": {func(t *testing.T, n *node) { n.fail(t, "ADD", 1); n.fail(t, "DEL", 3) }, nil, reconcile, "no luck", nil,
			[]string{"ADD net1 old", "DEL net1 old", "DEL net1 old", "DEL net1 old", "DEL net1 old"}},
		"the node is rebooted": {nil, func(t *testing.T, n *node) { n.reboot(t) }, reconcile, "", nil, []string{"ADD net1 old", "DEL net1 old"}},
		"the node is rebooted while ADD is under way": {func(t *testing.T, n *node) { n.fail(t, "ADD", 1); n.fail(t, "DEL", 2) }, func(t *testing.T, n *node) { n.reboot(t) }, reconcile, "", nil,
			[]string{"ADD net1 old", "DEL net1 old", "DEL net1 old", "DEL net1 old"}},
		"the node is rebooted with the cache damaged": {nil, func(t *testing.T, n *node) { n.damage(t); n.reboot(t) }, reconcile, "is damaged", func(t *testing.T, n *node) {
			n.called(t)
			for _, file := range append(n.cacheFiles(t), n.leases(t)...) { // as the error says
				if err := os.Remove(file); err != nil {
					t.Fatal(err)
				}
			}
		}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			n.leasing(t, "leases")
			device := n.device(t, "rail0", "net1", "10.1.0.5/24")
			device.Networks = []netattach.NetworkIntent{noted("old")}
			n.claim("claim-1", nil, device)
			host := n.host.Snapshot(t)
			if test.before != nil {
				test.before(t, n)
			}
			if err := n.attacher.Attach(ctx, n.sandbox); (err != nil) != (test.before != nil) {
				t.Fatal(err)
			} else if err != nil && !strings.Contains(err.Error(), "so did undoing it") {
				t.Errorf("the pod's error does not say that something is left: %v", err)
			}
			if test.then != nil {
				test.then(t, n)
			}
			err := test.end(n)
			if test.says == "" && err != nil || test.says != "" && (err == nil || !strings.Contains(err.Error(), test.says)) {
				t.Errorf("got %v, want an error that says %q", err, test.says)
			}
			if !n.host.Has(t, "rail0") {
				t.Error("the device is held up")
			}
			if states, err := n.attacher.InPods("claim-1"); err != nil || len(states) != 0 {
				t.Errorf("the pod is still said to have %+v, %v", states, err)
			}
			if test.mend != nil {
				test.mend(t, n)
			}
			for range 3 { // nobody asks for anything any more
				if err := reconcile(n); err != nil && strings.Contains(err.Error(), "damaged") {
					t.Error(err)
				}
			}
			if test.calls != nil {
				var calls []string
				for _, call := range n.called(t) {
					calls = append(calls, strings.TrimPrefix(call, "leases "))
				}
				equal(t, "calls", calls, test.calls...)
			}
			equal(t, "leases", n.leases(t))
			equal(t, "files of the cache", n.cacheFiles(t))
			if n.recordCount(t) != 0 {
				t.Errorf("%d records are left", n.recordCount(t))
			}
			n.host.Same(t, "in the end", host)
		})
	}
}
