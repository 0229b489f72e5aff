package egress

// Reading back. Rules count as in force only if every chain, rule and set
// element that should be there is there and nothing else is. What one Enforcer
// has found so it does not read again while the kernel's count of transactions
// says that nobody has changed anything.

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
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
	rules, err := socket.outputRules(chains)
	hash, _ = identityOf(rules)
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
		if err := e.verifyInet(chains); err != nil {
			return err
		}
	}
	present, err := e.verifyNetdev(chains, netdevForm(e.marks, interfaces))
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

// verifyInet reads all that does not depend on the interfaces, and the marks.
func (e *Enforcer) verifyInet(chains []*nftables.Chain) error {
	rules, err := e.socket.outputRules(chains)
	if err != nil {
		return err
	}
	hash, found := identityOf(rules)
	if hash == "" {
		return fmt.Errorf("%w: there are none", ErrDrift)
	}
	e.keep(found)
	if hash != e.hash {
		return fmt.Errorf("%w: they are those of scope %s, not %s", ErrDrift, hash, e.hash)
	}
	inet := 0
	for _, chain := range chains {
		if chain.Table.Family == nftables.TableFamilyINet {
			inet++
		}
	}
	if inet != len(e.inet.chains) {
		return fmt.Errorf("%w: there are %d chains, not %d", ErrDrift, inet, len(e.inet.chains))
	}
	for _, set := range e.inet.sets {
		if err := e.socket.verifySet(set); err != nil {
			return err
		}
	}
	for _, c := range e.inet.chains {
		if !slices.ContainsFunc(chains, func(have *nftables.Chain) bool { return sameChain(have, c.chain) }) {
			return fmt.Errorf("%w: chain %s is missing or hooked differently", ErrDrift, c.chain.Name)
		}
		if c.chain.Name == output { // the longest by far, and read above
			err = sameRules(rules, c)
		} else {
			err = e.socket.verifyRules(c)
		}
		if err != nil {
			return err
		}
	}
	return e.socket.verifyTables(slices.Concat(e.inet.tables, netdevForm(found, nil).tables))
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

// outputRules are none where there is no output chain.
func (s *socket) outputRules(chains []*nftables.Chain) ([]*nftables.Rule, error) {
	for _, chain := range chains {
		if chain.Name == output && chain.Table.Family == nftables.TableFamilyINet {
			return s.rules(chain)
		}
	}
	return nil, nil
}

// identityOf reads the comment of the output chain's first rule; an empty hash
// means that the rules are not ours.
func identityOf(output []*nftables.Rule) (hash string, found marks) {
	if len(output) > 0 {
		if hash, found, ok := parseIdentity(commentOf(output[0])); ok {
			return hash, found
		}
	}
	return "", marks{}
}

func (s *socket) rules(chain *nftables.Chain) ([]*nftables.Rule, error) {
	rules, err := s.GetRules(chain.Table, chain)
	if err != nil {
		return nil, fmt.Errorf("cannot read egress chain %s: %w", chain.Name, err)
	}
	return rules, nil
}
