package claim

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"k8s.io/apimachinery/pkg/types"

	"github.com/hostler-dev/hostler/driver/vfio"
	"github.com/hostler-dev/hostler/netattach"
	"github.com/hostler-dev/hostler/topology"
)

func mustEncode(body string) []byte { return append([]byte(journalHeader+sum(body)+"\n"), body...) }

func theCodec(t testing.TB) *codec {
	t.Helper()
	c, err := newCodec()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func mustDecode(t testing.TB, raw []byte) *record {
	t.Helper()
	r, err := theCodec(t).decode(raw)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func mustRead(t testing.TB, path ...string) []byte {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(path...))
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// sameRecord compares all but the numbers of tombstones, which are not on disk.
func sameRecord(a, b *record) string {
	return cmp.Diff(a, b, cmpopts.EquateComparable(netip.Prefix{}, netip.Addr{}), cmpopts.EquateEmpty(), cmpopts.IgnoreUnexported(Tombstone{}), cmpopts.IgnoreFields(record{}, "TypeMeta"))
}

// inUserSpace is a claim for a GPU that is bound to vfio-pci and a VF with settings.
func inUserSpace() *Entry {
	mac, vlan, trust := "02:00:00:00:00:77", 100, true
	before, none, no := "02:00:00:00:00:04", 0, false
	m := machine()
	gpu, nic := m.GPUs[0], m.NICs[6]
	return &Entry{
		ClaimUID: "uid-machine", ClaimNamespace: "team", ClaimName: "machine", BootID: boot,
		Pods: []netattach.PodReference{{UID: "pod-machine", Namespace: "team", Name: "pod-machine"}},
		Devices: []Device{
			{Request: "r0", Pool: "node-a/gpu", Name: gpu.Name, GPU: &gpu, VFIO: &vfio.Binding{
				Group: "12", Functions: []vfio.Function{{PCI: "0000:17:00.0", Driver: "nvidia"}, {PCI: "0000:17:00.1", Driver: "snd_hda_intel", Override: "none"}},
			}},
			{Request: "r1", Pool: "node-a/nic", Name: nic.Name, NIC: &nic, VF: &VFChange{
				PF: "0000:1d:00.0", Wanted: netattach.VFSettings{MAC: &mac, VLAN: &vlan, Trust: &trust}, Before: netattach.VFSettings{MAC: &before, VLAN: &none, Trust: &no}, NetdevMAC: before,
			}},
		},
	}
}

// The file of version 1 is one that the agent wrote before claims had partitions and pairs.
func TestJournalOfVersion1IsRead(t *testing.T) {
	r := mustDecode(t, mustRead(t, "testdata", "journal-v1"))
	if len(r.Entries) != 2 {
		t.Fatalf("%d entries", len(r.Entries))
	}
	scope, training := r.Entries[0], r.Entries[1]
	gpu, nic := &training.Devices[0], &training.Devices[1]
	if gpu.GPU == nil || gpu.GPU.UUID != "GPU-a" || gpu.Partition != nil || nic.NIC == nil || !nic.RDMA || nic.Network == nil || nic.Network.PodName != "net1" {
		t.Errorf("the devices of %s: %+v", training.ClaimName, training.Devices)
	}
	if scope.Egress == nil || len(scope.Egress.Config.Allow) != 1 {
		t.Errorf("the scope of %s: %+v", scope.ClaimName, scope.Egress)
	}
	// It goes on holding what it holds, against newer claims too.
	again, err := plan(allocated("new", onAny("pair-0000-17-00-0-0000-19-00-0")))
	if err != nil {
		t.Fatal(err)
	}
	err = conflict(again, map[types.UID]*Entry{training.ClaimUID: training})
	if err == nil || !strings.Contains(err.Error(), "gpu-0000-17-00-0, which is held by claim team/training") {
		t.Errorf("%v; want the earlier claim's GPU refused", err)
	}
}

// Files of either version are written again as they were, byte for byte: the version is
// the oldest that can express the entries, and no field has changed its form.
func TestFilesAreWrittenAgainAsTheyWere(t *testing.T) {
	if *update {
		raw, err := theCodec(t).encode(&record{
			Entries:    append(mustDecode(t, mustRead(t, "testdata", "journal-v1")).Entries[1:], inUserSpace()),
			Unprepared: []Tombstone{{Claim: "uid-over", At: time.Date(2026, 11, 21, 6, 0, 0, 123456789, time.UTC)}},
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join("testdata", "journal-v2"), raw, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, version := range []string{version1, version2} {
		raw := mustRead(t, "testdata", "journal-"+version)
		again, err := theCodec(t).encode(mustDecode(t, raw))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(raw), string(again)); diff != "" {
			t.Errorf("%s (-before +after):\n%s", version, diff)
		}
		if !strings.Contains(string(again), journalGroup+"/"+version) {
			t.Errorf("the file of version %s is written in another", version)
		}
	}
}

func TestJournalOfVersion2IsRead(t *testing.T) {
	r := mustDecode(t, mustRead(t, "testdata", "journal-v2"))
	if len(r.Entries) != 2 || len(r.Unprepared) != 1 || r.Unprepared[0].Claim != "uid-over" {
		t.Fatalf("%d entries, tombstones %v", len(r.Entries), r.Unprepared)
	}
	if diff := sameRecord(&record{Entries: []*Entry{inUserSpace()}}, &record{Entries: r.Entries[1:]}); diff != "" {
		t.Errorf("the claim with devices in user space (-want +got):\n%s", diff)
	}
}

// formerReader is the reader of the journal as it was while there was only version 1,
// for what it did with versions, fields and checksums.
func formerReader(raw []byte) ([]types.UID, error) {
	header, body, found := bytes.Cut(raw, []byte("\n"))
	checksum, isHeader := bytes.CutPrefix(header, []byte("hostler-journal sha256:"))
	if actual := sha256.Sum256(body); !found || !isHeader || hex.EncodeToString(actual[:]) != string(checksum) {
		return nil, errors.New("damaged")
	}
	var journal struct {
		APIVersion string `json:"apiVersion"`
		Kind       string `json:"kind"`
		Entries    []*struct {
			ClaimUID       types.UID                `json:"claimUID"`
			ClaimNamespace string                   `json:"claimNamespace"`
			ClaimName      string                   `json:"claimName"`
			BootID         string                   `json:"bootID"`
			Pods           []netattach.PodReference `json:"pods,omitempty"`
			Devices        []struct {
				Request      string                  `json:"request"`
				Pool         string                  `json:"pool"`
				Name         string                  `json:"name"`
				ShareID      *types.UID              `json:"shareID,omitempty"`
				AdminAccess  bool                    `json:"adminAccess,omitempty"`
				GPU          *topology.GPU           `json:"gpu,omitempty"`
				Capabilities []string                `json:"capabilities,omitempty"`
				Partition    *Partition              `json:"partition,omitempty"`
				NIC          *topology.NIC           `json:"nic,omitempty"`
				RDMA         bool                    `json:"rdma,omitempty"`
				Network      *netattach.DeviceIntent `json:"network,omitempty"`
			} `json:"devices,omitempty"`
			Egress   *netattach.EgressIntent `json:"egress,omitempty"`
			Released bool                    `json:"released,omitempty"`
		} `json:"entries"`
	}
	// UniversalDeserializer is not strict: it ignores fields that it does not know.
	if err := json.Unmarshal(body, &journal); err != nil {
		return nil, err
	}
	if journal.APIVersion != "journal.hostler.dev/v1" || journal.Kind != "Journal" {
		return nil, fmt.Errorf("version %s", journal.APIVersion)
	}
	var claims []types.UID
	for _, entry := range journal.Entries {
		if entry == nil || entry.ClaimUID == "" || slices.Contains(claims, entry.ClaimUID) {
			return nil, errors.New("an entry names no claim")
		}
		claims = append(claims, entry.ClaimUID)
	}
	return claims, nil
}

func TestDowngrade(t *testing.T) {
	plain := mustDecode(t, mustRead(t, "testdata", "journal-v1")).Entries
	ending := *plain[0]
	ending.Ending, ending.PodClaimName = "the netdev is still in a pod", "net"
	for _, test := range []struct {
		name    string
		journal record
		want    []types.UID
	}{
		{"claims that it knows the likes of", record{Entries: plain}, []types.UID{"uid-scope", "uid-training"}},
		{"with what it may ignore", record{
			Entries: []*Entry{&ending, plain[1]}, Unprepared: []Tombstone{{Claim: "gone", At: time.Now()}}, Incomplete: true,
		}, []types.UID{"uid-scope", "uid-training"}},
		{"no claims", record{}, nil},
		{"one that it could not undo, which it must not take for another", record{Entries: append(plain[:1:1], inUserSpace())}, []types.UID{"version"}},
	} {
		raw, err := theCodec(t).encode(&test.journal)
		if err != nil {
			t.Fatal(err)
		}
		claims, err := formerReader(raw)
		if err != nil {
			claims = []types.UID{types.UID(strings.Fields(err.Error())[0])}
		}
		if !slices.Equal(claims, test.want) {
			t.Errorf("%s: the former agent reads %v", test.name, claims)
		}
	}
}

// The copy in a claim's CDI spec: a former agent finds the claim in it only if it could undo it.
func TestEntryInASpec(t *testing.T) {
	for _, test := range []struct {
		entry *Entry
		bare  types.UID
	}{{mustDecode(t, mustRead(t, "testdata", "journal-v1")).Entries[1], "uid-training"}, {inUserSpace(), ""}} {
		raw, err := encodeEntry(test.entry)
		if err != nil {
			t.Fatal(err)
		}
		got, err := theCodec(t).decodeEntry(test.entry.ClaimUID, raw)
		if err != nil {
			t.Fatal(err)
		}
		sameEntries(t, "read back", []*Entry{test.entry}, []*Entry{got})
		var former struct {
			ClaimUID types.UID `json:"claimUID"`
		}
		if err := json.Unmarshal(raw, &former); err != nil || former.ClaimUID != test.bare {
			t.Errorf("a former agent finds claim %q, %v; want %q", former.ClaimUID, err, test.bare)
		}
		if _, err := theCodec(t).decodeEntry("another", raw); err == nil {
			t.Error("read as the entry of another claim")
		}
	}
}

func TestFieldsOfLaterAgentsAreNoDamage(t *testing.T) {
	r := mustDecode(t, mustEncode(`{"apiVersion":"journal.hostler.dev/v1","kind":"Journal","later":{"x":1},"entries":[{"claimUID":"a","later":true}]}`))
	if len(r.Entries) != 1 || r.Entries[0].ClaimUID != "a" {
		t.Errorf("%+v", r.Entries)
	}
}

func TestAnyFlippedBitIsSeen(t *testing.T) {
	c, raw := theCodec(t), mustRead(t, "testdata", "journal-v2")
	for i := range raw {
		for bit := range 8 {
			raw[i] ^= 1 << bit
			if _, err := c.decode(raw); err == nil {
				t.Fatalf("bit %d of byte %d is flipped, which nobody sees", bit, i)
			}
			raw[i] ^= 1 << bit
		}
	}
}

// FuzzDecodeJournal: whatever is in the file, reading it ends with entries or an
// error, and what was read once is written and read again the same.
func FuzzDecodeJournal(f *testing.F) {
	for _, file := range []string{"journal-v1", "journal-v2"} {
		_, body, _ := strings.Cut(string(mustRead(f, "testdata", file)), "\n")
		f.Add(body)
	}
	f.Add(`{"apiVersion":"journal.hostler.dev/v1","kind":"Journal","entries":[{"claimUID":"a","devices":[{"name":"d"}]}]}`)
	f.Add(`{"apiVersion":"journal.hostler.dev/v1","kind":"Journal","entries":[null]}`)
	f.Add(`{"apiVersion":"journal.hostler.dev/v2","kind":"Journal","entries":[null],"unprepared":[{"at":"9999-12-31T23:59:59-23:59"}]}`)
	f.Add(`{"apiVersion":"journal.hostler.dev/v1","kind":"Journal","entries":[{"claimUID":"a"},{"claimUID":"a"}]}`)
	f.Add(`{"apiVersion":"journal.hostler.dev/v3","kind":"Journal"}`)
	f.Add("")
	c := theCodec(f)
	f.Fuzz(func(t *testing.T, body string) {
		if r, err := c.decode([]byte(body)); err == nil && !strings.HasPrefix(body, journalHeader) {
			t.Fatalf("read without a checksum: %v", r.Entries)
		}
		r, err := c.decode(mustEncode(body))
		if err != nil {
			return
		}
		raw, err := c.encode(r)
		if err != nil {
			t.Fatal(err)
		}
		if diff := sameRecord(r, mustDecode(t, raw)); diff != "" {
			t.Fatalf("read back (-first +second):\n%s", diff)
		}
	})
}

// FuzzDecodeEntry: the same of the copy in a CDI spec, which anybody may have edited.
func FuzzDecodeEntry(f *testing.F) {
	for _, entry := range []*Entry{{ClaimUID: "a"}, inUserSpace()} {
		raw, err := encodeEntry(entry)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(entry.ClaimUID), raw)
	}
	f.Add("a", []byte(`{"apiVersion":"journal.hostler.dev/v9","kind":"Journal","entries":[{"claimUID":"a","devices":[{"gpu":{}}]}]}`))
	f.Add("a", []byte(`{"apiVersion":"journal.hostler.dev/v1","kind":"Journal"}`))
	f.Add("a", []byte("null"))
	c := theCodec(f)
	f.Fuzz(func(t *testing.T, claim string, raw []byte) {
		entry, err := c.decodeEntry(types.UID(claim), raw)
		var later *versionError
		if (err == nil || errors.As(err, &later)) != (entry != nil) {
			t.Fatalf("entry %v, error %v", entry, err)
		}
		if entry == nil || err != nil {
			return
		}
		again, err := encodeEntry(entry)
		if err != nil {
			t.Fatal(err)
		}
		second, err := c.decodeEntry(types.UID(claim), again)
		if err != nil {
			t.Fatal(err)
		}
		sameEntries(t, "read back", []*Entry{entry}, []*Entry{second})
	})
}
