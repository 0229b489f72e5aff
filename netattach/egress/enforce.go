package egress

// Writing a ruleset into a network namespace. The old tables are deleted and
// the new ones made in one netlink batch, which the kernel commits as a whole:
// at no moment is there no rule, and an allowed flow never stalls. For an
// interface that was added only its chain is written, and all else is left
// alone. What was written is read back.

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
	"k8s.io/klog/v2"
)

// Enforcer brings one ruleset into force in one network namespace, again and
// again while interfaces are added. It is not for concurrent use.
type Enforcer struct {
	rules Ruleset
	hash  string

	links  *netlink.Handle
	socket *socket
	// marks are zero until they were read or drawn; inet is the form with them.
	marks marks
	inet  form
	// verified is the generation of the namespace's nftables at which all that
	// should be there was found, 0 for none, and covered the interfaces of then.
	verified uint32
	covered  []string
}

// NewEnforcer opens the namespace that the descriptor refers to.
func NewEnforcer(namespace int, rules Ruleset) (*Enforcer, error) {
	links, err := netlink.NewHandleAt(netns.NsHandle(namespace), unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("cannot open a netlink socket in the pod's network namespace: %w", err)
	}
	socket, err := connect(namespace)
	if err != nil {
		links.Close()
		return nil, err
	}
	return &Enforcer{rules: rules, hash: rules.Hash(), links: links, socket: socket}, nil
}

// Close leaves the rules in force.
func (e *Enforcer) Close() error {
	e.links.Close()
	return e.socket.CloseLasting()
}

// Enforce is an Enforcer's only call of Enforce.
func Enforce(ctx context.Context, namespace int, rules Ruleset) (err error) {
	e, err := NewEnforcer(namespace, rules)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, e.Close()) }()
	return e.Enforce(ctx)
}

// Enforce brings the rules into force for all interfaces that the namespace has
// now except lo. It does nothing where they are in force already, so it may be
// repeated, and must be repeated before an interface that was added is set up.
func (e *Enforcer) Enforce(ctx context.Context) error {
	interfaces, err := e.interfaces()
	if err != nil {
		return err
	}
	drift := e.verify(interfaces)
	if drift == nil {
		return nil
	}
	if !errors.Is(drift, ErrDrift) {
		return drift
	}
	klog.FromContext(ctx).V(4).Info("Writing egress rules", "hash", e.hash, "because", drift.Error())
	if err := e.mend(drift, interfaces); err != nil {
		return fmt.Errorf("cannot write egress rules to the pod's network namespace: %w; check that the kernel has nf_tables with inet, netdev egress, conntrack and reject support, and IP_ROUTE_CLASSID", err)
	}
	if err := e.verify(interfaces); err != nil {
		return fmt.Errorf("egress rules read back from the kernel are not what was written: %w", err)
	}
	return nil
}

// mend writes what the drift demands. The marks of rules that are there are
// kept, so that flows that came in before an update keep getting their replies.
func (e *Enforcer) mend(drift error, interfaces []string) error {
	var uncovered *uncoveredError
	if errors.As(drift, &uncovered) {
		return e.cover(uncovered.interfaces)
	}
	if e.marks == (marks{}) {
		drawn, err := drawMarks()
		if err != nil {
			return err
		}
		e.keep(drawn)
	}
	netdev := netdevForm(e.marks, interfaces)
	if errors.Is(drift, errNetdev) {
		return e.socket.write(netdev)
	}
	return e.socket.write(form{
		tables: slices.Concat(e.inet.tables, netdev.tables),
		chains: slices.Concat(e.inet.chains, netdev.chains),
		sets:   e.inet.sets,
	})
}

// cover adds the chains of interfaces that have none to the table that is there.
func (e *Enforcer) cover(interfaces []string) error {
	if err := e.socket.write(form{chains: netdevForm(e.marks, interfaces).chains}); err != nil {
		return err
	}
	if e.verified != 0 {
		// A transaction counts as one (nf_tables_commit in
		// net/netfilter/nf_tables_api.c). If there was no other, what was
		// verified before this one is as it was.
		e.verified++
	}
	return nil
}

func (e *Enforcer) keep(found marks) {
	if e.marks != found {
		e.marks, e.inet = found, inetForm(e.rules, e.hash, found)
	}
}

func drawMarks() (marks, error) {
	var random [8]byte
	for {
		if _, err := rand.Read(random[:]); err != nil {
			return marks{}, fmt.Errorf("cannot draw the marks of egress rules: %w", err)
		}
		drawn := marks{packet: binary.NativeEndian.Uint32(random[:4]), flow: binary.NativeEndian.Uint32(random[4:])}
		if drawn.packet != 0 && drawn.flow != 0 {
			return drawn, nil
		}
	}
}

func (e *Enforcer) interfaces() ([]string, error) {
	links, err := e.links.LinkList()
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
