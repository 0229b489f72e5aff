package egress

import (
	"encoding/binary"
	"slices"
	"testing"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

// What batch writes, answers and attributes read: the kernel uses one encoding
// both ways.
func TestElementsAreReadAsTheyAreWritten(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		set := &nftables.Set{Table: &nftables.Table{Name: tableName, Family: nftables.TableFamilyINet}, Name: rapid.StringMatching(`[a-z0-9-]{1,31}`).Draw(r, "set"), ID: 7}
		var want []element
		for range rapid.IntRange(0, 50).Draw(r, "elements") {
			want = append(want, element{anyAddr(r), rapid.Bool().Draw(r, "end")})
		}
		var b batch
		b.mark(unix.NFNL_MSG_BATCH_BEGIN)
		b.elements(set, want)
		b.mark(unix.NFNL_MSG_BATCH_END)
		var have []element
		var sequences []uint32
		for answer := range answers(b.bytes) {
			if answer.err != nil {
				r.Fatal(answer.err)
			}
			sequences = append(sequences, answer.sequence)
			for kind, value := range attributes(answer.attributes) {
				switch kind {
				case unix.NFTA_SET_ELEM_LIST_SET:
					if text(value) != set.Name {
						r.Fatalf("set %q is read as %q", set.Name, text(value))
					}
				case unix.NFTA_SET_ELEM_LIST_ELEMENTS:
					for _, one := range attributes(value) {
						have = append(have, elementOf(one))
					}
				}
			}
		}
		if !slices.Equal(have, want) || !slices.Equal(sequences, []uint32{1, 2, 3}) {
			r.Fatalf("read %v in messages %v, written %v", have, sequences, want)
		}
	})
}

func TestAnswersThatAreCutShortOrRefusals(t *testing.T) {
	message := func(kind uint16, length uint32, payload ...byte) []byte {
		m := binary.NativeEndian.AppendUint32(nil, length)
		m = binary.NativeEndian.AppendUint16(m, kind)
		return append(append(m, make([]byte, 10)...), payload...)
	}
	number := func(n int32) []byte { return binary.NativeEndian.AppendUint32(nil, uint32(n)) }
	for name, test := range map[string]struct {
		received []byte
		last     bool
		err      string
	}{
		"the end of a dump":            {message(unix.NLMSG_DONE, 20, number(0)...), true, ""},
		"an acknowledgement":           {message(unix.NLMSG_ERROR, 20, number(0)...), true, ""},
		"a refusal":                    {message(unix.NLMSG_ERROR, 20, number(-int32(unix.EEXIST))...), true, "file exists"},
		"a dump that failed":           {message(unix.NLMSG_DONE, 20, number(-int32(unix.EINTR))...), true, "interrupted system call"},
		"longer than what was read":    {message(unix.NLMSG_DONE, 24, number(0)...), false, "a netlink message claims 24 bytes of 20"},
		"shorter than its own header":  {message(unix.NLMSG_DONE, 4, number(0)...), false, "a netlink message claims 4 bytes of 20"},
		"an answer with nothing in it": {message(unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_NEWGEN, 20, 0, 0, 0, 0), false, ""},
	} {
		t.Run(name, func(t *testing.T) {
			var got []answer
			for a := range answers(test.received) {
				got = append(got, a)
			}
			if len(got) != 1 || got[0].last != test.last || (got[0].err == nil) != (test.err == "") || got[0].err != nil && got[0].err.Error() != test.err {
				t.Errorf("got %+v", got)
			}
		})
	}
}

// Whatever is received, reading it ends, within its bounds.
func FuzzAnswers(f *testing.F) {
	var b batch
	b.mark(unix.NFNL_MSG_BATCH_BEGIN)
	for _, c := range netdevForm(marks{1, 2}, []string{"eth0"}).chains {
		b.chain(c.chain)
	}
	f.Add(b.bytes)
	f.Add([]byte{16, 0, 0, 0, 3, 0})
	f.Fuzz(func(t *testing.T, received []byte) {
		read := 0
		for a := range answers(received) {
			if read += unix.SizeofNlMsghdr; read > len(received)+unix.SizeofNlMsghdr {
				t.Fatal("more messages than bytes")
			}
			chainOf(a.family, a.attributes)
			elementOf(a.attributes)
		}
	})
}
