package link

// Rules of policy routing. They belong to no interface, so the kernel does not
// take them away with one: whoever takes a device out of a living pod removes its rules.

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/hostler-dev/hostler/netattach"
)

// kernelRule marks the rule as the agent's, so that no other is taken for it.
func kernelRule(rule netattach.Rule) *netlink.Rule {
	r := netlink.NewRule()
	r.Priority, r.Table, r.Protocol = int(rule.Priority), int(rule.Table), protocol
	r.Family = netlink.FAMILY_V4
	if rule.Source.IsValid() {
		r.Src = ipNet(rule.Source)
	}
	if rule.Destination.IsValid() {
		r.Dst = ipNet(rule.Destination)
	}
	if rule.Source.Addr().Is6() || rule.Destination.Addr().Is6() {
		r.Family = netlink.FAMILY_V6
	}
	return r
}

func ruleOf(r netlink.Rule) netattach.Rule {
	return netattach.Rule{Priority: uint32(r.Priority), Source: prefixOf(r.Src), Destination: prefixOf(r.Dst), Table: uint32(r.Table)}
}

func (s *space) listRules() ([]netlink.Rule, error) {
	rules, err := consistent(func() ([]netlink.Rule, error) { return s.RuleList(netlink.FAMILY_ALL) })
	if err != nil {
		return nil, fmt.Errorf("cannot list routing rules: %w", err)
	}
	return rules, nil
}

// addRules is idempotent. The kernel takes two rules of one priority and asks
// them in the order in which they came, which nobody who writes a claim can know.
func (s *space) addRules(want []netattach.Rule) error {
	if len(want) == 0 {
		return nil
	}
	before, err := s.listRules()
	if err != nil {
		return err
	}
	for _, rule := range want {
		there := false
		for _, other := range before {
			if other.Priority != int(rule.Priority) || other.Family != kernelRule(rule).Family {
				continue
			}
			if there = other.Protocol == protocol && ruleOf(other) == rule; !there {
				return fmt.Errorf("routing rule %s: the pod has another of this priority already (%s); choose another priority", describeRule(rule), other)
			}
		}
		if there {
			continue
		}
		if err := s.RuleAdd(kernelRule(rule)); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("routing rule %s: %w", describeRule(rule), err)
		}
	}
	return s.haveRules(want)
}

func (s *space) haveRules(want []netattach.Rule) error {
	after, err := s.listRules()
	if err != nil {
		return err
	}
	for _, rule := range want {
		there := false
		for _, r := range after {
			there = there || r.Protocol == protocol && ruleOf(r) == rule
		}
		if !there {
			return fmt.Errorf("routing rule %s is not there after it was added", describeRule(rule))
		}
	}
	return nil
}

// removeRules is idempotent, and removes only what the agent made.
func (s *space) removeRules(device netattach.DeviceIntent) error {
	var faults []error
	for _, rule := range device.Rules {
		err := s.RuleDel(kernelRule(rule))
		// A kernel without IPv6 has no rules of it.
		if err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.EAFNOSUPPORT) {
			faults = append(faults, fmt.Errorf("cannot remove the routing rule %s of %s from the pod: %w", describeRule(rule), device.Device, err))
		}
	}
	return errors.Join(faults...)
}

func describeRule(r netattach.Rule) string {
	text := fmt.Sprintf("%d:", r.Priority)
	if r.Source.IsValid() {
		text += " from " + r.Source.String()
	}
	if r.Destination.IsValid() {
		text += " to " + r.Destination.String()
	}
	return fmt.Sprintf("%s lookup %d", text, r.Table)
}
