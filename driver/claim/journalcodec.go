// The journal's form on disk: one line with a checksum, then JSON to the end.
// The checksum is over the bytes as they are, never over a value that was
// decoded and encoded again: a field that a later version adds must not make
// an intact file look corrupt. The JSON is an object of the Kubernetes API
// machinery, which finds the Go type by version.

package claim

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/types"
)

const journalHeader = "hostler-journal sha256:"

// journalV1 is version 1 of the file. A version that cannot express it gets a
// type of its own and a conversion; fields that readers may ignore are added here.
type journalV1 struct {
	metav1.TypeMeta `json:",inline"`
	Entries         []*Entry `json:"entries"`
}

// DeepCopyObject implements runtime.Object. Entries are never modified, so that
// copies can share them.
func (j *journalV1) DeepCopyObject() runtime.Object {
	return &journalV1{TypeMeta: j.TypeMeta, Entries: append([]*Entry(nil), j.Entries...)}
}

func journalVersion() schema.GroupVersion {
	return schema.GroupVersion{Group: "journal.hostler.dev", Version: "v1"}
}

func encodeJournal(entries []*Entry) ([]byte, error) {
	object := journalV1{Entries: entries}
	object.APIVersion, object.Kind = journalVersion().WithKind("Journal").ToAPIVersionAndKind()
	body, err := json.Marshal(object)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(body)
	return append([]byte(journalHeader+hex.EncodeToString(sum[:])+"\n"), body...), nil
}

func decodeJournal(raw []byte) ([]Entry, error) {
	header, body, found := bytes.Cut(raw, []byte("\n"))
	sum, isHeader := bytes.CutPrefix(header, []byte(journalHeader))
	if !found || !isHeader {
		return nil, errors.New("it does not begin with the line that every journal begins with")
	}
	if actual := sha256.Sum256(body); hex.EncodeToString(actual[:]) != string(sum) {
		return nil, errors.New("its content does not match its checksum")
	}
	scheme := runtime.NewScheme()
	scheme.AddKnownTypeWithName(journalVersion().WithKind("Journal"), &journalV1{})
	object, _, err := serializer.NewCodecFactory(scheme).UniversalDeserializer().Decode(body, nil, nil)
	if err != nil {
		return nil, fmt.Errorf("it is not of a version that this agent reads: %w", err)
	}
	journal, ok := object.(*journalV1)
	if !ok {
		return nil, fmt.Errorf("it holds a %T", object)
	}
	seen := map[types.UID]bool{}
	entries := make([]Entry, 0, len(journal.Entries))
	for i, entry := range journal.Entries {
		if entry == nil || entry.ClaimUID == "" || seen[entry.ClaimUID] {
			return nil, fmt.Errorf("its entry %d names no claim, or one that another entry names too", i)
		}
		seen[entry.ClaimUID] = true
		entries = append(entries, *entry)
	}
	return entries, nil
}
