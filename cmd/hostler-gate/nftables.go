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
	"syscall"
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
	socket, err := syscall.Socket(syscall.AF_NETLINK, syscall.SOCK_RAW|syscall.SOCK_CLOEXEC, netlinkNetfilter)
	if err != nil {
		return nil, fmt.Errorf("cannot open a netfilter socket: %w", err)
	}
	defer syscall.Close(socket)
	patience := syscall.Timeval{Sec: 2}
	if err := syscall.SetsockoptTimeval(socket, syscall.SOL_SOCKET, syscall.SO_RCVTIMEO, &patience); err != nil {
		return nil, fmt.Errorf("cannot bound a netfilter request: %w", err)
	}
	if err := syscall.Sendto(socket, request(family), 0, &syscall.SockaddrNetlink{Family: syscall.AF_NETLINK}); err != nil {
		return nil, fmt.Errorf("cannot ask for the pod's egress rules: %w", err)
	}
	var rules []byte
	for buffer := make([]byte, 64<<10); ; {
		n, _, err := syscall.Recvfrom(socket, buffer, 0)
		if err != nil {
			return nil, fmt.Errorf("cannot read the pod's egress rules: %w", err)
		}
		messages, err := syscall.ParseNetlinkMessage(buffer[:n])
		if err != nil {
			return nil, fmt.Errorf("cannot read the pod's egress rules: %w", err)
		}
		for _, message := range messages {
			switch message.Header.Type {
			case syscall.NLMSG_DONE:
				return rules, nil
			case syscall.NLMSG_ERROR:
				return nil, errors.New("the kernel does not list the pod's egress rules")
			}
			rules = append(rules, message.Data...)
		}
	}
}

// request asks for a dump of the rules of our table.
func request(family byte) []byte {
	name := append([]byte(table), 0)
	attribute := binary.NativeEndian.AppendUint16(nil, uint16(4+len(name)))
	attribute = binary.NativeEndian.AppendUint16(attribute, ruleTable)
	attribute = append(attribute, name...)
	for len(attribute)%4 != 0 {
		attribute = append(attribute, 0)
	}
	body := append([]byte{family, 0, 0, 0}, attribute...) // struct nfgenmsg
	message := binary.NativeEndian.AppendUint32(nil, uint32(syscall.NLMSG_HDRLEN+len(body)))
	message = binary.NativeEndian.AppendUint16(message, getRule)
	message = binary.NativeEndian.AppendUint16(message, syscall.NLM_F_REQUEST|syscall.NLM_F_DUMP)
	message = binary.NativeEndian.AppendUint32(message, 1) // sequence
	message = binary.NativeEndian.AppendUint32(message, 0) // port: the kernel's choice
	return append(message, body...)
}
