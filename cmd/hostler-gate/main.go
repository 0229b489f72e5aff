// hostler-gate is the OCI createRuntime hook in the CDI spec of every claim. It
// runs on the host before a container's first process and lets it start only if
// the claim is attached to the container's network namespace. A container with a
// claimed NIC it then holds to the RDMA devices that it was given.
//
// It asks the agent. While the agent is away it decides itself, and only ever
// in favour of what is proven: the agent has recorded this claim as attached to
// this very namespace, and the kernel still shows the devices and rules there.
// So containers of running pods may restart, and nothing new starts unattached.
//
// It has no dependencies but the standard library: it must start in
// milliseconds on any host.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"
)

func main() {
	if err := run(os.Args[1:], os.Stdin); err != nil {
		// runc and crun put a hook's standard error into the pod's events.
		fmt.Fprintf(os.Stderr, "hostler: this container may not start: %v\n", err)
		os.Exit(1)
	}
}

func run(args []string, stdin io.Reader) error {
	flags := flag.NewFlagSet("hostler-gate", flag.ContinueOnError)
	socket := flags.String("socket", "/run/hostler/gate.sock", "the agent's gate socket")
	records := flags.String("records", "/run/hostler/attached", "the agent's attachment records")
	claim := flags.String("claim", "", "UID of the claim that the container uses")
	timeout := flags.Duration("timeout", 10*time.Second, "how long to wait for the agent")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *claim == "" {
		return errors.New("the CDI spec names no claim (--claim); delete the pod so that its claims are prepared again")
	}
	container, err := readContainer(stdin)
	if err != nil {
		return err
	}
	namespace, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", container.Pid))
	if err != nil {
		return fmt.Errorf("cannot open the container's network namespace: %w", err)
	}
	defer namespace.Close()
	question := container.question(*claim)
	if err := admit(*socket, *records, question, namespace, time.Now().Add(*timeout)); err != nil {
		return err
	}
	nics, err := hasNICs(*records, question)
	if err != nil || !nics {
		return err
	}
	return rdmaLimits{set: setLimit}.hold(container)
}

// admit returns nil if the agent admits the container, or if the agent is away and it is
// proven that it would.
func admit(socket, records string, question question, namespace *os.File, deadline time.Time) error {
	for {
		err := ask(socket, question, namespace, deadline)
		if !errors.Is(err, errUnreachable) {
			return err
		}
		proof := prove(records, question, namespace)
		if proof == nil {
			return nil
		}
		// An agent that is being replaced is back within seconds.
		const pause = 100 * time.Millisecond
		if time.Until(deadline) < pause {
			return fmt.Errorf("claim %s: %w, and without the agent the claim cannot be attached: %w; see that the hostler agent runs on this node", question.Claim, err, proof)
		}
		time.Sleep(pause)
	}
}

// container is the OCI runtime state (runtime-spec, runtime.md, "State") and
// what the bundle adds to it.
type container struct {
	ID          string            `json:"id"`
	Pid         int               `json:"pid"`
	Bundle      string            `json:"bundle"`
	Annotations map[string]string `json:"annotations"`
	netns       string
	// capabilities are those of any set: what is bounding only, a setuid program
	// of the image can make effective (capabilities(7)).
	capabilities []string
	// rules of its device cgroup.
	rules []deviceRule
}

// readContainer reads the state, and the container's configuration for
// annotations that the runtime did not repeat in it.
func readContainer(stdin io.Reader) (container, error) {
	var c container
	if err := json.NewDecoder(stdin).Decode(&c); err != nil {
		return c, fmt.Errorf("cannot read the container's state on standard input: %w; hostler-gate is an OCI hook", err)
	}
	if c.Pid <= 0 {
		return c, errors.New("the container's state has no pid; hostler-gate is a createRuntime hook")
	}
	raw, err := os.ReadFile(filepath.Join(c.Bundle, "config.json"))
	if err != nil {
		return c, fmt.Errorf("cannot read the container's configuration: %w", err)
	}
	var config struct {
		Annotations map[string]string `json:"annotations"`
		Process     struct {
			Capabilities map[string][]string `json:"capabilities"`
		} `json:"process"`
		Linux struct {
			Namespaces []struct{ Type, Path string } `json:"namespaces"`
			Resources  struct {
				Devices []deviceRule `json:"devices"`
			} `json:"resources"`
		} `json:"linux"`
	}
	if err := json.Unmarshal(raw, &config); err != nil {
		return c, fmt.Errorf("cannot read the container's configuration: %w", err)
	}
	if c.Annotations == nil {
		c.Annotations = map[string]string{}
	}
	for key, value := range config.Annotations {
		c.Annotations[key] = value
	}
	for _, namespace := range config.Linux.Namespaces {
		if namespace.Type == "network" {
			c.netns = namespace.Path
		}
	}
	for _, set := range config.Process.Capabilities {
		c.capabilities = append(c.capabilities, set...)
	}
	c.rules = config.Linux.Resources.Devices
	slices.Sort(c.capabilities)
	c.capabilities = slices.Compact(c.capabilities)
	return c, nil
}

// question finds the pod by the annotations of containerd
// (internal/cri/annotations) or CRI-O (pkg/annotations).
func (c container) question(claim string) question {
	first := func(keys ...string) string {
		for _, key := range keys {
			if c.Annotations[key] != "" {
				return c.Annotations[key]
			}
		}
		return ""
	}
	return question{
		Claim: claim, Container: c.ID, NetNS: c.netns, Capabilities: c.capabilities,
		Sandbox:      first("io.kubernetes.cri.sandbox-id", "io.kubernetes.cri-o.SandboxID"),
		PodUID:       first("io.kubernetes.cri.sandbox-uid", "io.kubernetes.pod.uid"),
		PodNamespace: first("io.kubernetes.cri.sandbox-namespace", "io.kubernetes.pod.namespace"),
		PodName:      first("io.kubernetes.cri.sandbox-name", "io.kubernetes.pod.name"),
	}
}
