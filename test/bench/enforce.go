package main

// A scope of 1,000 prefixes, compiled and brought into force in a pod-like
// network namespace that has no rules yet. The floor is one netlink transaction
// there: an empty table.

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"time"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/hostler-dev/hostler/api/v1alpha1"
	"github.com/hostler-dev/hostler/netattach/egress"
)

const enforcements = 40

func measureEnforce(ctx context.Context, _ *bed, results []*Result) error {
	var ours, compiling, floor samples
	for range enforcements {
		namespace, err := newNamespace()
		if err != nil {
			return err
		}
		err = func() error {
			defer namespace.Close()
			began := time.Now()
			if err := emptyTable(int(namespace.Fd())); err != nil {
				return err
			}
			floor.add(time.Since(began))
			began = time.Now()
			rules, err := egress.Compile(thousandPrefixes(), nil, nil)
			if err != nil {
				return fmt.Errorf("compile: %w", err)
			}
			compiling.add(time.Since(began))
			if err := egress.Enforce(ctx, int(namespace.Fd()), rules); err != nil {
				return fmt.Errorf("enforce: %w", err)
			}
			ours.add(time.Since(began))
			return nil
		}()
		if err != nil {
			return err
		}
	}
	r := results[0]
	r.Set(ours.p50(), len(ours))
	r.SetFloor(floor.p50())
	r.Note = fmt.Sprintf("p50, of it %s ms compiling; floor: an empty table", number(new(compiling.p50())))
	return nil
}

func thousandPrefixes() v1alpha1.EgressConfig {
	rule := v1alpha1.EgressRule{Name: "many", Ports: []v1alpha1.EgressPort{{Port: 443, Protocol: v1alpha1.ProtocolTCP}}}
	for i := range 1000 { // none next to another, so that none can be merged
		rule.To = append(rule.To, v1alpha1.EgressPeer{CIDR: &v1alpha1.CIDRPeer{CIDR: fmt.Sprintf("10.%d.%d.0/24", i/100, 2*(i%100))}})
	}
	return v1alpha1.EgressConfig{DNS: v1alpha1.DNSNone, Allow: []v1alpha1.EgressRule{rule}}
}

// newNamespace makes a namespace with lo and eth0, held by its descriptor only.
func newNamespace() (*os.File, error) {
	file, err := unshared()
	if err != nil {
		return nil, fmt.Errorf("make a network namespace: %w; the bench needs root", err)
	}
	handle, err := netlink.NewHandleAt(netns.NsHandle(file.Fd()), unix.NETLINK_ROUTE)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("enter the network namespace: %w", err), file.Close())
	}
	defer handle.Close()
	if err := handle.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "eth0"}, PeerName: "peer"}); err != nil {
		return nil, errors.Join(fmt.Errorf("make the namespace's interface: %w", err), file.Close())
	}
	return file, nil
}

func unshared() (*os.File, error) {
	runtime.LockOSThread()
	old, err := netns.Get()
	if err != nil {
		runtime.UnlockOSThread()
		return nil, err
	}
	defer old.Close()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		return nil, err
	}
	file, err := os.Open("/proc/thread-self/ns/net")
	if back := netns.Set(old); back != nil {
		return nil, back // the thread stays locked and ends with the goroutine
	}
	runtime.UnlockOSThread()
	return file, err
}

func emptyTable(namespace int) error {
	connection, err := nftables.New(nftables.WithNetNSFd(namespace), nftables.AsLasting())
	if err != nil {
		return fmt.Errorf("open a netfilter socket: %w", err)
	}
	defer connection.CloseLasting()
	connection.AddTable(&nftables.Table{Name: "floor", Family: nftables.TableFamilyINet})
	if err := connection.Flush(); err != nil {
		return fmt.Errorf("make an empty table: %w", err)
	}
	return nil
}
