package multus

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// answering is a chain of one plugin that does what the script says on that command.
func answering(t *testing.T, version, command, script string) (b bed, a Attachment) {
	t.Helper()
	b = bed{cache: t.TempDir(), log: filepath.Join(t.TempDir(), "log")}
	bin := t.TempDir()
	content := "#!/bin/sh\necho \"first $CNI_COMMAND $CNI_IFNAME $CNI_NETNS $(cat)\" >> " + b.log + "\nif [ \"$CNI_COMMAND\" = " + command + " ]; then " + script + "\nfi\nif [ \"$CNI_COMMAND\" = ADD ]; then echo '{\"cniVersion\":\"" + version + "\"}'; fi\n"
	if err := os.WriteFile(filepath.Join(bin, "first"), []byte(content), 0o755); err != nil {
		t.Fatal(err)
	}
	b.Chain = New(Config{Bin: []string{bin}, Cache: b.cache})
	return b, attachmentOf(t, `{"cniVersion":"`+version+`","name":"rail","type":"first"}`, wanted("net"))
}

func TestPluginsAreAskedWhetherTheyAreReady(t *testing.T) {
	says := func(code string) string {
		return `echo '{"cniVersion":"1.1.0","code":` + code + `,"msg":"the daemon is starting"}'; exit 1`
	}
	for name, test := range map[string]struct {
		version, script string
		calls, fails    string
	}{
		"one that is ready":                    {"1.1.0", "exit 0", "first STATUS, first ADD", ""},
		"one that is not":                      {"1.1.0", says("50"), "first STATUS", "the daemon is starting"},
		"one with limited connectivity":        {"1.1.0", says("51"), "first STATUS", "the daemon is starting"},
		"one that does not know the question":  {"1.1.0", says("4"), "first STATUS, first ADD", ""},
		"one that fails without a word":        {"1.1.0", "exit 3", "first STATUS, first ADD", ""},
		"one of an older version is not asked": {"1.0.0", says("50"), "first ADD", ""},
	} {
		t.Run(name, func(t *testing.T) {
			b, a := answering(t, test.version, "STATUS", test.script)
			_, err := b.Add(context.Background(), a)
			if test.fails == "" && err != nil || test.fails != "" && (err == nil || !strings.Contains(err.Error(), test.fails) || !strings.Contains(err.Error(), "ns/net is not ready on this node")) {
				t.Errorf("got %v, want an error that says %q", err, test.fails)
			}
			if got := who(calls(t, b.log)); got != test.calls {
				t.Errorf("calls were %s, want %s", got, test.calls)
			}
			files, err := os.ReadDir(b.cache)
			if err != nil || test.fails != "" && len(files) != 0 {
				t.Errorf("the cache of what was not begun has %v, %v", files, err)
			}
		})
	}
}

func TestCheck(t *testing.T) {
	const fails = `echo '{"cniVersion":"1.0.0","code":7,"msg":"the lease is lost"}'; exit 1`
	for name, test := range map[string]struct {
		version, script string
		change          func(*Attachment)
		calls, says     string
	}{
		"all is well":                                {"1.0.0", "exit 0", func(*Attachment) {}, "first ADD, first CHECK", ""},
		"something is not":                           {"1.0.0", fails, func(*Attachment) {}, "first ADD, first CHECK", "the lease is lost"},
		"since version 0.4.0":                        {"0.4.0", fails, func(*Attachment) {}, "first ADD, first CHECK", "the lease is lost"},
		"not before":                                 {"0.3.1", fails, func(*Attachment) {}, "first ADD", ""},
		"not of a namespace by another path":         {"1.0.0", fails, func(a *Attachment) { a.NetNS = "/proc/1/ns/net" }, "first ADD", ""},
		"an attachment that the cache does not know": {"1.0.0", fails, func(a *Attachment) { a.Claim = "claim9" }, "first ADD", "the CNI cache has nothing of"},
	} {
		t.Run(name, func(t *testing.T) {
			b, a := answering(t, test.version, "CHECK", test.script)
			b.add(t, a)
			test.change(&a)
			err := b.Check(context.Background(), a, Altered{})
			if test.says == "" && err != nil || test.says != "" && (err == nil || !strings.Contains(err.Error(), test.says) || !strings.Contains(err.Error(), "ns/net")) {
				t.Errorf("got %v, want an error that says %q", err, test.says)
			}
			if got := who(calls(t, b.log)); got != test.calls {
				t.Errorf("calls were %s, want %s", got, test.calls)
			}
		})
	}
	t.Run("a network that wants no checks", func(t *testing.T) {
		b, a := answering(t, "1.0.0", "CHECK", fails)
		a.Network.Config = []byte(strings.Replace(string(a.Network.Config), `{`, `{"disableCheck":true,`, 1))
		b.add(t, a)
		if err := b.Check(context.Background(), a, Altered{}); err != nil || who(calls(t, b.log)) != "first ADD" {
			t.Errorf("%v after %s", err, who(calls(t, b.log)))
		}
	})
}

// What a plugin is told on CHECK is what ADD answered.
func TestCheckIsToldTheResult(t *testing.T) {
	b := newBed(t, "")
	b.add(t, attachment(t))
	if err := b.Check(context.Background(), attachment(t), Altered{}); err != nil {
		t.Fatal(err)
	}
	list := calls(t, b.log)
	last := list[len(list)-1]
	previous, _ := last.input["prevResult"].(map[string]any)
	if dns, _ := previous["dns"].(map[string]any); last.who != "second CHECK" || dns["domain"] != "rail.example" {
		t.Errorf("%s was told %v, want the chain's result", last.who, previous)
	}
}
