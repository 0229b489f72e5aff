package egress

// A form as one nftables transaction, in netlink's encoding. The library could
// write it too; it allocates for every attribute of every element, and lets the
// kernel echo and acknowledge each message, which made up a quarter of the time of
// bringing a large scope into force. Expressions are encoded by the library.

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"golang.org/x/sys/unix"
)

// batch is a sequence of netlink messages. Their sequence numbers are their
// places in what, counted from 1.
type batch struct {
	bytes []byte
	// last is where the last message begins.
	last int
	// what each message is about, for errors.
	what []string
}

// write replaces the tables of the form, and adds to those that it does not name.
func (s *socket) write(f form) error {
	present, err := s.tables()
	if err != nil {
		return err
	}
	b := batch{bytes: make([]byte, 0, 16<<10)}
	b.mark(unix.NFNL_MSG_BATCH_BEGIN)
	for _, table := range f.tables {
		// Deleting a table that is not there is an error. It would not be free
		// either: the kernel frees what is deleted after an RCU grace period, and
		// closing any netfilter socket of the namespace waits for that, about 10 ms
		// (nft_rcv_nl_event in net/netfilter/nf_tables_api.c).
		if slices.ContainsFunc(present, func(p *nftables.Table) bool { return p.Family == table.Family }) {
			b.table(unix.NFT_MSG_DELTABLE, table)
		}
		b.table(unix.NFT_MSG_NEWTABLE, table)
	}
	for _, set := range f.sets {
		b.set(set.set)
		// A netlink attribute is at most 64 KiB long, and an IPv6 element takes 40 bytes.
		for some := range slices.Chunk(set.elements, 1024) {
			b.elements(set.set, some)
		}
	}
	for _, c := range f.chains {
		b.chain(c.chain)
	}
	for _, c := range f.chains {
		for _, r := range c.rules {
			if err := b.rule(c.chain, r); err != nil {
				return err
			}
		}
	}
	b.flag(unix.NLM_F_ACK) // one acknowledgement, of the last message, is that of all
	b.mark(unix.NFNL_MSG_BATCH_END)
	return s.commit(b)
}

// commit sends a batch, which the kernel carries out as a whole or not at all.
// After an error the socket has more answers to give and is of no use.
func (s *socket) commit(b batch) error {
	if err := s.send(b.bytes); err != nil {
		return err
	}
	for {
		length, err := s.receive()
		if err != nil {
			return err
		}
		for answer := range answers(s.buffer[:length]) {
			if err := answer.err; err != nil {
				if n := int(answer.sequence); n > 0 && n <= len(b.what) {
					return fmt.Errorf("%s: %w", b.what[n-1], err)
				}
				return err
			}
			if int(answer.sequence) == len(b.what)-1 { // the last but the mark
				return nil
			}
		}
	}
}

// mark begins or ends a batch (nfnetlink_rcv in net/netfilter/nfnetlink.c).
func (b *batch) mark(kind uint16) {
	b.message(kind, unix.NLM_F_REQUEST, nftables.TableFamilyUnspecified, "transaction", func() {})
	binary.BigEndian.PutUint16(b.bytes[len(b.bytes)-2:], unix.NFNL_SUBSYS_NFTABLES) // nfgenmsg.res_id
}

func (b *batch) table(message uint16, table *nftables.Table) {
	b.nftables(message, unix.NLM_F_CREATE, table.Family, "table "+table.Name, func() {
		b.text(unix.NFTA_TABLE_NAME, table.Name)
	})
}

func (b *batch) set(set *nftables.Set) {
	b.nftables(unix.NFT_MSG_NEWSET, unix.NLM_F_CREATE, set.Table.Family, "set "+set.Name, func() {
		b.text(unix.NFTA_SET_TABLE, set.Table.Name)
		b.text(unix.NFTA_SET_NAME, set.Name)
		b.number(unix.NFTA_SET_FLAGS, unix.NFT_SET_INTERVAL)
		b.number(unix.NFTA_SET_KEY_TYPE, set.KeyType.GetNFTMagic())
		b.number(unix.NFTA_SET_KEY_LEN, set.KeyType.Bytes)
		b.number(unix.NFTA_SET_ID, set.ID)
		// nft(8) needs this to print the elements: keys are big endian.
		b.value(unix.NFTA_SET_USERDATA, userdata.AppendUint32(nil, userdata.NFTNL_UDATA_SET_KEYBYTEORDER, 2))
	})
}

func (b *batch) elements(set *nftables.Set, elements []element) {
	b.bytes = slices.Grow(b.bytes, 48*len(elements))
	b.nftables(unix.NFT_MSG_NEWSETELEM, unix.NLM_F_CREATE, set.Table.Family, "elements of set "+set.Name, func() {
		b.text(unix.NFTA_SET_ELEM_LIST_TABLE, set.Table.Name)
		b.text(unix.NFTA_SET_ELEM_LIST_SET, set.Name)
		b.number(unix.NFTA_SET_ELEM_LIST_SET_ID, set.ID)
		b.nest(unix.NFTA_SET_ELEM_LIST_ELEMENTS, func() {
			for _, e := range elements {
				b.nest(unix.NFTA_LIST_ELEM, func() { b.element(e) })
			}
		})
	})
}

func (b *batch) element(e element) {
	if e.end {
		b.number(unix.NFTA_SET_ELEM_FLAGS, unix.NFT_SET_ELEM_INTERVAL_END)
	}
	b.nest(unix.NFTA_SET_ELEM_KEY, func() {
		if e.key.Is4() {
			key := e.key.As4()
			b.value(unix.NFTA_DATA_VALUE, key[:])
		} else {
			key := e.key.As16()
			b.value(unix.NFTA_DATA_VALUE, key[:])
		}
	})
}

func (b *batch) chain(chain *nftables.Chain) {
	b.nftables(unix.NFT_MSG_NEWCHAIN, unix.NLM_F_CREATE, chain.Table.Family, "chain "+chain.Name, func() {
		b.text(unix.NFTA_CHAIN_TABLE, chain.Table.Name)
		b.text(unix.NFTA_CHAIN_NAME, chain.Name)
		if chain.Hooknum == nil {
			return
		}
		b.nest(unix.NFTA_CHAIN_HOOK, func() {
			b.number(unix.NFTA_HOOK_HOOKNUM, uint32(*chain.Hooknum))
			b.number(unix.NFTA_HOOK_PRIORITY, uint32(*chain.Priority))
			if chain.Device != "" {
				b.text(unix.NFTA_HOOK_DEV, chain.Device)
			}
		})
		b.number(unix.NFTA_CHAIN_POLICY, uint32(*chain.Policy))
		b.text(unix.NFTA_CHAIN_TYPE, string(chain.Type))
	})
}

func (b *batch) rule(chain *nftables.Chain, r ruleForm) (err error) {
	b.nftables(unix.NFT_MSG_NEWRULE, unix.NLM_F_CREATE|unix.NLM_F_APPEND, chain.Table.Family, fmt.Sprintf("rule %q of chain %s", r.comment, chain.Name), func() {
		b.text(unix.NFTA_RULE_TABLE, chain.Table.Name)
		b.text(unix.NFTA_RULE_CHAIN, chain.Name)
		b.nest(unix.NFTA_RULE_EXPRESSIONS, func() {
			for _, e := range r.expressions {
				var encoded []byte
				if encoded, err = expr.Marshal(byte(chain.Table.Family), e); err != nil {
					return
				}
				b.value(unix.NFTA_LIST_ELEM|unix.NLA_F_NESTED, encoded)
			}
		})
		b.value(unix.NFTA_RULE_USERDATA, userdata.AppendString(nil, userdata.TypeComment, r.comment))
	})
	if err != nil {
		return fmt.Errorf("cannot encode %s: %w", b.what[len(b.what)-1], err)
	}
	return nil
}

func (b *batch) nftables(message uint16, flags uint16, family nftables.TableFamily, what string, write func()) {
	b.message(unix.NFNL_SUBSYS_NFTABLES<<8|message, unix.NLM_F_REQUEST|flags, family, what, write)
}

// message appends struct nlmsghdr, struct nfgenmsg and what write appends.
func (b *batch) message(kind, flags uint16, family nftables.TableFamily, what string, write func()) {
	b.what = append(b.what, what)
	b.last = len(b.bytes)
	b.bytes = append(b.bytes, 0, 0, 0, 0)
	b.bytes = binary.NativeEndian.AppendUint16(b.bytes, kind)
	b.bytes = binary.NativeEndian.AppendUint16(b.bytes, flags)
	b.bytes = binary.NativeEndian.AppendUint32(b.bytes, uint32(len(b.what)))
	b.bytes = append(b.bytes, 0, 0, 0, 0) // from whom: the kernel knows
	b.bytes = append(b.bytes, byte(family), unix.NFNETLINK_V0, 0, 0)
	write()
	binary.NativeEndian.PutUint32(b.bytes[b.last:], uint32(len(b.bytes)-b.last))
}

// flag adds a flag to the last message.
func (b *batch) flag(flag uint16) {
	flags := b.bytes[b.last+6:] // nlmsghdr.nlmsg_flags
	binary.NativeEndian.PutUint16(flags, binary.NativeEndian.Uint16(flags)|flag)
}

// nest appends an attribute of attributes. All of them are aligned to 4 bytes,
// so their own sum is.
func (b *batch) nest(kind uint16, write func()) {
	start := len(b.bytes)
	b.bytes = append(b.bytes, 0, 0, 0, 0)
	write()
	binary.NativeEndian.PutUint16(b.bytes[start:], uint16(len(b.bytes)-start))
	binary.NativeEndian.PutUint16(b.bytes[start+2:], kind|unix.NLA_F_NESTED)
}

func (b *batch) value(kind uint16, value []byte) {
	b.bytes = binary.NativeEndian.AppendUint16(b.bytes, uint16(unix.SizeofNlAttr+len(value)))
	b.bytes = binary.NativeEndian.AppendUint16(b.bytes, kind)
	b.bytes = append(b.bytes, value...)
	for len(b.bytes)%unix.NLMSG_ALIGNTO != 0 {
		b.bytes = append(b.bytes, 0)
	}
}

func (b *batch) number(kind uint16, value uint32) {
	var encoded [4]byte
	binary.BigEndian.PutUint32(encoded[:], value)
	b.value(kind, encoded[:])
}

func (b *batch) text(kind uint16, value string) { b.value(kind, append([]byte(value), 0)) }
