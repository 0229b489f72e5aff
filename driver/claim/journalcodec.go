// The journal's form on disk: one line with a checksum, then JSON to the end.
// The checksum is over the bytes as they are, never over a value that was
// decoded and encoded again: a field that a later version adds must not make
// an intact file look corrupt. The JSON is an object of the Kubernetes API
// machinery, which finds the Go type by version and converts it. It is written in
// the oldest version that can express all entries, so that an older agent can take
// over wherever it could undo what is there.

package claim

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	jsonserializer "k8s.io/apimachinery/pkg/runtime/serializer/json"
	"k8s.io/apimachinery/pkg/types"
)

const journalHeader = "hostler-journal sha256:"

// versionError says that something intact was written in a version that this agent
// does not read: by a later one.
type versionError struct{ Version string }

func (e *versionError) Error() string {
	return fmt.Sprintf("it is of version %s, which a later version of the agent writes; this one reads up to %s", e.Version, version2)
}

// codec encodes and decodes journals and copies of their entries.
type codec struct {
	scheme  *runtime.Scheme
	decoder runtime.Decoder
}

func newCodec() (*codec, error) {
	scheme, err := newJournalScheme()
	if err != nil {
		return nil, fmt.Errorf("register the journal's versions: %w", err)
	}
	// JSON alone: what else API machinery could read nobody writes.
	reader := jsonserializer.NewSerializerWithOptions(jsonserializer.DefaultMetaFactory, scheme, scheme, jsonserializer.SerializerOptions{})
	decoder := serializer.NewCodecFactory(scheme).DecoderToVersion(reader, journalVersion(runtime.APIVersionInternal))
	return &codec{scheme: scheme, decoder: decoder}, nil
}

// encode returns the file.
func (c *codec) encode(r *record) ([]byte, error) {
	body, err := c.body(r)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(body)
	return append([]byte(journalHeader+hex.EncodeToString(sum[:])+"\n"), body...), nil
}

func (c *codec) body(r *record) ([]byte, error) {
	object, err := c.scheme.UnsafeConvertToVersion(r, journalVersion(r.oldestVersion()))
	if err != nil {
		return nil, err
	}
	return json.Marshal(object)
}

// decode reads the file. The error is a *versionError if nothing is wrong with it but
// that it was written for others.
func (c *codec) decode(raw []byte) (*record, error) {
	header, body, found := bytes.Cut(raw, []byte("\n"))
	sum, isHeader := bytes.CutPrefix(header, []byte(journalHeader))
	if !found || !isHeader {
		return nil, errors.New("it does not begin with the line that every journal begins with")
	}
	if actual := sha256.Sum256(body); hex.EncodeToString(actual[:]) != string(sum) {
		return nil, errors.New("its content does not match its checksum")
	}
	return c.decodeBody(body)
}

func (c *codec) decodeBody(body []byte) (*record, error) {
	object, kind, err := c.decoder.Decode(body, nil, nil)
	if runtime.IsNotRegisteredError(err) && kind != nil && kind.Group == journalGroup && kind.Kind == journalKind &&
		regexp.MustCompile(`^v[0-9]+[a-z0-9]*$`).MatchString(kind.Version) {
		return nil, &versionError{Version: kind.Version}
	}
	if err != nil {
		return nil, fmt.Errorf("it is not of a version that this agent reads: %w", err)
	}
	r, ok := object.(*record)
	if !ok {
		return nil, fmt.Errorf("it holds a %T", object)
	}
	seen := map[types.UID]bool{}
	for i, entry := range r.Entries {
		if entry == nil || entry.ClaimUID == "" || seen[entry.ClaimUID] {
			return nil, fmt.Errorf("its entry %d names no claim, or one that another entry names too", i)
		}
		seen[entry.ClaimUID] = true
	}
	return r, nil
}

// encodeEntry is the copy of an entry in the claim's CDI spec. Version 1 has it
// bare, without saying so, as it has been since before there were others. Any
// other is a journal of one entry, in which agents that expect a bare one find no
// claim, rather than one of which they would know the half.
func encodeEntry(entry *Entry) ([]byte, error) {
	if entry.oldestVersion() == version1 {
		return json.Marshal(toV1(entry))
	}
	journal := journalV2{Entries: []*entryV2{toV2(entry)}}
	journal.SetGroupVersionKind(journalVersion(version2).WithKind(journalKind))
	return json.Marshal(journal)
}

// decodeEntry reads the copy in the spec of that claim. With a *versionError the
// entry is as much as could be made of it: what it holds, perhaps, but never how to undo it.
func (c *codec) decodeEntry(claim types.UID, raw []byte) (*Entry, error) {
	var meta metav1.TypeMeta
	if err := json.Unmarshal(raw, &meta); err != nil {
		return nil, err
	}
	var entry *Entry
	if meta.APIVersion == "" {
		bare := &entryV1{}
		if err := json.Unmarshal(raw, bare); err != nil {
			return nil, err
		}
		entry = fromV1(bare)
	} else {
		r, err := c.decodeBody(raw)
		var later *versionError
		if errors.As(err, &later) {
			return guess(claim, raw), err
		}
		if err != nil {
			return nil, err
		}
		if len(r.Entries) != 1 {
			return nil, fmt.Errorf("it has %d entries", len(r.Entries))
		}
		entry = r.Entries[0]
	}
	if entry.ClaimUID != claim {
		return nil, fmt.Errorf("its entry is of claim %q", entry.ClaimUID)
	}
	return entry, nil
}

// guess reads an entry of a later version by the rules of the latest known one.
func guess(claim types.UID, raw []byte) *Entry {
	var journal journalV2
	if err := json.Unmarshal(raw, &journal); err == nil && len(journal.Entries) == 1 && journal.Entries[0] != nil && journal.Entries[0].ClaimUID == claim {
		entry := fromV2(journal.Entries[0])
		entry.Later = true
		return entry
	}
	return &Entry{ClaimUID: claim, Later: true}
}
