package main

// The hook takes netlink messages apart by itself; what it does with children is
// tested with the agent's side in netattach/gate.

import (
	"encoding/binary"
	"testing"
)

func FuzzAttributes(f *testing.F) {
	attribute := func(kind uint16, value ...byte) []byte {
		raw := binary.NativeEndian.AppendUint16(nil, uint16(4+len(value)))
		return append(binary.NativeEndian.AppendUint16(raw, kind), value...)
	}
	f.Add(append(attribute(tcaKind, []byte("tbf\x00")...), attribute(0x8000|tcaOptions, attribute(tbfParameters, make([]byte, 36)...)...)...))
	f.Add([]byte{3, 0, 1, 0})
	f.Add([]byte{255, 255, 1, 0, 9})
	f.Fuzz(func(t *testing.T, raw []byte) {
		length := 0
		for kind, value := range attributes(raw) {
			if kind > 0x3fff {
				t.Errorf("type %#x has flags", kind)
			}
			length += 4 + len(value)
			text(value)
			attributes(value)
		}
		if length > len(raw) {
			t.Errorf("%d bytes of attributes in a message of %d", length, len(raw))
		}
	})
}

func TestAttributesAreReadUpToWhereTheyAreCutOff(t *testing.T) {
	whole := []byte{8, 0, 1, 0, 't', 'b', 'f', 0, 6, 0, 2, 0x80, 1, 2, 0, 0, 5, 0, 3, 0, 9}
	for name, test := range map[string]struct {
		raw  []byte
		want int
	}{
		"nothing": {nil, 0}, "all": {whole, 3}, "without the last one's value": {whole[:20], 2}, "within the first": {whole[:7], 0},
	} {
		got := attributes(test.raw)
		if len(got) != test.want {
			t.Errorf("%s: %v, want %d", name, got, test.want)
		}
		if test.want > 1 && (text(got[1]) != "tbf" || len(got[2]) != 2) {
			t.Errorf("%s: %v", name, got)
		}
	}
}
