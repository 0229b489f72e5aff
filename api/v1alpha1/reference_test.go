package v1alpha1

// The reference in docs/configuration.md is read off the types: names, nesting
// and Go types by reflection, the words from the comments in their source. It
// cannot drift, and a field without a comment cannot pass.

import (
	"go/ast"
	"go/parser"
	"go/token"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// source is what reflection does not see.
type source struct {
	types  map[string]string   // type → comment
	fields map[string]string   // type.field → comment
	values map[string][]string // type → its constants
}

func readSource(t *testing.T) source {
	t.Helper()
	read := source{types: map[string]string{}, fields: map[string]string{}, values: map[string][]string{}}
	for _, file := range []string{"agentconfig.go", "claimconfig.go", "protocols.go"} {
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		for _, declaration := range parsed.Decls {
			if group, ok := declaration.(*ast.GenDecl); ok {
				for _, spec := range group.Specs {
					read.add(t, group, spec)
				}
			}
		}
	}
	return read
}

func (s source) add(t *testing.T, group *ast.GenDecl, spec ast.Spec) {
	t.Helper()
	switch spec := spec.(type) {
	case *ast.TypeSpec:
		s.types[spec.Name.Name] = prose(group.Doc)
		structure, ok := spec.Type.(*ast.StructType)
		if !ok {
			return
		}
		for _, field := range structure.Fields.List {
			for _, name := range field.Names {
				s.fields[spec.Name.Name+"."+name.Name] = prose(field.Doc)
			}
		}
	case *ast.ValueSpec:
		named, ok := spec.Type.(*ast.Ident)
		if !ok {
			return
		}
		for _, value := range spec.Values {
			text, err := strconv.Unquote(value.(*ast.BasicLit).Value)
			if err != nil {
				t.Fatal(err)
			}
			s.values[named.Name] = append(s.values[named.Name], "`"+text+"`")
		}
	}
}

// prose is a comment on one line, without the markers for code generators.
func prose(comment *ast.CommentGroup) string {
	text, _, _ := strings.Cut(comment.Text(), "\n+k8s:")
	return strings.Join(strings.Fields(text), " ")
}

// setting is one row of the reference.
type setting struct {
	path, kind, fallback, meaning string
}

// settings lists the fields of t and of what it holds, in the order of the source.
func (s source) settings(t *testing.T, in reflect.Type, prefix string) []setting {
	t.Helper()
	var rows []setting
	for i := range in.NumField() {
		field := in.Field(i)
		name, option, _ := strings.Cut(field.Tag.Get("json"), ",")
		if name == "" { // apiVersion and kind
			continue
		}
		kind, inner := s.kindOf(field.Type)
		if inner != nil && strings.HasPrefix(kind, "list") {
			name += "[]"
		}
		comment := s.fields[in.Name()+"."+field.Name]
		if comment == "" && inner != nil {
			comment = s.types[inner.Name()]
		}
		if comment == "" {
			t.Errorf("%s.%s has no comment, so docs/configuration.md cannot explain it", in.Name(), field.Name)
			continue
		}
		meaning, fallback, _ := strings.Cut(inJSONNames(comment, in, field.Name), "Default: ")
		if fallback == "" && option != "omitempty" {
			fallback = "required"
		}
		rows = append(rows, setting{path: prefix + name, kind: kind, fallback: strings.TrimSuffix(fallback, "."), meaning: strings.TrimSpace(meaning)})
		if inner != nil {
			rows = append(rows, s.settings(t, inner, prefix+name+".")...)
		}
	}
	return rows
}

// kindOf words a Go type as an author of YAML knows it; inner is the struct that
// the value or the list's elements are, if any.
func (s source) kindOf(of reflect.Type) (kind string, inner reflect.Type) {
	switch {
	case of == reflect.TypeFor[metav1.Duration]():
		return "duration", nil
	case of.Kind() == reflect.Pointer:
		return s.kindOf(of.Elem())
	case of.Kind() == reflect.Slice:
		kind, inner := s.kindOf(of.Elem())
		return "list of " + kind + "s", inner
	case of.Kind() == reflect.Map:
		kind, _ := s.kindOf(of.Elem())
		return "map of " + kind + "s", nil
	case of.Kind() == reflect.Struct:
		return "object", of
	case len(s.values[of.Name()]) > 0:
		return strings.Join(s.values[of.Name()], ", "), nil
	case of.Kind() == reflect.Bool:
		return "boolean", nil
	case of.Kind() == reflect.Int32, of.Kind() == reflect.Uint32:
		return "integer", nil
	}
	return of.Kind().String(), nil
}

var word = regexp.MustCompile(`\b[A-Z][A-Za-z]+\b`)

// inJSONNames puts a comment's Go names of fields as the config spells them:
// the field itself where the comment begins with it, and those beside it unless
// they are acronyms, which mean the thing and not the field.
func inJSONNames(comment string, in reflect.Type, self string) string {
	first := true
	return word.ReplaceAllStringFunc(comment, func(found string) string {
		begins := first
		first = false
		field, ok := in.FieldByName(found)
		if !ok || begins && found != self || !begins && strings.ToUpper(found) == found {
			return found
		}
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		return "`" + name + "`"
	})
}

// paths lists every field that a decoded YAML document sets.
func paths(value any, prefix string) []string {
	var all []string
	switch value := value.(type) {
	case map[string]any:
		for name, inner := range value {
			at := strings.TrimPrefix(prefix+"."+name, ".")
			if list, ok := inner.([]any); ok && len(list) > 0 {
				if _, ok := list[0].(map[string]any); ok {
					at += "[]"
				}
			}
			all = append(append(all, at), paths(inner, at)...)
		}
	case []any:
		for _, inner := range value {
			all = append(all, paths(inner, prefix)...)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}
