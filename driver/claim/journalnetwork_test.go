package claim

import (
	"encoding/json"
	"net/netip"
	"reflect"
	"testing"

	"k8s.io/apimachinery/pkg/types"

	"github.com/hostler-dev/hostler/netattach"
)

// onlyV1 is an intent with all that version 1 can say, and no more.
func onlyV1() netattach.DeviceIntent {
	var intent netattach.DeviceIntent
	for i := range reflect.TypeFor[networkV1]().NumField() {
		fill(reflect.ValueOf(&intent).Elem().FieldByName(reflect.TypeFor[networkV1]().Field(i).Name), 0)
	}
	intent.Routes = []netattach.Route{{Destination: netip.MustParsePrefix("10.0.0.0/8"), Gateway: netip.MustParseAddr("10.1.0.1")}}
	intent.Networks = []netattach.NetworkIntent{{Namespace: "team", Name: "storage", Config: []byte("{}")}}
	return intent
}

func TestWhatVersion1SaysOfNetworks(t *testing.T) {
	intent := onlyV1()
	if !isInV1(&intent) || !isInV1(nil) || !isInV1(&netattach.DeviceIntent{}) {
		t.Error("an intent of version 1 needs a later one")
	}
	// Whatever field is added to an intent, an entry with it is for no agent that would lose it.
	needs := func(name string, of reflect.Type, change func(*netattach.DeviceIntent, int)) {
		for i := range of.NumField() {
			intent := onlyV1()
			was := onlyV1()
			if change(&intent, i); reflect.DeepEqual(intent, was) {
				continue // version 1 has it
			}
			if isInV1(&intent) {
				t.Errorf("version 1 takes an intent with %s.%s and loses that", name, of.Field(i).Name)
			}
		}
	}
	needs("device", reflect.TypeFor[netattach.DeviceIntent](), func(d *netattach.DeviceIntent, i int) {
		if field := reflect.ValueOf(d).Elem().Field(i); field.IsZero() {
			fill(field, 0)
		}
	})
	needs("routes", reflect.TypeFor[netattach.Route](), func(d *netattach.DeviceIntent, i int) {
		if field := reflect.ValueOf(&d.Routes[0]).Elem().Field(i); field.IsZero() {
			fill(field, 0)
		}
	})
	needs("networks", reflect.TypeFor[netattach.NetworkIntent](), func(d *netattach.DeviceIntent, i int) {
		if field := reflect.ValueOf(&d.Networks[0]).Elem().Field(i); field.IsZero() {
			fill(field, 0)
		}
	})
}

// What an agent of version 1 would harm, it does not read: not from the journal, nor
// from the copy in a claim's CDI spec.
func TestFormerAgentsReadNoIntentThatTheyCannotUndo(t *testing.T) {
	for name, test := range map[string]struct {
		config string
		reads  bool
	}{
		"a netdev with an address": {`{"rdma": "None", "addresses": ["10.1.0.5/24"], "routes": [{"destination": "0.0.0.0/0", "gateway": "10.1.0.1"}], "networks": [{"name": "storage"}]}`, true},
		"an RDMA device":           {`{}`, false},
		"a child":                  {`{"mode": "macvlan"}`, false},
		"a sysctl":                 {`{"rdma": "None", "sysctls": {"net.ipv4.conf.IFNAME.arp_ignore": "1"}}`, false},
		"a route of a table":       {`{"rdma": "None", "routes": [{"destination": "10.0.0.0/8", "table": 7}]}`, false},
		"two interfaces of chains": {`{"rdma": "None", "networks": [{"name": "storage", "interfaceName": "st0"}]}`, false},
	} {
		t.Run(name, func(t *testing.T) {
			entry, err := planOn(machine(), nicClaim(nicRDMA, test.config, ""))
			if err != nil {
				t.Fatal(err)
			}
			raw, err := theCodec(t).encode(&record{Entries: []*Entry{entry}})
			if err != nil {
				t.Fatal(err)
			}
			if diff := sameRecord(&record{Entries: []*Entry{entry}}, mustDecode(t, raw)); diff != "" {
				t.Errorf("through the journal (-before +after):\n%s", diff)
			}
			if _, err := formerReader(raw); (err == nil) != test.reads {
				t.Errorf("a former agent reads the journal: %v", err)
			}
			var former struct {
				ClaimUID types.UID `json:"claimUID"`
			}
			if raw, err = encodeEntry(entry); err != nil || json.Unmarshal(raw, &former) != nil || (former.ClaimUID != "") != test.reads {
				t.Errorf("a former agent reads the copy of %q, %v", former.ClaimUID, err)
			}
			again, err := theCodec(t).decodeEntry(entry.ClaimUID, raw)
			if err != nil {
				t.Fatal(err)
			}
			sameEntries(t, "the copy", []*Entry{entry}, []*Entry{again})
		})
	}
}
