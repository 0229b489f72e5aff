package egress

// Writing a ruleset into a network namespace. The old tables are deleted and
// the new ones made in one netlink batch, which the kernel commits as a whole:
// at no moment is there no rule, and an allowed flow never stalls.

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/userdata"
	mdlayher "github.com/mdlayher/netlink"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"k8s.io/klog/v2"
)

// Enforce brings rules into force in the namespace that the descriptor refers
// to, for all interfaces that it has now except lo. It does nothing where they
// are in force already, so it may be repeated, and must be repeated before an
// interface that was added is set up.
func Enforce(ctx context.Context, namespace int, rules Ruleset) error {
	interfaces, err := interfacesOf(namespace)
	if err != nil {
		return err
	}
	drift := verify(namespace, rules, interfaces)
	if drift == nil {
		return nil
	}
	if !errors.Is(drift, ErrDrift) {
		return drift
	}
	klog.FromContext(ctx).V(4).Info("Writing egress rules", "hash", rules.Hash(), "because", drift.Error())
	secret, err := secretOf(namespace)
	if err != nil {
		return err
	}
	f := formOf(rules, secret, interfaces)
	if errors.Is(drift, errUncovered) {
		f = f.netdevOnly()
	}
	if err := write(namespace, f); err != nil {
		return fmt.Errorf("cannot write egress rules to the pod's network namespace: %w; check that the kernel has nf_tables with inet, netdev egress, conntrack and reject support", err)
	}
	if err := verify(namespace, rules, interfaces); err != nil {
		return fmt.Errorf("egress rules read back from the kernel are not what was written: %w", err)
	}
	return nil
}

// secretOf keeps the secret of rules that are there already, so that flows that
// came in before an update keep getting their replies.
func secretOf(namespace int) (uint32, error) {
	conn, err := connect(namespace)
	if err != nil {
		return 0, err
	}
	defer conn.CloseLasting()
	if _, secret, err := readIdentity(conn); err == nil {
		return secret, nil
	}
	var random [4]byte
	for {
		if _, err := rand.Read(random[:]); err != nil {
			return 0, fmt.Errorf("cannot draw the mark of egress rules: %w", err)
		}
		if secret := binary.NativeEndian.Uint32(random[:]); secret != 0 {
			return secret, nil
		}
	}
}

func write(namespace int, f form) error {
	conn, err := connect(namespace)
	if err != nil {
		return err
	}
	defer conn.CloseLasting()
	present, err := conn.ListTables()
	if err != nil {
		return fmt.Errorf("cannot list the tables: %w", err)
	}
	for _, table := range f.tables {
		// Deleting a table that is not there is an error. It would not be free
		// either: the kernel frees what is deleted after an RCU grace period, and
		// closing any netfilter socket of the namespace waits for that, about 10 ms
		// (nft_rcv_nl_event in net/netfilter/nf_tables_api.c).
		if slices.ContainsFunc(present, func(p *nftables.Table) bool { return p.Name == table.Name && p.Family == table.Family }) {
			conn.DelTable(table)
		}
		conn.AddTable(table)
	}
	for _, s := range f.sets {
		if err := addSet(conn, s); err != nil {
			return fmt.Errorf("set %s: %w", s.set.Name, err)
		}
	}
	for _, c := range f.chains {
		conn.AddChain(c.chain)
	}
	for _, c := range f.chains {
		for _, r := range c.rules {
			conn.AddRule(&nftables.Rule{Table: c.chain.Table, Chain: c.chain, Exprs: r.expressions,
				UserData: userdata.AppendString(nil, userdata.TypeComment, r.comment)})
		}
	}
	return conn.Flush()
}

// addSet splits the elements: a netlink attribute is at most 64 KiB long, and
// an IPv6 element takes 44 bytes.
func addSet(conn *nftables.Conn, s setForm) error {
	if err := conn.AddSet(s.set, nil); err != nil {
		return err
	}
	const perMessage = 1024
	for rest := s.elements; len(rest) > 0; {
		n := min(len(rest), perMessage)
		if err := conn.SetAddElements(s.set, rest[:n]); err != nil {
			return err
		}
		rest = rest[n:]
	}
	return nil
}

// connect opens one socket in the namespace. Its buffers must hold a whole
// batch and the acknowledgement of each of its messages.
func connect(namespace int) (*nftables.Conn, error) {
	const buffer = 4 << 20
	conn, err := nftables.New(nftables.WithNetNSFd(namespace), nftables.AsLasting(),
		nftables.WithSockOptions(func(socket *mdlayher.Conn) error {
			return errors.Join(socket.SetReadBuffer(buffer), socket.SetWriteBuffer(buffer))
		}))
	if err != nil {
		return nil, fmt.Errorf("cannot open a netfilter socket in the pod's network namespace: %w; the agent needs CAP_NET_ADMIN and CAP_SYS_ADMIN", err)
	}
	return conn, nil
}

func interfacesOf(namespace int) ([]string, error) {
	handle, err := netlink.NewHandleAt(netns.NsHandle(namespace), unixRoute)
	if err != nil {
		return nil, fmt.Errorf("cannot open a netlink socket in the pod's network namespace: %w", err)
	}
	defer handle.Close()
	links, err := handle.LinkList()
	if err != nil {
		return nil, fmt.Errorf("cannot list the interfaces of the pod's network namespace: %w", err)
	}
	var names []string
	for _, link := range links {
		if link.Attrs().Index != loopbackIndex {
			names = append(names, link.Attrs().Name)
		}
	}
	return names, nil
}
