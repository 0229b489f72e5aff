package egress

import (
	"context"
	"encoding/binary"
	"errors"
	"strings"
	"testing"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"github.com/hostler-dev/hostler/api/v1alpha1"
	"github.com/hostler-dev/hostler/netattach/internal/nettest"
)

func TestEnforceIsIdempotentAndMendsDrift(t *testing.T) {
	pod, _ := podAndOutside(t)
	rules := compiled(t, v1alpha1.EgressConfig{Never: []string{"10.0.0.0/8"}, Allow: []v1alpha1.EgressRule{
		allow("all", "0.0.0.0/0", v1alpha1.EgressPort{Port: 1, EndPort: 65535}),
		allow("all6", "::/0", v1alpha1.EgressPort{Protocol: v1alpha1.ProtocolUDP, Port: 5}, v1alpha1.EgressPort{Protocol: v1alpha1.ProtocolSCTP, Port: 7, EndPort: 9})}}, "169.254.20.10", "fd00::a")
	ctx := context.Background()
	if err := Verify(ctx, pod.FD, rules); !errors.Is(err, ErrDrift) {
		t.Fatalf("an empty namespace verified: %v", err)
	}
	enforce(t, pod, rules)
	before := handles(t, pod)
	enforce(t, pod, rules)
	if after := handles(t, pod); before != after {
		t.Errorf("the second call rewrote the rules:\n%s\n%s", before, after)
	}
	if hash, err := Installed(pod.FD); err != nil || hash != rules.Hash() {
		t.Errorf("Installed is %q, %v, want %q", hash, err, rules.Hash())
	}
	watcher := enforcer(t, pod, rules)
	for what, tamper := range map[string]func(c *socket){
		"a rule that accepts all": func(c *socket) {
			table := &nftables.Table{Name: tableName, Family: nftables.TableFamilyINet}
			c.InsertRule(&nftables.Rule{Table: table, Chain: &nftables.Chain{Name: output, Table: table}, Exprs: accept()})
		},
		"no rules": func(c *socket) {
			c.FlushTable(&nftables.Table{Name: tableName, Family: nftables.TableFamilyINet})
		},
		"no raw socket filter": func(c *socket) {
			c.DelTable(&nftables.Table{Name: tableName, Family: nftables.TableFamilyNetdev})
		},
		"a destination more": func(c *socket) {
			table := &nftables.Table{Name: tableName, Family: nftables.TableFamilyINet}
			set := &nftables.Set{Table: table, Name: "never-ip", KeyType: nftables.TypeIPAddr, Interval: true}
			if err := c.SetAddElements(set, []nftables.SetElement{{Key: []byte{11, 0, 0, 1}}, {Key: []byte{11, 0, 0, 2}, IntervalEnd: true}}); err != nil {
				t.Fatal(err)
			}
		},
		"another destination instead": func(c *socket) {
			table := &nftables.Table{Name: tableName, Family: nftables.TableFamilyINet}
			set := &nftables.Set{Table: table, Name: "never-ip", KeyType: nftables.TypeIPAddr, Interval: true}
			if err := errors.Join(
				c.SetDeleteElements(set, []nftables.SetElement{{Key: []byte{10, 0, 0, 0}}, {Key: []byte{11, 0, 0, 0}, IntervalEnd: true}}),
				c.SetAddElements(set, []nftables.SetElement{{Key: []byte{12, 0, 0, 0}}, {Key: []byte{13, 0, 0, 0}, IntervalEnd: true}}),
			); err != nil {
				t.Fatal(err)
			}
		},
		"a raw socket filter that accepts all": func(c *socket) {
			table := &nftables.Table{Name: tableName, Family: nftables.TableFamilyNetdev}
			c.InsertRule(&nftables.Rule{Table: table, Chain: &nftables.Chain{Name: netdevChain + "eth0", Table: table}, Exprs: accept()})
		},
		"the deciding table switched off":    func(c *socket) { switchOff(t, c, nftables.TableFamilyINet) },
		"the raw socket filter switched off": func(c *socket) { switchOff(t, c, nftables.TableFamilyNetdev) },
		"the raw socket filter of another interface": func(c *socket) {
			table := &nftables.Table{Name: tableName, Family: nftables.TableFamilyNetdev}
			chains, err := c.chains()
			if err != nil {
				t.Fatal(err)
			}
			rules, err := c.outputRules(chains)
			if err != nil {
				t.Fatal(err)
			}
			_, found := identityOf(rules)
			f := netdevForm(found, []string{"eth0"})
			f.chains[0].chain.Device = "lo"
			c.DelChain(&nftables.Chain{Name: f.chains[0].chain.Name, Table: table})
			if err := c.Flush(); err != nil {
				t.Fatal(err)
			}
			if err := c.write(form{chains: f.chains}); err != nil {
				t.Fatal(err)
			}
		},
	} {
		for who, mend := range map[string]func(context.Context) error{
			"mended by a new Enforcer":                func(ctx context.Context) error { return Enforce(ctx, pod.FD, rules) },
			"mended by one that found all right once": watcher.Enforce,
		} {
			t.Run(what+", "+who, func(t *testing.T) {
				if err := watcher.Enforce(ctx); err != nil {
					t.Fatal(err)
				}
				conn, err := connect(pod.FD)
				if err != nil {
					t.Fatal(err)
				}
				defer conn.CloseLasting()
				tamper(conn)
				if err := conn.Flush(); err != nil {
					t.Fatal(err)
				}
				if err := Verify(ctx, pod.FD, rules); !errors.Is(err, ErrDrift) {
					t.Errorf("not noticed: %v", err)
				}
				if err := mend(ctx); err != nil {
					t.Fatal(err)
				}
				if err := Verify(ctx, pod.FD, rules); err != nil {
					t.Errorf("not mended: %v", err)
				}
			})
		}
	}
}

// switchOff makes a table dormant, as nft(8) calls it.
func switchOff(t *testing.T, s *socket, family nftables.TableFamily) {
	t.Helper()
	var b batch
	b.mark(unix.NFNL_MSG_BATCH_BEGIN)
	b.nftables(unix.NFT_MSG_NEWTABLE, unix.NLM_F_CREATE|unix.NLM_F_ACK, family, "table", func() {
		b.text(unix.NFTA_TABLE_NAME, tableName)
		b.number(unix.NFTA_TABLE_FLAGS, unix.NFT_TABLE_F_DORMANT)
	})
	b.mark(unix.NFNL_MSG_BATCH_END)
	if err := s.commit(b); err != nil {
		t.Fatal(err)
	}
}

// An interface that was added is not covered until Enforce ran again, and
// Verify says so.
func TestNewInterfacesAreCovered(t *testing.T) {
	pod, outside := podAndOutside(t)
	rules := compiled(t, v1alpha1.EgressConfig{})
	enforce(t, pod, rules)
	before := strings.Split(handles(t, pod), "egress-")[0]
	nettest.Join(t, pod, "net1", outside, "pod1")
	if err := Verify(context.Background(), pod.FD, rules); !errors.Is(err, ErrDrift) || !strings.Contains(err.Error(), "egress-net1") {
		t.Fatalf("want the missing chain of net1, got %v", err)
	}
	enforce(t, pod, rules)
	if err := Verify(context.Background(), pod.FD, rules); err != nil {
		t.Fatal(err)
	}
	if after := strings.Split(handles(t, pod), "egress-")[0]; before != after {
		t.Errorf("the rules of the output chain, with their counters, were replaced for a new interface:\n%s\n%s", before, after)
	}
}

// Random scopes and packets get the same verdict from Evaluate and the kernel.
func TestKernelAgreesWithEvaluate(t *testing.T) {
	pod, _ := podAndOutside(t)
	rapid.Check(t, func(r *rapid.T) {
		config := anyScope(r)
		rules := compiled(t, config, "10.0.0.3", "2001:db8:2::3")
		enforce(t, pod, rules)
		for range 25 {
			packet := anyPacket(r)
			want := Evaluate(rules, packet)
			err := sendPacket(t, pod, packet)
			if err != nil && !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.EHOSTUNREACH) && !errors.Is(err, unix.EACCES) {
				r.Fatalf("%+v: %v", packet, err)
			}
			if (err == nil) != want.Allowed {
				r.Fatalf("%+v: the kernel says %v, Evaluate %+v\n%s", packet, err, want, rules)
			}
		}
	})
}

// sendPacket writes a transport header to a raw IP socket, which passes the
// output chain like any other packet.
func sendPacket(t testing.TB, pod *nettest.Namespace, packet Packet) (err error) {
	payload := make([]byte, 20)
	binary.BigEndian.PutUint16(payload[0:], 40000)
	binary.BigEndian.PutUint16(payload[2:], packet.Port)
	domain := unix.AF_INET6
	var to unix.Sockaddr = &unix.SockaddrInet6{Addr: packet.Destination.As16()}
	if packet.Destination.Is4() {
		domain, to = unix.AF_INET, &unix.SockaddrInet4{Addr: packet.Destination.As4()}
	}
	if packet.Protocol == ICMPv6 {
		payload[0], payload[1] = packet.ICMPv6Type, 0
	}
	pod.Do(t, func() {
		fd, socketErr := unix.Socket(domain, unix.SOCK_RAW, int(packet.Protocol))
		if socketErr != nil {
			t.Fatal(socketErr)
		}
		defer unix.Close(fd)
		if packet.Protocol == ICMPv6 {
			if optErr := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_UNICAST_HOPS, int(packet.HopLimit)); optErr != nil {
				t.Fatal(optErr)
			}
		}
		err = unix.Sendto(fd, payload, 0, to)
	})
	return err
}
