package claim

// Which fields the versions of the journal have, and that none is forgotten.

import (
	"encoding"
	"encoding/json"
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/hostler-dev/hostler/netattach"
)

var update = flag.Bool("update", false, "rewrite the files in testdata that say what versions of the journal are")

// Every field of Entry that is to be on disk survives. A field added to Entry has to be
// written down in a version, see journalwire.go.
func TestNoFieldIsForgotten(t *testing.T) {
	full := &record{Incomplete: true}
	fill(reflect.ValueOf(full).Elem(), 0)
	raw, err := theCodec(t).encode(full)
	if err != nil {
		t.Fatal(err)
	}
	if diff := sameRecord(full, mustDecode(t, raw)); diff != "" {
		t.Errorf("an entry with all fields set (-before +after the disk):\n%s", diff)
	}
}

// fill sets every field that is not set yet, values of other packages included.
func fill(v reflect.Value, depth int) {
	switch v.Interface().(type) {
	case netip.Prefix:
		v.Set(reflect.ValueOf(netip.MustParsePrefix("192.0.2.0/24")))
		return
	case netip.Addr:
		v.Set(reflect.ValueOf(netip.MustParseAddr("192.0.2.1")))
		return
	case time.Time:
		v.Set(reflect.ValueOf(time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)))
		return
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString("x")
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		v.SetInt(7)
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		v.SetUint(7)
	case reflect.Float64:
		v.SetFloat(7)
	case reflect.Pointer:
		if depth < 12 {
			v.Set(reflect.New(v.Type().Elem()))
			fill(v.Elem(), depth+1)
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(v.Index(0), depth+1)
	case reflect.Map:
		key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
		fill(key, depth+1)
		fill(value, depth+1)
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(key, value)
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Field(i).CanSet() && v.Type().Field(i).Tag.Get("json") != "-" {
				fill(v.Field(i), depth+1)
			}
		}
	}
}

// What is in a version is listed in testdata, values of other packages included. Before
// a line is added there: would an agent that ignores it do harm? Then it is for a new
// version. (What was observed of devices is left out: nothing is undone by it. So is how a
// netdev was on the host, which is nil here: records of attachments have it.)
func TestFieldsOnDisk(t *testing.T) {
	for version, journal := range map[string]any{version1: journalV1{}, version2: journalV2{}} {
		var lines []string
		list(reflect.TypeOf(journal), nil, "", &lines)
		got := strings.Join(lines, "\n") + "\n"
		path := filepath.Join("testdata", "journal-"+version+".fields")
		if *update {
			if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if diff := cmp.Diff(string(mustRead(t, path)), got); diff != "" {
			t.Errorf("version %s has other fields than were agreed on; see the comment on this test, then -update (-agreed +now):\n%s", version, diff)
		}
	}
}

// list has a type that is within itself but once.
func list(t reflect.Type, within []reflect.Type, path string, lines *[]string) {
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice && t.Elem().Kind() != reflect.Uint8 {
		if t.Kind() == reflect.Slice {
			path += "[]"
		}
		t = t.Elem()
	}
	observed := strings.HasSuffix(t.PkgPath(), "/topology") || t == reflect.TypeFor[netattach.HostState]()
	text := reflect.PointerTo(t).Implements(reflect.TypeFor[encoding.TextUnmarshaler]()) || reflect.PointerTo(t).Implements(reflect.TypeFor[json.Unmarshaler]())
	if t.Kind() != reflect.Struct || observed || text || slices.Contains(within, t) {
		*lines = append(*lines, strings.TrimPrefix(path, ".")+" "+t.String())
		return
	}
	within = append(slices.Clone(within), t)
	for i := range t.NumField() {
		field := t.Field(i)
		name, options, _ := strings.Cut(field.Tag.Get("json"), ",")
		switch {
		case name == "-":
		case strings.Contains(options, "inline") || field.Anonymous:
			list(field.Type, within, path, lines)
		default:
			list(field.Type, within, path+"."+name, lines)
		}
	}
}
