package egress

// Reading back. Rules count as in force only if every chain, rule and set
// element that should be there is there and nothing else is.

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"golang.org/x/sys/unix"
)

const unixRoute = unix.NETLINK_ROUTE

// ErrDrift marks a namespace whose rules are missing or not what they should be.
var ErrDrift = errors.New("egress rules in the kernel differ")

// errUncovered is ErrDrift of the netdev table alone: an interface was added.
var errUncovered = errors.New("an interface is not covered")

// Counter is what a rule has matched.
type Counter struct{ Packets, Bytes uint64 }

// Verify returns nil if rules are in force in the namespace on all interfaces
// that it has, an error that is ErrDrift if not.
func Verify(_ context.Context, namespace int, rules Ruleset) error {
	interfaces, err := interfacesOf(namespace)
	if err != nil {
		return err
	}
	return verify(namespace, rules, interfaces)
}

// Installed returns the hash of the ruleset that a namespace has, "" for none.
func Installed(namespace int) (string, error) {
	conn, err := connect(namespace)
	if err != nil {
		return "", err
	}
	defer conn.CloseLasting()
	hash, _, err := readIdentity(conn)
	if errors.Is(err, ErrDrift) {
		return "", nil
	}
	return hash, err
}

// Counters returns what each rule matched, by the names that Evaluate uses;
// allow rules carry the prefix "allow ".
func Counters(namespace int) (map[string]Counter, error) {
	conn, err := connect(namespace)
	if err != nil {
		return nil, err
	}
	defer conn.CloseLasting()
	counters := map[string]Counter{}
	chains, err := chainsOf(conn)
	if err != nil {
		return nil, err
	}
	for _, chain := range chains {
		rules, err := conn.GetRules(chain.Table, chain)
		if err != nil {
			return nil, fmt.Errorf("cannot read egress chain %s: %w", chain.Name, err)
		}
		for _, rule := range rules {
			for _, e := range rule.Exprs {
				if c, isCounter := e.(*expr.Counter); isCounter {
					sum := counters[commentOf(rule)]
					counters[commentOf(rule)] = Counter{sum.Packets + c.Packets, sum.Bytes + c.Bytes}
				}
			}
		}
	}
	return counters, nil
}

func verify(namespace int, rules Ruleset, interfaces []string) error {
	conn, err := connect(namespace)
	if err != nil {
		return err
	}
	defer conn.CloseLasting()
	hash, secret, err := readIdentity(conn)
	if err != nil {
		return err
	}
	if hash != rules.Hash() {
		return fmt.Errorf("%w: they are those of scope %s, not %s", ErrDrift, hash, rules.Hash())
	}
	want := formOf(rules, secret, interfaces)
	have, err := chainsOf(conn)
	if err != nil {
		return err
	}
	// Chains of interfaces that are gone may stay behind in the netdev table.
	if ours, theirs := len(of(have, nftables.TableFamilyINet)), len(want.chains)-len(interfaces); ours != theirs {
		return fmt.Errorf("%w: there are %d chains, not %d", ErrDrift, ours, theirs)
	}
	for _, s := range want.sets {
		if err := verifySet(conn, s); err != nil {
			return err
		}
	}
	for _, c := range want.chains {
		if err := verifyChain(conn, have, c); err != nil && c.chain.Table.Family == nftables.TableFamilyNetdev {
			return fmt.Errorf("%w: %w", errUncovered, err)
		} else if err != nil {
			return err
		}
	}
	return nil
}

func verifyChain(conn *nftables.Conn, have []*nftables.Chain, want chainForm) error {
	if !slices.ContainsFunc(have, func(h *nftables.Chain) bool { return sameChain(h, want.chain) }) {
		return fmt.Errorf("%w: chain %s is missing or hooked differently", ErrDrift, want.chain.Name)
	}
	return verifyRules(conn, want)
}

func verifyRules(conn *nftables.Conn, want chainForm) error {
	have, err := conn.GetRules(want.chain.Table, want.chain)
	if err != nil {
		return fmt.Errorf("cannot read egress chain %s: %w", want.chain.Name, err)
	}
	if len(have) != len(want.rules) {
		return fmt.Errorf("%w: chain %s has %d rules, not %d", ErrDrift, want.chain.Name, len(have), len(want.rules))
	}
	for i, rule := range have {
		same, err := sameExpressions(rule.Exprs, want.rules[i].expressions)
		if err != nil {
			return err
		}
		if !same || commentOf(rule) != want.rules[i].comment {
			return fmt.Errorf("%w: rule %d of chain %s is not %q", ErrDrift, i, want.chain.Name, want.rules[i].comment)
		}
	}
	return nil
}

func sameExpressions(have, want []expr.Any) (bool, error) {
	if len(have) != len(want) {
		return false, nil
	}
	for i := range have {
		a, errA := canonical(have[i])
		b, errB := canonical(want[i])
		if err := errors.Join(errA, errB); err != nil {
			return false, fmt.Errorf("cannot compare egress rules: %w", err)
		}
		if !bytes.Equal(a, b) {
			return false, nil
		}
	}
	return true, nil
}

// canonical leaves out what the kernel changes: counts and set IDs.
func canonical(e expr.Any) ([]byte, error) {
	switch e := e.(type) {
	case *expr.Counter:
		return []byte("counter"), nil
	case *expr.Ct:
		// The library reads back no source register, a store looks like register 0.
		register := e.Register
		if e.SourceRegister {
			register = 0
		}
		return fmt.Appendf(nil, "ct %d %d", e.Key, register), nil
	case *expr.Lookup:
		return fmt.Appendf(nil, "lookup %d %s %v", e.SourceRegister, e.SetName, e.Invert), nil
	}
	return expr.Marshal(unix.NFPROTO_INET, e)
}

func verifySet(conn *nftables.Conn, want setForm) error {
	have, err := conn.GetSetElements(want.set)
	if errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("%w: set %s is missing", ErrDrift, want.set.Name)
	}
	if err != nil {
		return fmt.Errorf("cannot read egress set %s: %w", want.set.Name, err)
	}
	if !slices.Equal(keys(have), keys(want.elements)) {
		return fmt.Errorf("%w: set %s has other members", ErrDrift, want.set.Name)
	}
	return nil
}

func keys(elements []nftables.SetElement) []string {
	var keys []string
	for _, e := range elements {
		keys = append(keys, fmt.Sprintf("%x %v", e.Key, e.IntervalEnd))
	}
	slices.Sort(keys)
	return keys
}

// chainsOf lists the chains of our two tables.
func chainsOf(conn *nftables.Conn) ([]*nftables.Chain, error) {
	var ours []*nftables.Chain
	for _, family := range []nftables.TableFamily{nftables.TableFamilyINet, nftables.TableFamilyNetdev} {
		chains, err := conn.ListChainsOfTableFamily(family)
		if err != nil {
			return nil, fmt.Errorf("cannot list egress chains: %w", err)
		}
		for _, chain := range chains {
			if chain.Table.Name == tableName && chain.Table.Family == family {
				ours = append(ours, chain)
			}
		}
	}
	return ours, nil
}

func of(chains []*nftables.Chain, family nftables.TableFamily) []*nftables.Chain {
	return slices.DeleteFunc(slices.Clone(chains), func(c *nftables.Chain) bool { return c.Table.Family != family })
}

func sameChain(have, want *nftables.Chain) bool {
	if have.Name != want.Name || have.Table.Family != want.Table.Family || (have.Hooknum == nil) != (want.Hooknum == nil) {
		return false
	}
	return want.Hooknum == nil || have.Policy != nil && *have.Hooknum == *want.Hooknum &&
		*have.Priority == *want.Priority && *have.Policy == *want.Policy && have.Type == want.Type
}

// readIdentity finds the comment of the output chain's first rule.
func readIdentity(conn *nftables.Conn) (hash string, secret uint32, err error) {
	chains, err := chainsOf(conn)
	if err != nil {
		return "", 0, err
	}
	for _, chain := range chains {
		if chain.Name != output {
			continue
		}
		rules, err := conn.GetRules(chain.Table, chain)
		if err != nil {
			return "", 0, fmt.Errorf("cannot read egress chain %s: %w", output, err)
		}
		if len(rules) > 0 {
			if hash, secret, ok := parseIdentity(commentOf(rules[0])); ok {
				return hash, secret, nil
			}
		}
	}
	return "", 0, fmt.Errorf("%w: there are none", ErrDrift)
}

func commentOf(rule *nftables.Rule) string {
	comment, _ := userdata.GetString(rule.UserData, userdata.TypeComment)
	return strings.TrimRight(comment, "\x00")
}
