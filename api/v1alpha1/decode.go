package v1alpha1

// Strict decoding. What a user wrote and Hostler does not know is an error that
// names the field, what was written and what would have been right: an ignored
// "alow:" in an egress scope or "mttu:" on a NIC would be discovered in
// production. Decoding neither defaults nor validates, because a class's config
// and a claim's are merged first and "unset" must still be told from "default".

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	serializer "k8s.io/apimachinery/pkg/runtime/serializer/json"
	"sigs.k8s.io/yaml"
)

// Decode reads the opaque config of a claim or class, JSON or YAML. The result
// is a *GPUConfig, *NICConfig or *EgressConfig.
func Decode(raw []byte) (runtime.Object, error) {
	return decode(raw, claimConfigs())
}

// DecodeAgentConfig reads the agent's config file.
func DecodeAgentConfig(raw []byte) (*AgentConfig, error) {
	object, err := decode(raw, []runtime.Object{&AgentConfig{}})
	if err != nil {
		return nil, err
	}
	return object.(*AgentConfig), nil
}

func decode(raw []byte, accepted []runtime.Object) (runtime.Object, error) {
	object, err := objectFor(raw, accepted)
	if err != nil {
		return nil, err
	}
	scheme := runtime.NewScheme()
	scheme.AddKnownTypes(GroupVersion(), object)
	strict := serializer.NewSerializerWithOptions(serializer.DefaultMetaFactory, scheme, scheme,
		serializer.SerializerOptions{Yaml: true, Strict: true})
	_, _, err = strict.Decode(raw, nil, object)
	if err == nil {
		if err := alone(raw, object); err != nil {
			return nil, err
		}
		return object, nil
	}
	faults, rest, unread := reread(raw, object)
	if unread != nil || len(faults) == 0 {
		return nil, explain(err, object)
	}
	if _, _, err := strict.Decode(rest, nil, object); err != nil {
		faults = append(faults, explain(err, object))
	}
	return nil, errors.Join(faults...)
}

// objectFor picks the accepted kind that raw declares itself to be.
func objectFor(raw []byte, accepted []runtime.Object) (runtime.Object, error) {
	var names []string
	for _, candidate := range accepted {
		names = append(names, kindOf(candidate))
	}
	choice := strings.Join(names, ", ")
	var declared metav1.TypeMeta
	if err := yaml.Unmarshal(raw, &declared); err != nil {
		return nil, fmt.Errorf("config is neither JSON nor YAML (%w); write one object with apiVersion %s and kind %s", err, GroupVersion(), choice)
	}
	if declared.APIVersion != GroupVersion().String() {
		return nil, fmt.Errorf("apiVersion: %q is not known; write %q", declared.APIVersion, GroupVersion())
	}
	for i, name := range names {
		if name == declared.Kind {
			return accepted[i], nil
		}
	}
	return nil, fmt.Errorf("kind: %q is not known in %s here; write one of %s", declared.Kind, GroupVersion(), choice)
}

func kindOf(object runtime.Object) string { return reflect.TypeOf(object).Elem().Name() }

var unknownField = regexp.MustCompile(`^unknown field "(.*)"$`)

// given says in a user's words what a field holds, of which JSON says what it is.
func given(value string) string {
	switch value {
	case "bool":
		return "true or false"
	case "array":
		return "a list"
	case "object":
		return "an object"
	}
	return "a " + value
}

// expected says in a user's words what a field of the type holds.
func expected(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Pointer:
		return expected(t.Elem())
	case reflect.Bool:
		return "true or false"
	case reflect.String:
		return "a string"
	case reflect.Int32, reflect.Int, reflect.Int64:
		return fmt.Sprintf("a whole number of %d bits", t.Bits())
	case reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uint8:
		return fmt.Sprintf("a whole number of %d bits, 0 or more,", t.Bits())
	case reflect.Slice:
		return "a list"
	case reflect.Map, reflect.Struct:
		return "an object"
	}
	return "a " + t.String()
}

// hint is what most often led there.
func hint(wrong *json.UnmarshalTypeError) string {
	switch {
	case wrong.Value == "bool" && wrong.Type.Kind() == reflect.String:
		return " (YAML takes yes, no, on and off for true and false, unless they stand in quotes)"
	case wrong.Value == "number" && wrong.Type.Kind() == reflect.String:
		return " (put the number in quotes)"
	case wrong.Value == "string" && wrong.Type.Kind() == reflect.Slice:
		return " (put it in brackets, also if it is the only one)"
	}
	return ""
}

// explain turns the decoder's complaints into sentences with a remedy.
func explain(err error, object runtime.Object) error {
	strict, isStrict := runtime.AsStrictDecodingError(err)
	if !isStrict {
		var wrongType *json.UnmarshalTypeError
		if errors.As(err, &wrongType) {
			return fmt.Errorf("%s: field %q holds %s where %s is expected; correct the value%s", kindOf(object), wrongType.Field, given(wrongType.Value), expected(wrongType.Type), hint(wrongType))
		}
		return fmt.Errorf("%s cannot be read: %w; correct the value that is named", kindOf(object), err)
	}
	var sentences []error
	for _, fault := range strict.Errors() {
		match := unknownField.FindStringSubmatch(fault.Error())
		if match == nil {
			sentences = append(sentences, fmt.Errorf("%s: %w; remove all but one", kindOf(object), fault))
			continue
		}
		sentences = append(sentences, fmt.Errorf("%s: unknown field %q; correct its spelling or remove it, the fields there are: %s",
			kindOf(object), match[1], strings.Join(fieldsBeside(reflect.TypeOf(object), match[1]), ", ")))
	}
	return errors.Join(sentences...)
}

var index = regexp.MustCompile(`\[[^]]*\]`)

// fieldsBeside lists the JSON names of the struct that the last element of path
// was looked for in.
func fieldsBeside(t reflect.Type, path string) []string {
	parents := strings.Split(index.ReplaceAllString(path, ""), ".")
	t = structOf(t)
	for _, name := range parents[:len(parents)-1] {
		next, ok := jsonFields(t)[name]
		if !ok {
			break
		}
		t = structOf(next)
	}
	var names []string
	for name := range jsonFields(t) {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

func structOf(t reflect.Type) reflect.Type {
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice {
		t = t.Elem()
	}
	return t
}

func jsonFields(t reflect.Type) map[string]reflect.Type {
	fields := map[string]reflect.Type{}
	if t.Kind() != reflect.Struct {
		return fields
	}
	for _, field := range reflect.VisibleFields(t) {
		if name, _, _ := strings.Cut(field.Tag.Get("json"), ","); name != "" {
			fields[name] = field.Type
		}
	}
	return fields
}
