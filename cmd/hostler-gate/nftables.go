package main

// Just enough nfnetlink (linux/netfilter/nf_tables.h) to see that the egress
// rules that the agent recorded are in force: the output chain begins with a
// rule whose comment is the ruleset's hash, and every interface but lo has its
// netdev egress chain.

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
)

const (
	netlinkNetfilter = 12
	subsystem        = 10 << 8 // NFNL_SUBSYS_NFTABLES
	getRule          = subsystem | 7
	familyInet       = 1 // NFPROTO_INET
	familyNetdev     = 5 // NFPROTO_NETDEV
	ruleTable        = 1 // NFTA_RULE_TABLE
	table            = "hostler"
)

func verifyRules(hash string, interfaces []net.Interface) error {
	rules, err := dumpRules(familyInet)
	if err != nil {
		return err
	}
	if !bytes.Contains(rules, []byte("scope "+hash+" ")) {
		return errors.New("the pod's egress rules are no longer in force")
	}
	chains, err := dumpRules(familyNetdev)
	if err != nil {
		return err
	}
	for _, i := range interfaces {
		if i.Flags&net.FlagLoopback == 0 && !bytes.Contains(chains, []byte("egress-"+i.Name+"\x00")) {
			return fmt.Errorf("the pod's egress rules do not cover its interface %s", i.Name)
		}
	}
	return nil
}

// dumpRules returns the raw messages of all rules of our table of a family.
func dumpRules(family byte) ([]byte, error) {
	name := append([]byte(table), 0)
	attribute := binary.NativeEndian.AppendUint16(nil, uint16(4+len(name)))
	attribute = binary.NativeEndian.AppendUint16(attribute, ruleTable)
	attribute = append(attribute, name...)
	for len(attribute)%4 != 0 {
		attribute = append(attribute, 0)
	}
	body := append([]byte{family, 0, 0, 0}, attribute...) // struct nfgenmsg
	rules, err := dump(netlinkNetfilter, getRule, body, "egress rules")
	return bytes.Join(rules, nil), err
}
