package cluster

// The cluster's network: one bridge in a namespace of its own joins the nodes,
// the machine (one veth, no forwarding) and "the world", a namespace that owns
// the documentation prefixes and is every node's default gateway. So egress has
// somewhere to go, and still no packet can leave the machine.
//
// Everything is said in iproute2's batch language, so that it can be read, and
// repeated by hand.

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// outside lists the destinations that the world answers for.
var outside = []string{"198.51.100.0/24", "203.0.113.0/24", "169.254.169.254/32", "2001:db8::/32"}

// rootBatch makes the namespaces and the machine's own link. Pods are reached
// through their node, without translation, so that every address seen is true.
func (p Plan) rootBatch() string {
	var b strings.Builder
	for _, part := range []string{"net", "world", "fabric"} {
		fmt.Fprintf(&b, "netns add %s\n", p.netNS(part))
	}
	for _, n := range p.Nodes {
		fmt.Fprintf(&b, "netns add %s\n", p.netNS(n.Name))
	}
	fmt.Fprintf(&b, "link add %s type veth peer name machine netns %s\n", p.rootLink(), p.netNS("net"))
	fmt.Fprintf(&b, "addr add %s/24 dev %s\n", p.serverAddress(), p.rootLink())
	fmt.Fprintf(&b, "link set %s up\n", p.rootLink())
	for _, n := range p.Nodes {
		fmt.Fprintf(&b, "route add %s via %s dev %s\n", p.podSubnet(n), p.nodeAddress(n), p.rootLink())
	}
	return b.String()
}

// bridgeBatch runs in the namespace "net".
func (p Plan) bridgeBatch() string {
	var b strings.Builder
	b.WriteString("link set lo up\nlink add nodes type bridge\nlink set nodes up\nlink set machine master nodes\nlink set machine up\n")
	join := func(port, peer, mac, ns string) {
		if mac != "" {
			peer += " address " + mac
		}
		fmt.Fprintf(&b, "link add %s type veth peer name %s netns %s\n", port, peer, ns)
		fmt.Fprintf(&b, "link set %s master nodes\nlink set %s up\n", port, port)
	}
	join("world", "eth0", "", p.netNS("world"))
	for _, n := range p.Nodes {
		join(fmt.Sprintf("node%d", n.Number), n.Uplink, n.UplinkMAC, p.netNS(n.Name))
	}
	return b.String()
}

// worldBatch runs in the namespace "world". A local route for a whole prefix
// makes every address in it answer (ip-route(8), type local).
func (p Plan) worldBatch() string {
	var b strings.Builder
	b.WriteString("link set lo up\n")
	fmt.Fprintf(&b, "addr add %s/24 dev eth0\naddr add %s/64 dev eth0 nodad\nlink set eth0 up\n", p.worldAddress(), p.worldAddress6())
	for _, prefix := range outside {
		fmt.Fprintf(&b, "route add local %s dev lo\n", prefix)
	}
	for _, n := range p.Nodes {
		fmt.Fprintf(&b, "route add %s via %s\nroute add %s via %s\n", p.podSubnet(n), p.nodeAddress(n), p.podSubnet6(n), p.nodeAddress6(n))
	}
	return b.String()
}

// nodeBatch runs in the namespace of node n.
func (p Plan) nodeBatch(n NodePlan) string {
	var b strings.Builder
	b.WriteString("link set lo up\n")
	fmt.Fprintf(&b, "addr add %s/24 dev %s\naddr add %s/64 dev %s nodad\nlink set %s up\n", p.nodeAddress(n), n.Uplink, p.nodeAddress6(n), n.Uplink, n.Uplink)
	fmt.Fprintf(&b, "route add default via %s\nroute add default via %s\n", p.worldAddress(), p.worldAddress6())
	for _, peer := range p.Nodes {
		if peer.Name != n.Name {
			fmt.Fprintf(&b, "route add %s via %s\nroute add %s via %s\n", p.podSubnet(peer), p.nodeAddress(peer), p.podSubnet6(peer), p.nodeAddress6(peer))
		}
	}
	return b.String()
}

// worldRules count per destination what reached the world; read them with
// `nft list table inet world` in its namespace.
const worldRules = `table inet world {
	set seen4 { type ipv4_addr . inet_proto . inet_service; size 65535; flags dynamic; counter; }
	set seen6 { type ipv6_addr . inet_proto . inet_service; size 65535; flags dynamic; counter; }
	chain arrivals {
		type filter hook prerouting priority raw;
		iifname "eth0" meta l4proto { tcp, udp, sctp } update @seen4 { ip daddr . meta l4proto . th dport }
		iifname "eth0" meta l4proto { tcp, udp, sctp } update @seen6 { ip6 daddr . meta l4proto . th dport }
	}
}
`

// rootRules keep a machine that forwards (for containers of its own, say) from forwarding for the cluster.
func (p Plan) rootRules() string {
	return fmt.Sprintf(`table inet %[1]s {
	chain forward {
		type filter hook forward priority filter;
		iifname %[1]q drop
		oifname %[1]q drop
	}
}
`, p.rootLink())
}

func (p Plan) createNetwork(ctx context.Context) error {
	batches := []struct{ ns, batch string }{
		{"", p.rootBatch()}, {"net", p.bridgeBatch()}, {"world", p.worldBatch()},
	}
	for _, n := range p.Nodes {
		batches = append(batches, struct{ ns, batch string }{n.Name, p.nodeBatch(n)})
	}
	for _, step := range batches {
		args := []string{"-batch", "-"}
		if step.ns != "" {
			args = []string{"-n", p.netNS(step.ns), "-batch", "-"}
		}
		if err := feed(ctx, step.batch, "ip", args...); err != nil {
			return fmt.Errorf("set up the cluster's network: %w", err)
		}
	}
	if err := feed(ctx, worldRules, "nsenter", "--net="+p.netNSPath("world"), "nft", "-f", "-"); err != nil {
		return fmt.Errorf("count what reaches the world: %w", err)
	}
	if err := feed(ctx, p.rootRules(), "nft", "-f", "-"); err != nil {
		return fmt.Errorf("keep the machine from forwarding for the cluster: %w", err)
	}
	return nil
}

// feed runs a command with the given standard input and returns what it complained about.
func feed(ctx context.Context, input, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdin = strings.NewReader(input)
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(output.String()))
	}
	return nil
}
