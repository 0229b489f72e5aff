package multus

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// What is begun is on disk before the first plugin is run, and plugins are not told.
func TestChainIsWrittenDownBeforeItIsRun(t *testing.T) {
	b, a := answering(t, "1.0.0", "ADD", `ls $LOOK > $LOOK/seen; echo "$CNI_ARGS" >> $LOOK/args`)
	look := filepath.Join(b.cache, "results")
	if err := os.MkdirAll(look, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("LOOK", look)
	b.add(t, a)
	for file, want := range map[string]string{"seen": "rail-sandbox1-net1", "args": "HOSTLER_OWNER=claim1/ns/net"} {
		raw, err := os.ReadFile(filepath.Join(look, file))
		if err != nil || !strings.Contains(string(raw), want) || strings.Contains(string(raw), begunArgument) {
			t.Errorf("the plugin sees %s %q, %v; want %q", file, raw, err, want)
		}
	}
	known, err := b.cached("sandbox1", "rail", "net1")
	if err != nil || known == nil || isBegun(known) {
		t.Errorf("after ADD the cache has %+v, %v; want it complete", known, err)
	}
}

func TestNamesThatAreNoFilesNamesAreRefused(t *testing.T) {
	for name, change := range map[string]func(*Attachment){
		"a network's": func(a *Attachment) {
			a.Network.Config = []byte(strings.Replace(string(a.Network.Config), `"rail"`, `"../rail"`, 1))
		},
		"a sandbox's":    func(a *Attachment) { a.SandboxID = "../s" },
		"an interface's": func(a *Attachment) { a.Interface = "../net1" },
	} {
		b, a := newBed(t, ""), attachment(t)
		change(&a)
		if _, err := b.Add(context.Background(), a); err == nil || !strings.Contains(err.Error(), "ns/net") {
			t.Errorf("%s: got %v, want a refusal that names the definition", name, err)
		}
		if files, _ := filepath.Glob(filepath.Join(b.cache, "*", "*")); len(files) != 0 {
			t.Errorf("%s: written %v", name, files)
		}
	}
}

func TestCacheThatCannotBeReadIsNamed(t *testing.T) {
	b := newBed(t, "")
	b.add(t, attachment(t))
	long := time.Now().Add(-time.Hour)
	for file, age := range map[string]time.Time{
		"results/rail-sandbox7-net1": long, "results/rail-sandbox8-net1": time.Now(), begunPrefix + "1": long, begunPrefix + "2": time.Now(),
	} {
		path := filepath.Join(b.cache, file)
		if err := os.WriteFile(path, []byte("{"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, age, age); err != nil {
			t.Fatal(err)
		}
	}
	err := b.Collect(context.Background(), &keeper{kept: map[string]bool{"sandbox1/claim1": true}})
	if err == nil || !strings.Contains(err.Error(), "rail-sandbox7-net1 is damaged") || strings.Contains(err.Error(), "sandbox8") || strings.Contains(err.Error(), "sandbox1-") {
		t.Errorf("got %v, want the damaged file alone, and not one that may be being written", err)
	}
	left, err := filepath.Glob(filepath.Join(b.cache, begunPrefix+"*"))
	if err != nil || len(left) != 1 || !strings.HasSuffix(left[0], "2") {
		t.Errorf("left of killed writers: %v, %v; want the one that may be at work", left, err)
	}
}
