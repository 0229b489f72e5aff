package v1alpha1

// What the decoder refuses without saying where: it names a field that is there twice
// without its path, and of a duration that it cannot read not even the field. So a text
// that was refused is read once more for these, all of them, with the line of each. What
// is wrong besides is found in the text without them. And what it passes over: all that
// follows the first document.

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// alone refuses documents after the first, which the decoder does not look at. Nothing but
// an end of the first may follow.
func alone(raw []byte, object runtime.Object) error {
	if !bytes.Contains(raw, []byte("\n---")) {
		return nil
	}
	documents := yaml.NewDecoder(bytes.NewReader(raw))
	for i := 0; ; i++ {
		var document yaml.Node
		err := documents.Decode(&document)
		switch {
		case errors.Is(err, io.EOF) || err != nil && i == 0: // the first has been read by another decoder
			return nil
		case i > 0 && (err != nil || len(document.Content) > 0 && document.Content[0].Tag != "!!null"):
			return fmt.Errorf("%s: more follows after a line ---, and would not be heeded; write one object", kindOf(object))
		}
	}
}

// rereading of a text collects faults and mends them in the nodes that it sees.
type rereading struct {
	kind   string
	faults []error
}

// reread returns the faults, and the text without them if there are any.
func reread(raw []byte, object runtime.Object) (faults []error, rest []byte, err error) {
	var document yaml.Node
	if err := yaml.Unmarshal(raw, &document); err != nil || len(document.Content) == 0 {
		return nil, nil, err
	}
	r := rereading{kind: kindOf(object)}
	r.look(document.Content[0], reflect.TypeOf(object), "")
	if len(r.faults) == 0 {
		return nil, nil, nil
	}
	rest, err = yaml.Marshal(&document)
	return r.faults, rest, err
}

// look does not follow aliases, but to a duration: what they stand for is seen where it
// is written.
func (r *rereading) look(node *yaml.Node, t reflect.Type, path string) {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch {
	case t == reflect.TypeFor[metav1.Duration]():
		r.duration(node, path)
	case node.Kind == yaml.SequenceNode:
		for i, item := range node.Content {
			r.look(item, itemType(t), fmt.Sprintf("%s[%d]", path, i))
		}
	case node.Kind == yaml.MappingNode:
		r.twice(node, path)
		for i := 0; i < len(node.Content); i += 2 {
			key := node.Content[i].Value
			r.look(node.Content[i+1], valueType(t, key), below(path, key))
		}
	}
}

// unknown is what a field that no kind has holds.
func unknown() reflect.Type { return reflect.TypeFor[any]() }

func itemType(t reflect.Type) reflect.Type {
	if t.Kind() == reflect.Slice {
		return t.Elem()
	}
	return unknown()
}

// valueType is that of what an object of the type has under the key.
func valueType(t reflect.Type, key string) reflect.Type {
	if t.Kind() == reflect.Map {
		return t.Elem()
	}
	if of, is := jsonFields(t)[key]; is {
		return of
	}
	return unknown()
}

func below(path, key string) string { return strings.TrimPrefix(path+"."+key, ".") }

// twice leaves the first of each key. Merge keys may be there more often.
func (r *rereading) twice(mapping *yaml.Node, path string) {
	lines := map[string][]int{}
	var keys []string
	var once []*yaml.Node
	for i := 0; i < len(mapping.Content); i += 2 {
		key := mapping.Content[i]
		if key.Tag != "!!merge" {
			if lines[key.Value] = append(lines[key.Value], key.Line); len(lines[key.Value]) > 1 {
				continue
			}
			keys = append(keys, key.Value)
		}
		once = append(once, mapping.Content[i:i+2]...)
	}
	mapping.Content = once
	for _, key := range keys {
		if n := len(lines[key]); n > 1 {
			times := fmt.Sprintf("%d times", n)
			if n == 2 {
				times = "twice"
			}
			r.faults = append(r.faults, fmt.Errorf("%s: field %q is there %s, in %s; remove all but one", r.kind, below(path, key), times, inLines(lines[key])))
		}
	}
}

// inLines names each line once.
func inLines(lines []int) string {
	lines = slices.Compact(lines)
	if len(lines) == 1 {
		return fmt.Sprintf("line %d", lines[0])
	}
	var words []string
	for _, line := range lines[:len(lines)-1] {
		words = append(words, strconv.Itoa(line))
	}
	return fmt.Sprintf("lines %s and %d", strings.Join(words, ", "), lines[len(lines)-1])
}

func (r *rereading) duration(node *yaml.Node, path string) {
	value := node
	if node.Kind == yaml.AliasNode {
		value = node.Alias
	}
	var why string
	_, err := time.ParseDuration(value.Value)
	_, notNumber := strconv.ParseFloat(value.Value, 64)
	switch {
	case value.Kind != yaml.ScalarNode:
		why = "is no duration; write a number with its unit, such as 300ms, 5s or 1m30s"
	case value.Value == "" || value.Tag == "!!null":
		why = "is empty; write a duration, such as 300ms, 5s or 1m30s, or remove the field to have its default"
	case notNumber == nil && (err != nil || value.Tag != "!!str"):
		why = fmt.Sprintf("is %s, which has no unit; write %[1]ss if seconds are meant", value.Value)
	case err != nil || value.Tag != "!!str":
		why = fmt.Sprintf("is %q, which is no duration; write a number with its unit, such as 300ms, 5s or 1m30s", value.Value)
	default:
		return
	}
	r.faults = append(r.faults, fmt.Errorf("%s: field %q in line %d %s", r.kind, path, node.Line, why))
	*node = yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: "0s", Anchor: node.Anchor}
}
