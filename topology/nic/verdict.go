// From links to NICs: a function is the node's if any of its netdevs is, a VF
// if its PF is, and a PF if one of its VFs is, because a VF lives on its PF's port.
// Siblings of an uplink VF stay free. The same is asked twice: of all functions when
// the machine is read, and afresh of the few that are about to be given away.

package nic

import (
	"context"
	"fmt"
	"slices"

	"k8s.io/klog/v2"

	"github.com/hostler-dev/hostler/topology"
)

// markUplinks sets NIC.Uplink of all functions. unread is why the network could
// not be read, nil if it could.
func markUplinks(functions []*function, v *verdicts, unread error) []topology.Problem {
	if unread != nil {
		for _, f := range functions {
			f.nic.Uplink = fmt.Sprintf("cannot be told apart from the node's uplink: %v", unread)
		}
		return nil
	}
	own, byName := map[string]string{}, map[string]*function{}
	for _, f := range functions {
		byName[f.nic.Name] = f
		if reason := v.of(f.nic.Placement.PCI, f.netdevs); reason != "" {
			f.nic.Uplink, own[f.nic.Name] = reason, reason
		}
	}
	for _, f := range functions {
		if f.nic.Kind != topology.VF {
			continue
		}
		if reason := own[f.nic.Parent]; reason != "" && f.nic.Uplink == "" {
			f.nic.Uplink = ofParent(f.nic.Parent, reason)
		}
		if pf := byName[f.nic.Parent]; own[f.nic.Name] != "" && pf != nil && pf.nic.Uplink == "" {
			pf.nic.Uplink = ofVF(f.nic.Name, own[f.nic.Name])
		}
	}
	if !v.reachable && len(functions) > 0 {
		return []topology.Problem{{
			Subject: "uplink",
			Message: "the node has no default route and none of its links carries the node's address: no NIC is marked as the node's uplink; give the agent the node's address",
		}}
	}
	return nil
}

func ofParent(pf, reason string) string { return fmt.Sprintf("is a VF of %s, which %s", pf, reason) }
func ofVF(vf, reason string) string     { return fmt.Sprintf("is the PF of %s, which %s", vf, reason) }

// of is the reason of a function with these netdevs.
func (v *verdicts) of(pci string, netdevs []string) string {
	for _, netdev := range netdevs {
		if reason := v.reasons[v.n.byName[netdev].Index]; reason != "" {
			return reason
		}
	}
	return v.functions[pci]
}

// Uplinks looks again, and says of those of the given NICs on which the node
// lives now why it does, by NIC name. It is for the moment before a NIC is given away:
// it asks netlink once and sysfs only about the NICs in question. A NIC whose netdev's name
// now belongs to something else has a reason too. An error means that the network
// could not be read; no NIC may be given away then.
func (r *Reader) Uplinks(ctx context.Context, nics []topology.NIC) (map[string]string, error) {
	n, err := observe(r.kernel, r.nodeAddresses)
	if err != nil {
		return nil, fmt.Errorf("whether the node lives on a NIC cannot be told: %w", err)
	}
	networks, problems := readPodNetworks(r.cniConfig)
	for _, problem := range problems {
		klog.FromContext(ctx).V(2).Info("What the pod network runs over is not completely known", "subject", problem.Subject, "message", problem.Message)
	}
	v := judge(n, r.stackOf(n), interests{nodeAddresses: r.nodeAddresses, servers: r.servers, podNetworks: networks})
	reasons := map[string]string{}
	for i := range nics {
		if reason := r.fresh(v, &nics[i]); reason != "" {
			reasons[nics[i].Name] = reason
		}
	}
	return reasons, nil
}

func (r *Reader) fresh(v *verdicts, nic *topology.NIC) string {
	pci := nic.Placement.PCI
	netdevs := Netdevs(r.sys, pci)
	if reason := v.of(pci, netdevs); reason != "" {
		return reason
	}
	if nic.Link != nil && !slices.Contains(netdevs, nic.Link.Name) {
		if state, ok := v.n.byName[nic.Link.Name]; ok {
			return fmt.Sprintf("was known as %s, a name that now belongs to %s: which netdev is whose has changed since the machine was read", nic.Link.Name, r.holder(state))
		}
	}
	if pf := r.sys.LinkBase("bus", "pci", "devices", pci, "physfn"); pf != "" {
		if reason := v.of(pf, Netdevs(r.sys, pf)); reason != "" {
			return ofParent(topology.NICName(pf), reason)
		}
		return ""
	}
	if nic.Kind != topology.PF || r.sys.OptionalInt(0, "bus", "pci", "devices", pci, "sriov_numvfs") == 0 {
		return ""
	}
	for link, reason := range v.reasons {
		vf := r.functionOf(v.name(link))
		if vf != "" && r.sys.LinkBase("bus", "pci", "devices", vf, "physfn") == pci {
			return ofVF(topology.NICName(vf), reason)
		}
	}
	return ""
}

func (r *Reader) holder(state LinkState) string {
	if pci := r.functionOf(state.Name); pci != "" {
		return "the PCI function " + pci
	}
	return fmt.Sprintf("a netdev without PCI function (%s)", state.Kind)
}
