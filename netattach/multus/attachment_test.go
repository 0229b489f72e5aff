package multus

import (
	"context"
	"encoding/base64"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containernetworking/cni/libcni"
	apitypes "k8s.io/apimachinery/pkg/types"

	"github.com/hostler-dev/hostler/netattach"
	"github.com/hostler-dev/hostler/netattach/internal/nettest"
)

// bed is a chain of two scripted plugins and what they wrote down.
type bed struct {
	*Chain
	cache, log string
}

func newBed(t *testing.T, failing string) bed {
	t.Helper()
	b := bed{cache: t.TempDir(), log: filepath.Join(t.TempDir(), "log")}
	bin := t.TempDir()
	plugin(t, bin, "first", "", b.log)
	plugin(t, bin, "second", failing, b.log)
	b.Chain = New(Config{Bin: []string{bin}, Cache: b.cache})
	return b
}

func (b bed) add(t *testing.T, a Attachment) netattach.NetworkState {
	t.Helper()
	state, err := b.Add(context.Background(), a)
	if err != nil {
		t.Fatal(err)
	}
	return state
}

const two = `{"cniVersion":"1.0.0","name":"rail","plugins":[{"type":"first"},{"type":"second"}]}`

func TestWishesReachThePluginsThatDeclareThem(t *testing.T) {
	network := wanted("net")
	network.IPs, network.MAC, network.Interface = []netip.Prefix{netip.MustParsePrefix("10.9.0.4/24")}, "02:00:00:00:00:09", "mv0"
	a := attachmentOf(t, `{"cniVersion":"1.0.0","name":"rail","plugins":[{"type":"first","capabilities":{"ips":true,"mac":true}},{"type":"second","capabilities":{"deviceID":true}}]}`, network)
	b := newBed(t, "")
	b.add(t, a)
	got := calls(t, b.log)
	first, _ := got[0].input["runtimeConfig"].(map[string]any)
	second, _ := got[1].input["runtimeConfig"].(map[string]any)
	if ips, _ := first["ips"].([]any); len(ips) != 1 || ips[0] != "10.9.0.4/24" || first["mac"] != "02:00:00:00:00:09" {
		t.Errorf("the plugin with capabilities ips and mac was told %v", first)
	}
	if second["deviceID"] != "0000:18:00.0" || second["ips"] != nil {
		t.Errorf("the plugin with capability deviceID was told %v", second)
	}
	if got[0].input["prevResult"] != nil {
		t.Errorf("a chain that makes an interface was told of the device as its prevResult: %v", got[0].input["prevResult"])
	}
	raw, err := os.ReadFile(b.log)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(string(raw), "first ADD mv0 ") {
		t.Errorf("the interface is not the one that was asked for: %s", raw)
	}
}

func TestWishesThatNobodyWouldHeedAreRefused(t *testing.T) {
	for name, test := range map[string]struct {
		wish   func(*netattach.NetworkIntent)
		config string
		says   string
	}{
		"addresses": {func(n *netattach.NetworkIntent) { n.IPs = []netip.Prefix{netip.MustParsePrefix("10.9.0.4/24")} }, two, `capability "ips"`},
		"a hardware address, which only another capability is declared for": {func(n *netattach.NetworkIntent) { n.MAC = "02:00:00:00:00:09" },
			`{"cniVersion":"1.0.0","name":"rail","plugins":[{"type":"first","capabilities":{"ips":true,"mac":false}}]}`, `capability "mac"`},
		"a name for a device that the chain takes itself": {func(n *netattach.NetworkIntent) { n.Interface = "net7" },
			`{"cniVersion":"1.0.0","name":"rail","type":"host-device"}`, "host-device"},
	} {
		t.Run(name, func(t *testing.T) {
			network := wanted("net")
			test.wish(&network)
			_, err := Resolve(context.Background(), definitions{"ns/net": test.config}, network, "0000:18:00.0")
			if err == nil || !strings.Contains(err.Error(), test.says) || !strings.Contains(err.Error(), "ns/net") {
				t.Errorf("got %v, want an error that names ns/net and says %q", err, test.says)
			}
		})
	}
}

// A pod's two claims are two claims: what one takes back is not the other's.
func TestClaimsOfOnePodAreUndoneApart(t *testing.T) {
	b := newBed(t, "")
	mine, theirs := attachment(t), attachment(t)
	theirs.Claim, theirs.Interface = "claim2", "net2"
	b.add(t, mine)
	b.add(t, theirs)
	if err := b.Del(context.Background(), mine); err != nil {
		t.Fatal(err)
	}
	left, err := b.cni.GetCachedAttachments("sandbox1")
	if err != nil || len(left) != 1 || left[0].IfName != "net2" {
		t.Errorf("left in the cache: %v, %v; want the other claim's alone", left, err)
	}
}

// Networks that plugins could not tell apart are refused before a plugin is run, and
// undoing the second leaves the first alone.
func TestNetworksOfOneNameAndInterfaceAreRefused(t *testing.T) {
	for name, second := range map[string]func(*Attachment){
		"of two claims":      func(a *Attachment) { a.Claim = "claim2" },
		"of two definitions": func(a *Attachment) { a.Network.Name = "other" },
	} {
		t.Run(name, func(t *testing.T) {
			b := newBed(t, "")
			b.add(t, attachment(t))
			other := attachment(t)
			second(&other)
			if _, err := b.Add(context.Background(), other); err == nil || !strings.Contains(err.Error(), "interfaceName") {
				t.Errorf("got %v, want a refusal that says what to do", err)
			}
			if err := b.Del(context.Background(), other); err != nil {
				t.Error(err)
			}
			if got, want := who(calls(t, b.log)), "first ADD, second ADD"; got != want {
				t.Errorf("calls were %s, want %s", got, want)
			}
		})
	}
}

// The path by which a sandbox's namespace is known depends on the door.
func TestAddedAgainByAnotherPathIsNotAddedTwice(t *testing.T) {
	b := newBed(t, "")
	b.add(t, attachment(t))
	again := attachment(t)
	again.NetNS = "/proc/1/fd/9"
	state := b.add(t, again)
	if got, want := who(calls(t, b.log)), "first ADD, second ADD"; got != want {
		t.Errorf("calls were %s, want %s", got, want)
	}
	if state.Name != "net" || state.DNS == nil || state.DNS.Domain != "rail.example" {
		t.Errorf("the second call says %+v, want what the first said", state)
	}
}

// An agent that was killed in the middle of ADD left nothing in the cache.
func TestWhatWasCutShortIsDeleted(t *testing.T) {
	b, begun := newBed(t, ""), attachment(t)
	begun.Begun = true
	if err := b.Del(context.Background(), begun); err != nil {
		t.Fatal(err)
	}
	if got, want := who(calls(t, b.log)), "second DEL, first DEL"; got != want {
		t.Errorf("calls were %s, want %s", got, want)
	}
	again := newBed(t, "")
	again.add(t, begun)
	if got, want := who(calls(t, again.log)), "second DEL, first DEL, first ADD, second ADD"; got != want {
		t.Errorf("to add it again, calls were %s, want %s", got, want)
	}
	failing := newBed(t, "DEL")
	if err := failing.Del(context.Background(), begun); err != nil {
		t.Errorf("what may never have been added holds everything up: %v", err)
	}
}

func TestWhatWasNeverBegunIsLeftAlone(t *testing.T) {
	b := newBed(t, "")
	if err := b.Del(context.Background(), attachment(t)); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(b.log); err == nil {
		t.Errorf("plugins were run: %s", who(calls(t, b.log)))
	}
}

// host-device gives its addresses back only where it has a namespace to look into.
func TestAddressesOfADeviceThatIsGoneAreGivenBack(t *testing.T) {
	bin, log := t.TempDir(), filepath.Join(t.TempDir(), "log")
	plugin(t, bin, "host-device", "", log)
	plugin(t, bin, "pool", "", log)
	chain := New(Config{Bin: []string{bin}, Cache: t.TempDir()})
	a := attachmentOf(t, `{"cniVersion":"1.0.0","name":"rail","plugins":[{"type":"host-device","ipam":{"type":"pool"}}]}`, wanted("net"))
	for netns, want := range map[string]string{"": "host-device ADD, host-device DEL, pool DEL", a.NetNS: "host-device ADD, host-device DEL"} {
		if _, err := chain.Add(context.Background(), a); err != nil {
			t.Fatal(err)
		}
		undone := a
		undone.NetNS = netns
		if err := chain.Del(context.Background(), undone); err != nil {
			t.Fatal(err)
		}
		got := calls(t, log)
		if who(got) != want {
			t.Errorf("with namespace %q calls were %s, want %s", netns, who(got), want)
		}
		if last := got[len(got)-1].input; last["ipam"] == nil || last["name"] != "rail" {
			t.Errorf("the last was told %v", last)
		}
		if err := os.Remove(log); err != nil {
			t.Fatal(err)
		}
	}
}

// keeper is a Keeper of attachments by sandbox and claim. At the first taking, somebody
// attaches more.
type keeper struct {
	kept, more map[string]bool
	taken      []apitypes.UID
}

func (k *keeper) Keeps(sandbox string, claim apitypes.UID) (bool, error) {
	return k.kept[sandbox+"/"+string(claim)], nil
}

func (k *keeper) Take(_ context.Context, pod apitypes.UID) (func(), error) {
	k.taken = append(k.taken, pod)
	maps.Copy(k.kept, k.more)
	return func() { k.taken = append(k.taken, "left") }, nil
}

func TestLeftoversAreCollected(t *testing.T) {
	for name, test := range map[string]struct {
		more map[string]bool
		left int
	}{
		"nobody has them": {nil, 1},
		"the pod is attached anew at the same time":    {map[string]bool{"sandbox1/claim1": true}, 2},
		"another sandbox is attached at the same time": {map[string]bool{"sandbox2/claim1": true}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBed(t, "")
			for _, claim := range []apitypes.UID{"claim1", "claim2"} {
				a := attachment(t)
				a.Claim, a.Interface = claim, string(claim)
				b.add(t, a)
			}
			k := &keeper{kept: map[string]bool{"sandbox1/claim2": true}, more: test.more}
			if err := b.Collect(context.Background(), k); err != nil {
				t.Fatal(err)
			}
			left, err := b.cni.GetCachedAttachments("")
			if err != nil || len(left) != test.left || left[len(left)-1].IfName != "claim2" {
				t.Errorf("left in the cache: %v, %v; want %d, the wanted one among them", left, err, test.left)
			}
			if !slices.Equal(k.taken, []apitypes.UID{"u", "left"}) {
				t.Errorf("taken and left: %v, want pod u once", k.taken)
			}
		})
	}
}

// An address is given to the next pod only when its interface is gone: as long as the
// namespace is there, that is where plugins are sent to.
func TestLeftoversAreCollectedInTheNamespaceThatIsThere(t *testing.T) {
	there := filepath.Join(t.TempDir(), "cni-1")
	if err := os.Symlink(nettest.New(t).Path, there); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		there:               there,
		"/proc/self/ns/net": "", // a process's number may be another's by now
		"/nowhere/cni-1":    "",
		t.TempDir():         "", // what is left of the mount
	} {
		if got := living(path); got != want {
			t.Errorf("%s: plugins are sent to %q, want %q", path, got, want)
		}
	}
}

// Other programs of the node may keep their attachments in the same directory.
func TestWhatOthersAttachedIsNotCollected(t *testing.T) {
	for name, test := range map[string]struct {
		args, capabilities string
		want               string
	}{
		"a pod's own interface":          {`[["IgnoreUnknown","1"],["K8S_POD_NAME","p"]]`, `{"portMappings":[]}`, ""},
		"an attachment without a word":   {`null`, `null`, ""},
		"a device of an older agent's":   {`[["IgnoreUnknown","1"]]`, `{"deviceID":"0000:18:00.0"}`, "second DEL, first DEL"},
		"what the agent made of a child": {`[["HOSTLER_OWNER","claim1/ns/net"]]`, `{}`, "second DEL, first DEL"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBed(t, "")
			file := filepath.Join(b.cache, "results", "rail-sandbox1-net1")
			if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
				t.Fatal(err)
			}
			known := `{"kind":"cniCacheV1","containerId":"sandbox1","config":"` + base64.StdEncoding.EncodeToString([]byte(two)) + `","ifName":"net1","networkName":"rail","cniArgs":` + test.args + `,"capabilityArgs":` + test.capabilities + `}`
			if err := os.WriteFile(file, []byte(known), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := b.Collect(context.Background(), &keeper{kept: map[string]bool{}}); err != nil {
				t.Fatal(err)
			}
			got := ""
			if _, err := os.Stat(b.log); err == nil {
				got = who(calls(t, b.log))
			}
			if _, err := os.Stat(file); got != test.want || (err == nil) != (test.want == "") {
				t.Errorf("calls were %q, want %q; its file: %v", got, test.want, err)
			}
		})
	}
}

func TestChainWithoutPluginsHasNoIPAM(t *testing.T) {
	if ipam := ipamOf(&libcni.NetworkConfigList{Name: "empty"}); ipam != nil {
		t.Errorf("got %+v", ipam)
	}
}
