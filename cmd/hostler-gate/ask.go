package main

// The conversation with the agent: one line of JSON and the descriptor of the
// network namespace there, one line back. netattach/gate is the other side.

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
	"time"
)

type question struct {
	Claim        string `json:"claim"`
	Container    string `json:"container"`
	Sandbox      string `json:"sandbox"`
	PodUID       string `json:"podUID"`
	PodNamespace string `json:"podNamespace"`
	PodName      string `json:"podName"`
	NetNS        string `json:"netns"`
	// Capabilities that the agent refuses beside an egress scope are among these.
	Capabilities []string `json:"capabilities,omitempty"`
}

type answer struct {
	OK     bool   `json:"ok"`
	Reason string `json:"reason"`
}

// errUnreachable: the agent did not say no, it said nothing.
var errUnreachable = errors.New("the hostler agent does not answer")

func ask(socket string, q question, namespace *os.File, deadline time.Time) error {
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		return fmt.Errorf("%w: %w", errUnreachable, err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(deadline); err != nil {
		return fmt.Errorf("%w: %w", errUnreachable, err)
	}
	line, err := json.Marshal(q)
	if err != nil {
		return err
	}
	if _, _, err := conn.WriteMsgUnix(append(line, '\n'), syscall.UnixRights(int(namespace.Fd())), nil); err != nil {
		return fmt.Errorf("%w: %w", errUnreachable, err)
	}
	var a answer
	if err := json.NewDecoder(conn).Decode(&a); err != nil {
		return fmt.Errorf("%w: %w", errUnreachable, err)
	}
	if !a.OK {
		return errors.New(a.Reason)
	}
	return nil
}
