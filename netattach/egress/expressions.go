package egress

// The vocabulary of form.go: each function is one nft statement, spelled as the
// register operations that the kernel takes. Conntrack and meta values are in
// host byte order, header fields in network byte order (nftables(8)).

import (
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// loopbackIndex is lo's interface index in every network namespace
// (LOOPBACK_IFINDEX in include/net/flow.h).
const loopbackIndex = 1

func join(parts ...[]expr.Any) []expr.Any { return slices.Concat(parts...) }

func accept() []expr.Any { return []expr.Any{&expr.Verdict{Kind: expr.VerdictAccept}} }
func drop() []expr.Any   { return []expr.Any{&expr.Verdict{Kind: expr.VerdictDrop}} }
func count() []expr.Any  { return []expr.Any{&expr.Counter{}} }

// jumpTo comes back to the next rule where the chain decides nothing, goTo does not.
func jumpTo(chain string) []expr.Any {
	return []expr.Any{&expr.Verdict{Kind: expr.VerdictJump, Chain: chain}}
}

func goTo(chain string) []expr.Any {
	return []expr.Any{&expr.Verdict{Kind: expr.VerdictGoto, Chain: chain}}
}

func goBack() []expr.Any { return []expr.Any{&expr.Verdict{Kind: expr.VerdictReturn}} }

func loopbackOut() []expr.Any {
	return meta(expr.MetaKeyOIF, expr.CmpOpEq, native(loopbackIndex))
}

func notLoopbackIn() []expr.Any {
	return meta(expr.MetaKeyIIF, expr.CmpOpNeq, native(loopbackIndex))
}

func marked(mark uint32) []expr.Any {
	return meta(expr.MetaKeyMARK, expr.CmpOpEq, native(mark))
}

// fromUser matches what a process sent. Sockets of the kernel's own have no
// file, ARP has not even a socket, and without a file there is no owner to
// compare: the rule does not match (nft_meta_get_eval_skugid in
// net/netfilter/nft_meta.c).
func fromUser() []expr.Any {
	return meta(expr.MetaKeySKUID, expr.CmpOpGte, native(0))
}

// frameProtocol matches skb->protocol, which a packet socket's sender chooses.
func frameProtocol(number uint16) []expr.Any {
	return meta(expr.MetaKeyPROTOCOL, expr.CmpOpEq, binaryutil.BigEndian.PutUint16(number))
}

// routed matches what the IP stack sends: it alone gives packets a route. The
// realm that is read is that of the route, any will do, and without a route the
// rule does not match (nft_meta_get_eval_rtclassid in net/netfilter/nft_meta.c).
// Kernels have it with CONFIG_IP_ROUTE_CLASSID, which route classifiers select.
func routed() []expr.Any {
	return meta(expr.MetaKeyRTCLASSID, expr.CmpOpGte, native(0))
}

func family(ipv4 bool) []expr.Any {
	if ipv4 {
		return meta(expr.MetaKeyNFPROTO, expr.CmpOpEq, []byte{unix.NFPROTO_IPV4})
	}
	return meta(expr.MetaKeyNFPROTO, expr.CmpOpEq, []byte{unix.NFPROTO_IPV6})
}

func protocolIs(protocol Protocol) []expr.Any {
	return meta(expr.MetaKeyL4PROTO, expr.CmpOpEq, []byte{uint8(protocol)})
}

func setMark(mark uint32) []expr.Any {
	return []expr.Any{
		&expr.Immediate{Register: 1, Data: native(mark)},
		&expr.Meta{Key: expr.MetaKeyMARK, SourceRegister: true, Register: 1},
	}
}

func setConntrackMark(mark uint32) []expr.Any {
	return []expr.Any{
		&expr.Immediate{Register: 1, Data: native(mark)},
		&expr.Ct{Key: expr.CtKeyMARK, SourceRegister: true, Register: 1},
	}
}

func conntrackMarked(mark uint32) []expr.Any {
	return []expr.Any{
		&expr.Ct{Key: expr.CtKeyMARK, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: native(mark)},
	}
}

// original matches the direction of a flow's first packet (IP_CT_DIR_ORIGINAL).
func original() []expr.Any {
	return []expr.Any{
		&expr.Ct{Key: expr.CtKeyDIRECTION, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{0}},
	}
}

// reply matches packets of established flows, and errors about them, in the
// direction against the first packet's. The original direction is not matched:
// its packets meet the rules one by one, so that revocation is immediate.
func reply() []expr.Any {
	return []expr.Any{
		&expr.Ct{Key: expr.CtKeyDIRECTION, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{1}},
		&expr.Ct{Key: expr.CtKeySTATE, Register: 1},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4,
			Mask: native(expr.CtStateBitESTABLISHED | expr.CtStateBitRELATED), Xor: native(0)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: native(0)},
	}
}

func icmpv6Type(kind uint8) []expr.Any {
	return header(expr.PayloadBaseTransportHeader, 0, []byte{kind})
}

func hopLimit(limit uint8) []expr.Any {
	return header(expr.PayloadBaseNetworkHeader, 7, []byte{limit})
}

func toLinkScopeMulticast() []expr.Any {
	return header(expr.PayloadBaseNetworkHeader, 24, []byte{0xff, 0x02})
}

func ports(p PortRange) []expr.Any {
	load := &expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2}
	if p.First == p.Last {
		return join(protocolIs(p.Protocol), []expr.Any{load,
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binaryutil.BigEndian.PutUint16(p.First)}})
	}
	return join(protocolIs(p.Protocol), []expr.Any{load,
		&expr.Cmp{Op: expr.CmpOpGte, Register: 1, Data: binaryutil.BigEndian.PutUint16(p.First)},
		&expr.Cmp{Op: expr.CmpOpLte, Register: 1, Data: binaryutil.BigEndian.PutUint16(p.Last)}})
}

func destinationIn(set *nftables.Set, ipv4 bool) []expr.Any {
	offset, length := uint32(16), uint32(4) // struct iphdr
	if !ipv4 {
		offset, length = 24, 16 // struct ipv6hdr
	}
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: length},
		&expr.Lookup{SourceRegister: 1, SetName: set.Name, SetID: set.ID},
	}
}

func rejectTCP() []expr.Any { return []expr.Any{&expr.Reject{Type: unix.NFT_REJECT_TCP_RST}} }

// rejectOther sends "administratively prohibited" of either ICMP.
func rejectOther() []expr.Any {
	return []expr.Any{&expr.Reject{Type: unix.NFT_REJECT_ICMPX_UNREACH, Code: unix.NFT_REJECT_ICMPX_ADMIN_PROHIBITED}}
}

func meta(key expr.MetaKey, op expr.CmpOp, value []byte) []expr.Any {
	return []expr.Any{&expr.Meta{Key: key, Register: 1}, &expr.Cmp{Op: op, Register: 1, Data: value}}
}

func header(base expr.PayloadBase, offset uint32, value []byte) []expr.Any {
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: base, Offset: offset, Len: uint32(len(value))},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: value},
	}
}

func native(value uint32) []byte { return binaryutil.NativeEndian.PutUint32(value) }
