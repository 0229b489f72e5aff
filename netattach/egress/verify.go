package egress

// Reading back. Rules count as in force only if every chain, rule and set
// element that should be there is there and nothing else is. What one Enforcer
// has found so it does not read again while the kernel's count of transactions
// says that nobody has changed anything.

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

// ErrDrift marks a namespace whose rules are missing or not what they should be.
var ErrDrift = errors.New("egress rules in the kernel differ")

// errNetdev is ErrDrift of the netdev table alone.
var errNetdev = errors.New("raw packets are not filtered as they should be")

// uncoveredError is ErrDrift of interfaces alone that have no chain: they were added.
type uncoveredError struct{ interfaces []string }

func (e *uncoveredError) Error() string {
	return fmt.Sprintf("%s: chain %s is missing", ErrDrift, netdevChain+strings.Join(e.interfaces, ", "+netdevChain))
}

func (e *uncoveredError) Unwrap() error { return ErrDrift }

// Counter is what a rule has matched.
type Counter struct{ Packets, Bytes uint64 }

// Verify returns nil if rules are in force in the namespace on all interfaces
// that it has, an error that is ErrDrift if not.
func Verify(_ context.Context, namespace int, rules Ruleset) (err error) {
	e, err := NewEnforcer(namespace, rules)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, e.Close()) }()
	interfaces, err := e.interfaces()
	if err != nil {
		return err
	}
	return e.verify(interfaces)
}

// Installed returns the hash of the ruleset that a namespace has, "" for none.
func Installed(namespace int) (hash string, err error) {
	socket, err := connect(namespace)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, socket.CloseLasting()) }()
	chains, err := socket.chains()
	if err != nil {
		return "", err
	}
	hash, _, err = socket.identity(chains)
	return hash, err
}

// Counters returns what each rule matched, by the names that Evaluate uses;
// allow rules carry the prefix "allow ".
func Counters(namespace int) (counters map[string]Counter, err error) {
	socket, err := connect(namespace)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, socket.CloseLasting()) }()
	chains, err := socket.chains()
	if err != nil {
		return nil, err
	}
	counters = map[string]Counter{}
	for _, chain := range chains {
		rules, err := socket.rules(chain)
		if err != nil {
			return nil, err
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

func (e *Enforcer) verify(interfaces []string) error {
	generation, err := e.socket.generation()
	if err != nil {
		return err
	}
	chains, err := e.socket.chains()
	if err != nil {
		return err
	}
	if generation != e.verified {
		e.verified, e.covered = 0, nil
		if err := e.identify(chains); err != nil {
			return err
		}
	}
	netdev := netdevForm(e.secret, interfaces)
	if e.verified == 0 {
		if err := e.socket.verifyInet(chains, e.inet); err != nil {
			return err
		}
		if err := e.socket.verifyTables(slices.Concat(e.inet.tables, netdev.tables)); err != nil {
			return err
		}
	}
	present, err := e.verifyNetdev(chains, netdev)
	if err != nil {
		return err
	}
	// If somebody changed something meanwhile, the next call reads all again.
	if now, err := e.socket.generation(); err != nil {
		return err
	} else if now == generation {
		e.verified, e.covered = generation, present
	}
	if len(present) < len(interfaces) {
		return &uncoveredError{slices.DeleteFunc(slices.Clone(interfaces), func(name string) bool { return slices.Contains(present, name) })}
	}
	return nil
}

// identify reads whose rules are in the kernel, and their secret.
func (e *Enforcer) identify(chains []*nftables.Chain) error {
	hash, secret, err := e.socket.identity(chains)
	switch {
	case err != nil:
		return err
	case hash == "":
		return fmt.Errorf("%w: there are none", ErrDrift)
	}
	e.keep(secret)
	if hash != e.hash {
		return fmt.Errorf("%w: they are those of scope %s, not %s", ErrDrift, hash, e.hash)
	}
	return nil
}

// verifyTables finds tables that are gone, or there but switched off: a dormant
// table keeps its chains, and none of them is hooked.
func (s *socket) verifyTables(want []*nftables.Table) error {
	have, err := s.tables()
	if err != nil {
		return err
	}
	for _, table := range want {
		if !slices.ContainsFunc(have, func(h *nftables.Table) bool {
			return h.Family == table.Family && h.Flags&unix.NFT_TABLE_F_DORMANT == 0
		}) {
			drift := fmt.Errorf("%w: a table %s is missing or dormant", ErrDrift, table.Name)
			if table.Family == nftables.TableFamilyNetdev {
				return fmt.Errorf("%w: %w", errNetdev, drift)
			}
			return drift
		}
	}
	return nil
}

func (s *socket) verifyInet(chains []*nftables.Chain, want form) error {
	inet := 0
	for _, chain := range chains {
		if chain.Table.Family == nftables.TableFamilyINet {
			inet++
		}
	}
	if inet != len(want.chains) {
		return fmt.Errorf("%w: there are %d chains, not %d", ErrDrift, inet, len(want.chains))
	}
	for _, set := range want.sets {
		if err := s.verifySet(set); err != nil {
			return err
		}
	}
	for _, c := range want.chains {
		if !slices.ContainsFunc(chains, func(have *nftables.Chain) bool { return sameChain(have, c.chain) }) {
			return fmt.Errorf("%w: chain %s is missing or hooked differently", ErrDrift, c.chain.Name)
		}
		if err := s.verifyRules(c); err != nil {
			return err
		}
	}
	return nil
}

// verifyNetdev returns the interfaces whose chain is as it should be, unless a
// chain is there that is not. Chains of interfaces that are gone may stay behind.
func (e *Enforcer) verifyNetdev(chains []*nftables.Chain, want form) (present []string, err error) {
	for _, c := range want.chains {
		i := slices.IndexFunc(chains, func(have *nftables.Chain) bool {
			return have.Table.Family == nftables.TableFamilyNetdev && have.Name == c.chain.Name
		})
		if i < 0 {
			continue
		}
		if !sameChain(chains[i], c.chain) {
			return nil, fmt.Errorf("%w: %w: chain %s is hooked differently", errNetdev, ErrDrift, c.chain.Name)
		}
		present = append(present, c.chain.Device)
		if slices.Contains(e.covered, c.chain.Device) {
			continue
		}
		if err := e.socket.verifyRules(c); errors.Is(err, ErrDrift) {
			return nil, fmt.Errorf("%w: %w", errNetdev, err)
		} else if err != nil {
			return nil, err
		}
	}
	return present, nil
}

func (s *socket) rules(chain *nftables.Chain) ([]*nftables.Rule, error) {
	rules, err := s.GetRules(chain.Table, chain)
	if err != nil {
		return nil, fmt.Errorf("cannot read egress chain %s: %w", chain.Name, err)
	}
	return rules, nil
}

func (s *socket) verifyRules(want chainForm) error {
	have, err := s.rules(want.chain)
	if err != nil {
		return err
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

func (s *socket) verifySet(want setForm) error {
	have, err := s.elements(want.set)
	if errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("%w: set %s is missing", ErrDrift, want.set.Name)
	}
	if err != nil {
		return fmt.Errorf("cannot read egress set %s: %w", want.set.Name, err)
	}
	slices.SortFunc(have, func(a, b element) int { return a.key.Compare(b.key) })
	if !slices.Equal(have, want.elements) {
		return fmt.Errorf("%w: set %s has other members", ErrDrift, want.set.Name)
	}
	return nil
}

func sameChain(have, want *nftables.Chain) bool {
	if have.Name != want.Name || have.Table.Family != want.Table.Family || have.Device != want.Device || (have.Hooknum == nil) != (want.Hooknum == nil) {
		return false
	}
	return want.Hooknum == nil || have.Policy != nil && *have.Hooknum == *want.Hooknum &&
		*have.Priority == *want.Priority && *have.Policy == *want.Policy && have.Type == want.Type
}

// identity is in the comment of the output chain's first rule; an empty hash
// means that there is none.
func (s *socket) identity(chains []*nftables.Chain) (hash string, secret uint32, err error) {
	for _, chain := range chains {
		if chain.Name != output {
			continue
		}
		rules, err := s.rules(chain)
		if err != nil {
			return "", 0, err
		}
		if len(rules) > 0 {
			if hash, secret, ok := parseIdentity(commentOf(rules[0])); ok {
				return hash, secret, nil
			}
		}
	}
	return "", 0, nil
}

func commentOf(rule *nftables.Rule) string {
	comment, _ := userdata.GetString(rule.UserData, userdata.TypeComment)
	return strings.TrimRight(comment, "\x00")
}
