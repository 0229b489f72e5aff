package egress

// Netlink's encoding as the kernel sends it: messages of attributes, some of
// which hold attributes again. Nothing is copied, and what is cut short ends
// the walk instead of being read past its end.

import (
	"encoding/binary"
	"fmt"
	"iter"
	"syscall"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"
)

// answer is one message from the kernel.
type answer struct {
	// sequence is that of the message which it answers.
	sequence uint32
	// last says that no more follow, err that there is no answer.
	last bool
	err  error

	family     nftables.TableFamily
	attributes []byte
}

// answers walks through what one receive returned.
func answers(received []byte) iter.Seq[answer] {
	return func(yield func(answer) bool) {
		const header, nfgenmsg = unix.SizeofNlMsghdr, 4
		for len(received) >= header {
			length := int(binary.NativeEndian.Uint32(received))
			if length < header+nfgenmsg || length > len(received) {
				yield(answer{err: fmt.Errorf("a netlink message claims %d bytes of %d", length, len(received))})
				return
			}
			a := answer{sequence: binary.NativeEndian.Uint32(received[8:])}
			payload := received[header:length]
			switch binary.NativeEndian.Uint16(received[4:]) {
			case unix.NLMSG_DONE, unix.NLMSG_ERROR: // both begin with an error number, 0 for none
				a.last = true
				if number := int32(binary.NativeEndian.Uint32(payload)); number < 0 {
					a.err = syscall.Errno(-number)
				}
			default:
				a.family, a.attributes = nftables.TableFamily(payload[0]), payload[nfgenmsg:]
			}
			if !yield(a) {
				return
			}
			received = received[min(align(length), len(received)):]
		}
	}
}

// nlaTypeMask is NLA_TYPE_MASK of linux/netlink.h: what of a type is no flag.
const nlaTypeMask = 0x3fff

// attributes walks through netlink attributes (struct nlattr) up to the first
// that is cut short.
func attributes(all []byte) iter.Seq2[int, []byte] {
	return func(yield func(int, []byte) bool) {
		const header = unix.SizeofNlAttr
		for len(all) >= header {
			length := int(binary.NativeEndian.Uint16(all))
			kind := int(binary.NativeEndian.Uint16(all[2:])) & nlaTypeMask
			if length < header || length > len(all) || !yield(kind, all[header:length]) {
				return
			}
			all = all[min(align(length), len(all)):]
		}
	}
}

func align(length int) int { return (length + unix.NLMSG_ALIGNTO - 1) &^ (unix.NLMSG_ALIGNTO - 1) }

// number reads what nftables calls u32, always in network byte order.
func number(value []byte) uint32 {
	if len(value) != 4 {
		return 0
	}
	return binary.BigEndian.Uint32(value)
}

// text reads a string with the 0 byte that ends it.
func text(value []byte) string {
	if n := len(value); n > 0 && value[n-1] == 0 {
		value = value[:n-1]
	}
	return string(value)
}
