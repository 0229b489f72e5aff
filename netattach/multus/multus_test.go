package multus

import (
	"context"
	"encoding/json"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	nadv1 "github.com/k8snetworkplumbingwg/network-attachment-definition-client/pkg/apis/k8s.cni.cncf.io/v1"

	"github.com/hostler-dev/hostler/netattach"
)

// definitions is a fake API server.
type definitions map[string]string

func (d definitions) Get(_ context.Context, namespace, name string) (*nadv1.NetworkAttachmentDefinition, error) {
	config, ok := d[namespace+"/"+name]
	if !ok {
		return nil, errors.New("not found")
	}
	return &nadv1.NetworkAttachmentDefinition{Spec: nadv1.NetworkAttachmentDefinitionSpec{Config: config}}, nil
}

func TestResolvePutsTheDeviceIntoEveryPlugin(t *testing.T) {
	for name, test := range map[string]struct{ config, want, fails string }{
		"one plugin": {`{"cniVersion":"1.0.0","name":"rail","type":"tuning"}`,
			`{"cniVersion":"1.0.0","name":"rail","plugins":[{"cniVersion":"1.0.0","deviceID":"0000:18:00.0","name":"rail","pciBusID":"0000:18:00.0","type":"tuning"}]}`, ""},
		"a list": {`{"cniVersion":"1.0.0","name":"rail","plugins":[{"type":"tuning"},{"type":"sbr","deviceID":"old"}]}`,
			`{"cniVersion":"1.0.0","name":"rail","plugins":[{"deviceID":"0000:18:00.0","pciBusID":"0000:18:00.0","type":"tuning"},{"deviceID":"0000:18:00.0","pciBusID":"0000:18:00.0","type":"sbr"}]}`, ""},
		"no name": {`{"cniVersion":"1.0.0","plugins":[{"type":"tuning"}]}`,
			`{"cniVersion":"1.0.0","name":"net","plugins":[{"deviceID":"0000:18:00.0","pciBusID":"0000:18:00.0","type":"tuning"}]}`, ""},
		"one plugin of several versions": {`{"cniVersions":["1.0.0","1.1.0"],"name":"rail","type":"tuning"}`,
			`{"cniVersions":["1.0.0","1.1.0"],"name":"rail","plugins":[{"cniVersions":["1.0.0","1.1.0"],"deviceID":"0000:18:00.0","name":"rail","pciBusID":"0000:18:00.0","type":"tuning"}]}`, ""},
		"too long":              {`{"name":"rail","type":"tuning","note":"` + strings.Repeat("a", 64<<10) + `"}`, "", "more than the 65536 that a chain can have"},
		"takes it too late":     {`{"name":"rail","plugins":[{"type":"tuning"},{"type":"host-device"}]}`, "", "plugin host-device at position 2"},
		"takes it twice":        {`{"name":"rail","plugins":[{"type":"sriov"},{"type":"tuning"},{"type":"sriov"}]}`, "", "plugin sriov at position 3"},
		"no config":             {``, "", "has no spec.config"},
		"not JSON":              {`{`, "", "is not a CNI configuration"},
		"null":                  {`null`, "", "is not a CNI configuration"},
		"plugins of no kind":    {`{"name":"a","plugins":{}}`, "", "plugins is not a list"},
		"a plugin of no kind":   {`{"name":"a","plugins":[1]}`, "", "plugins[0] is not an object"},
		"a plugin with no type": {`{"name":"a","plugins":[{}]}`, "", "is not a CNI configuration"},
		"no plugins":            {`{"name":"a","plugins":[]}`, "", "is not a CNI configuration"},
	} {
		t.Run(name, func(t *testing.T) {
			intent, err := Resolve(context.Background(), definitions{"ns/net": test.config}, wanted("net"), "0000:18:00.0")
			if test.fails != "" {
				if err == nil || !strings.Contains(err.Error(), test.fails) || !strings.Contains(err.Error(), "ns/net") {
					t.Fatalf("error does not say %q and the definition: %v", test.fails, err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if string(intent.Config) != test.want {
				t.Errorf("got  %s\nwant %s", intent.Config, test.want)
			}
		})
	}
	if _, err := Resolve(context.Background(), definitions{}, wanted("net"), ""); err == nil || !strings.Contains(err.Error(), "ns/net") {
		t.Errorf("a definition that is not there: %v", err)
	}
}

// A child's plugins could take its parent, if they knew of it.
func TestPluginsOfAChildAreToldOfNoDevice(t *testing.T) {
	log, bin := filepath.Join(t.TempDir(), "log"), t.TempDir()
	plugin(t, bin, "first", "", log)
	intent, err := Resolve(context.Background(), definitions{"ns/net": `{"cniVersion":"1.0.0","name":"rail","type":"first","capabilities":{"deviceID":true}}`}, wanted("net"), "")
	if err != nil {
		t.Fatal(err)
	}
	a := attachment(t)
	a.DeviceID, a.Network = "", intent
	if _, err := New(Config{Bin: []string{bin}, Cache: t.TempDir()}).Add(context.Background(), a); err != nil {
		t.Fatal(err)
	}
	for _, c := range calls(t, log) {
		for _, field := range []string{"deviceID", "pciBusID", "runtimeConfig"} {
			if told, is := c.input[field]; is {
				t.Errorf("%s was told %s %v", c.who, field, told)
			}
		}
	}
}

// plugin installs a CNI plugin that writes down how it was called and answers
// with an empty result, or fails on the given command.
func plugin(t *testing.T, bin, name, failsOn, log string) {
	t.Helper()
	script := `#!/bin/sh
input=$(cat)
echo "` + name + ` $CNI_COMMAND $CNI_IFNAME $CNI_NETNS $input" >> ` + log + `
if [ "$CNI_COMMAND" = "` + failsOn + `" ]; then echo '{"cniVersion":"1.0.0","code":7,"msg":"no luck"}'; exit 1; fi
if [ "$CNI_COMMAND" = ADD ]; then echo '{"cniVersion":"1.0.0","interfaces":[{"name":"from-` + name + `"}],"dns":{"domain":"rail.example"}}'; fi
`
	if err := os.WriteFile(filepath.Join(bin, name), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
}

type call struct {
	who   string // "plugin COMMAND"
	input map[string]any
}

func calls(t *testing.T, log string) (list []call) {
	t.Helper()
	raw, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range strings.Split(strings.TrimSpace(string(raw)), "\n") {
		parts := strings.SplitN(line, " ", 5)
		c := call{who: parts[0] + " " + parts[1]}
		if err := json.Unmarshal([]byte(parts[4]), &c.input); err != nil {
			t.Fatal(err)
		}
		list = append(list, c)
	}
	return list
}

func who(list []call) string {
	var names []string
	for _, c := range list {
		names = append(names, c.who)
	}
	return strings.Join(names, ", ")
}

func attachment(t *testing.T) Attachment {
	t.Helper()
	return attachmentOf(t, `{"cniVersion":"1.0.0","name":"rail","plugins":[{"type":"first"},{"type":"second"}]}`, wanted("net"))
}

func wanted(name string) netattach.NetworkIntent {
	return netattach.NetworkIntent{Namespace: "ns", Name: name}
}

func attachmentOf(t *testing.T, config string, network netattach.NetworkIntent) Attachment {
	t.Helper()
	intent, err := Resolve(context.Background(), definitions{"ns/" + network.Name: config}, network, "0000:18:00.0")
	if err != nil {
		t.Fatal(err)
	}
	return Attachment{SandboxID: "sandbox1", Claim: "claim1", DeviceID: "0000:18:00.0", NetNS: "/proc/self/ns/net", Interface: "net1", MAC: "02:00:00:00:00:01",
		Addresses: []netip.Prefix{netip.MustParsePrefix("10.1.0.5/24")}, Network: intent,
		Pod: netattach.PodReference{UID: "u", Namespace: "ns", Name: "p"}}
}

// gone is the attachment once its namespace is.
func gone(a Attachment) Attachment {
	a.NetNS = ""
	return a
}

func TestChainIsAddedAndDeletedFromTheCache(t *testing.T) {
	bin, cache, log := t.TempDir(), t.TempDir(), filepath.Join(t.TempDir(), "log")
	plugin(t, bin, "first", "", log)
	plugin(t, bin, "second", "", log)
	ctx := context.Background()
	cfg := Config{Bin: []string{bin}, Cache: cache}
	for range 2 { // the second call finds the work done
		if _, err := New(cfg).Add(ctx, attachment(t)); err != nil {
			t.Fatal(err)
		}
	}
	// A new process knows nothing but the cache, which is empty afterwards.
	{
		if err := New(cfg).Del(ctx, gone(attachment(t))); err != nil {
			t.Fatal(err)
		}
	}
	got := calls(t, log)
	if want := "first ADD, second ADD, second DEL, first DEL"; who(got) != want {
		t.Fatalf("calls were %s, want %s", who(got), want)
	}
	previous, err := json.Marshal(got[0].input["prevResult"])
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{`"net1"`, `"10.1.0.5/24"`, `"02:00:00:00:00:01"`} {
		if !strings.Contains(string(previous), part) {
			t.Errorf("the first plugin is not told of the moved device: no %s in %s", part, previous)
		}
	}
	for _, c := range got {
		if c.input["deviceID"] != "0000:18:00.0" {
			t.Errorf("%s got device %v", c.who, c.input["deviceID"])
		}
	}
}

func TestFailedAddIsDeleted(t *testing.T) {
	bin, cache, log := t.TempDir(), t.TempDir(), filepath.Join(t.TempDir(), "log")
	plugin(t, bin, "first", "", log)
	plugin(t, bin, "second", "ADD", log)
	chain := New(Config{Bin: []string{bin}, Cache: cache})
	_, err := chain.Add(context.Background(), attachment(t))
	if err == nil || !strings.Contains(err.Error(), "ns/net") || !strings.Contains(err.Error(), "no luck") {
		t.Errorf("error does not name the definition and the plugin's words: %v", err)
	}
	if got, want := who(calls(t, log)), "first ADD, second ADD, second DEL, first DEL"; got != want {
		t.Errorf("calls were %s, want %s", got, want)
	}
}

// A shell is killed easily; the child that it waits for holds its output open.
func TestPluginThatHangsIsGivenUp(t *testing.T) {
	const hangs = "#!/bin/sh\nsleep 60\n"
	for command, run := range map[string]func(*Chain) error{
		"ADD": func(c *Chain) error { _, err := c.Add(context.Background(), attachment(t)); return err },
		"DEL": func(c *Chain) error { return c.Del(context.Background(), gone(attachment(t))) },
	} {
		t.Run(command, func(t *testing.T) {
			bin, cache, log := t.TempDir(), t.TempDir(), filepath.Join(t.TempDir(), "log")
			plugin(t, bin, "first", "", log)
			plugin(t, bin, "second", "", log)
			if command == "DEL" {
				if _, err := New(Config{Bin: []string{bin}, Cache: cache}).Add(context.Background(), attachment(t)); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.WriteFile(filepath.Join(bin, "second"), []byte(hangs), 0o755); err != nil {
				t.Fatal(err)
			}
			begun := time.Now()
			err := run(New(Config{Bin: []string{bin}, Cache: cache, Timeout: 200 * time.Millisecond}))
			if err == nil || !strings.Contains(err.Error(), "second did not answer and was killed") || time.Since(begun) > 30*time.Second {
				t.Errorf("after %s: %v; want the plugin named, and long before it ends", time.Since(begun), err)
			}
		})
	}
}

// The undoing of what ran out of time has its own time.
func TestAddThatIsCutShortIsDeleted(t *testing.T) {
	bin, cache, log := t.TempDir(), t.TempDir(), filepath.Join(t.TempDir(), "log")
	plugin(t, bin, "first", "", log)
	plugin(t, bin, "second", "", log)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := New(Config{Bin: []string{bin}, Cache: cache}).Add(ctx, attachment(t)); err == nil {
		t.Error("it is said to be done")
	}
	if got, want := who(calls(t, log)), "second DEL, first DEL"; got != want {
		t.Errorf("calls were %s, want %s", got, want)
	}
}

func TestVersionThatIsNoneIsNamed(t *testing.T) {
	unversioned := attachment(t)
	unversioned.Network.Config = []byte(strings.Replace(string(unversioned.Network.Config), "1.0.0", "one", 1))
	_, err := New(Config{Bin: []string{t.TempDir()}, Cache: t.TempDir()}).Add(context.Background(), unversioned)
	if err == nil || !strings.Contains(err.Error(), `CNI version "one" of NetworkAttachmentDefinition ns/net`) {
		t.Errorf("error does not name the version and its definition: %v", err)
	}
}

func TestMissingPluginIsNamed(t *testing.T) {
	chain := New(Config{Bin: []string{t.TempDir()}, Cache: t.TempDir()})
	if _, err := chain.Add(context.Background(), attachment(t)); err == nil || !strings.Contains(err.Error(), `"first"`) {
		t.Errorf("error does not name the plugin: %v", err)
	}
}
