package egress

// What the kernel shows, compared with what was asked for.

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"golang.org/x/sys/unix"
)

func (s *socket) verifyRules(want chainForm) error {
	have, err := s.rules(want.chain)
	if err != nil {
		return err
	}
	return sameRules(have, want)
}

func sameRules(have []*nftables.Rule, want chainForm) error {
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
	have, err := s.elements(want.set, len(want.elements))
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

func commentOf(rule *nftables.Rule) string {
	comment, _ := userdata.GetString(rule.UserData, userdata.TypeComment)
	return strings.TrimRight(comment, "\x00")
}
