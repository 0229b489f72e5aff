package egress

// The netfilter socket of a namespace. The library writes transactions and
// parses rules. What is read often or grows with a scope is read here, into one
// buffer that is kept: the library's way allocates for every element, and its
// small receive buffer makes the kernel cut dumps into as small pieces.

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/google/nftables"
	mdlayher "github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

type socket struct {
	*nftables.Conn
	netlink *mdlayher.Conn
	buffer  []byte
}

// connect opens one socket in the namespace. Its buffers must hold a whole
// batch and the acknowledgement of each of its messages.
func connect(namespace int) (*socket, error) {
	const space = 4 << 20
	// The kernel cuts dumps to what the reader has room for, up to 32 KiB
	// (netlink_dump in net/netlink/af_netlink.c).
	s := socket{buffer: make([]byte, 32<<10)}
	conn, err := nftables.New(nftables.WithNetNSFd(namespace), nftables.AsLasting(),
		nftables.WithSockOptions(func(conn *mdlayher.Conn) error {
			s.netlink = conn
			// Without the option the kernel answers an error with the message that it is about.
			return errors.Join(conn.SetReadBuffer(space), conn.SetWriteBuffer(space), conn.SetOption(mdlayher.CapAcknowledge, true))
		}))
	if err != nil {
		return nil, fmt.Errorf("cannot open a netfilter socket in the pod's network namespace: %w; the agent needs CAP_NET_ADMIN and CAP_SYS_ADMIN", err)
	}
	s.Conn = conn
	return &s, nil
}

// generation counts the transactions of the namespace's nftables: while it is
// the same, nobody has changed a table, chain, rule or set element. Chains of
// interfaces that leave go without a transaction.
func (s *socket) generation() (uint32, error) {
	var id uint32
	// The acknowledgement ends the answer, as "done" ends a dump.
	var b batch
	b.nftables(unix.NFT_MSG_GETGEN, unix.NLM_F_ACK, nftables.TableFamilyUnspecified, "", func() {})
	err := s.request(b, func(_ nftables.TableFamily, answer []byte) {
		for kind, value := range attributes(answer) {
			if kind == unix.NFTA_GEN_ID {
				id = number(value)
			}
		}
	})
	if err != nil {
		return 0, fmt.Errorf("cannot read the generation of the pod's nftables: %w", err)
	}
	return id, nil
}

// tables lists our tables.
func (s *socket) tables() ([]*nftables.Table, error) {
	var tables []*nftables.Table
	err := s.request(dumpOf(unix.NFT_MSG_GETTABLE), func(family nftables.TableFamily, answer []byte) {
		table := &nftables.Table{Family: family}
		for kind, value := range attributes(answer) {
			switch kind {
			case unix.NFTA_TABLE_NAME:
				table.Name = text(value)
			case unix.NFTA_TABLE_FLAGS:
				table.Flags = number(value)
			}
		}
		if ours(table) {
			tables = append(tables, table)
		}
	})
	if err != nil {
		return nil, fmt.Errorf("cannot list the pod's nftables: %w", err)
	}
	return tables, nil
}

func ours(table *nftables.Table) bool {
	return table.Name == tableName && (table.Family == nftables.TableFamilyINet || table.Family == nftables.TableFamilyNetdev)
}

// chains lists the chains of our two tables.
func (s *socket) chains() ([]*nftables.Chain, error) {
	var chains []*nftables.Chain
	err := s.request(dumpOf(unix.NFT_MSG_GETCHAIN), func(family nftables.TableFamily, answer []byte) {
		if chain := chainOf(family, answer); ours(chain.Table) {
			chains = append(chains, chain)
		}
	})
	if err != nil {
		return nil, fmt.Errorf("cannot list egress chains: %w", err)
	}
	return chains, nil
}

func chainOf(family nftables.TableFamily, answer []byte) *nftables.Chain {
	chain := &nftables.Chain{Table: &nftables.Table{Family: family}}
	for kind, value := range attributes(answer) {
		switch kind {
		case unix.NFTA_CHAIN_TABLE:
			chain.Table.Name = text(value)
		case unix.NFTA_CHAIN_NAME:
			chain.Name = text(value)
		case unix.NFTA_CHAIN_TYPE:
			chain.Type = nftables.ChainType(text(value))
		case unix.NFTA_CHAIN_POLICY:
			policy := nftables.ChainPolicy(number(value))
			chain.Policy = &policy
		case unix.NFTA_CHAIN_HOOK:
			for kind, value := range attributes(value) {
				switch kind {
				case unix.NFTA_HOOK_HOOKNUM:
					chain.Hooknum = nftables.ChainHookRef(nftables.ChainHook(number(value)))
				case unix.NFTA_HOOK_PRIORITY:
					chain.Priority = nftables.ChainPriorityRef(nftables.ChainPriority(number(value)))
				case unix.NFTA_HOOK_DEV:
					chain.Device = text(value)
				}
			}
		}
	}
	return chain
}

// elements lists the elements of a set, in the kernel's order. There is room
// for as many as are expected.
func (s *socket) elements(set *nftables.Set, expected int) ([]element, error) {
	elements := make([]element, 0, expected)
	var b batch
	b.nftables(unix.NFT_MSG_GETSETELEM, unix.NLM_F_DUMP, set.Table.Family, "", func() {
		b.text(unix.NFTA_SET_ELEM_LIST_TABLE, set.Table.Name)
		b.text(unix.NFTA_SET_ELEM_LIST_SET, set.Name)
	})
	err := s.request(b, func(_ nftables.TableFamily, answer []byte) {
		for kind, list := range attributes(answer) {
			if kind != unix.NFTA_SET_ELEM_LIST_ELEMENTS {
				continue
			}
			for _, one := range attributes(list) {
				elements = append(elements, elementOf(one))
			}
		}
	})
	return elements, err
}

func elementOf(answer []byte) (e element) {
	for kind, value := range attributes(answer) {
		switch kind {
		case unix.NFTA_SET_ELEM_KEY:
			for _, key := range attributes(value) { // NFTA_DATA_VALUE alone
				e.key, _ = netip.AddrFromSlice(key) // of another length: the zero Addr, which no scope has
			}
		case unix.NFTA_SET_ELEM_FLAGS:
			e.end = number(value)&unix.NFT_SET_ELEM_INTERVAL_END != 0
		}
	}
	return e
}

// dumpOf asks for all there is of a kind.
func dumpOf(message uint16) (b batch) {
	b.nftables(message, unix.NLM_F_DUMP, nftables.TableFamilyUnspecified, "", func() {})
	return b
}

// request sends one message and calls visit with the attributes of each message
// of the answer, which are in the buffer and change after that.
func (s *socket) request(b batch, visit func(nftables.TableFamily, []byte)) error {
	if err := s.send(b.bytes); err != nil {
		return err
	}
	for {
		length, err := s.receive()
		if err != nil {
			return err
		}
		for answer := range answers(s.buffer[:length]) {
			if answer.err != nil || answer.last {
				return answer.err
			}
			visit(answer.family, answer.attributes)
		}
	}
}

func (s *socket) send(messages []byte) error {
	system, err := s.netlink.SyscallConn()
	if err != nil {
		return err
	}
	writeErr := system.Write(func(descriptor uintptr) bool {
		err = unix.Sendto(int(descriptor), messages, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
		return !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR)
	})
	return errors.Join(writeErr, err)
}

func (s *socket) receive() (length int, err error) {
	system, err := s.netlink.SyscallConn()
	if err != nil {
		return 0, err
	}
	readErr := system.Read(func(descriptor uintptr) bool {
		length, _, err = unix.Recvfrom(int(descriptor), s.buffer, unix.MSG_TRUNC)
		return !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR)
	})
	if err := errors.Join(readErr, err); err != nil {
		return 0, err
	}
	if length > len(s.buffer) {
		return 0, fmt.Errorf("a netlink answer of %d bytes is longer than the kernel makes them", length)
	}
	return length, nil
}
