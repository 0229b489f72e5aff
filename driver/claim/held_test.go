package claim

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/types"
)

// of moves a claim to another namespace, under names that nothing else has.
func of(namespace string, claim *resourceapi.ResourceClaim) *resourceapi.ResourceClaim {
	claim.Namespace, claim.UID = namespace, types.UID("uid-of-"+namespace)
	return claim
}

// asOfLaterVersion is what this version reads of the entry if a later one wrote it.
func asOfLaterVersion(t *testing.T, entry *Entry) *Entry {
	t.Helper()
	journal := journalV2{Entries: []*entryV2{toV2(entry)}}
	journal.SetGroupVersionKind(journalVersion("v3").WithKind(journalKind))
	raw, err := json.Marshal(journal)
	if err != nil {
		t.Fatal(err)
	}
	read, err := theCodec(t).decodeEntry(entry.ClaimUID, raw)
	var later *versionError
	if !errors.As(err, &later) {
		t.Fatalf("the entry is of this version: %v", err)
	}
	return read
}

func TestWhoHoldsADeviceIsToldToItsNamespaceAlone(t *testing.T) {
	const gpu, pf, vf = "gpu-0000-17-00-0", "nic-0000-1d-00-0", "nic-0000-1d-00-1"
	const mine, theirs = "claim team/payroll (uid-of-team)", "a claim of another namespace (the agent's log names it)"
	const why = "undo: bring netdev eth4 home: pod payroll-0 still runs"
	const later = " on this node, and this version cannot take that back when the claim's pod is gone; it is free once the later version has run on the node again, or its `hostler release`, or after a reboot of the node"
	for _, test := range []struct {
		name          string
		holds, wants  [2]string
		change        func(*Entry)
		own, stranger string
	}{
		{"the device itself", onGPU(gpu), onGPU(gpu), nil,
			"device " + gpu + " is already held by " + mine + " on this node; it is free once that claim's pod is gone",
			"device " + gpu + " is already held by " + theirs + " on this node; it is free once that claim's pod is gone"},
		{"hardware that it is made of", onNIC(vf), onNIC(pf), nil,
			"device " + pf + " shares hardware with device " + vf + ", which is held by " + mine + " on this node; it is free once that claim's pod is gone",
			"device " + pf + " shares hardware with device " + vf + ", which is held by " + theirs + " on this node; it is free once that claim's pod is gone"},
		{"a claim that cannot be undone", onNIC(vf), onNIC(pf), func(e *Entry) { e.Ending = why },
			"device " + pf + " is not free: device " + vf + " of " + mine + ", which is over, could not be taken back yet: " + why + "; the agent tries again every few minutes and when asked, see its log",
			"device " + pf + " is not free: device " + vf + " of " + theirs + ", which is over, could not be taken back yet; the agent tries again every few minutes and when asked, and its log says why"},
		{"a partition that was left behind", onGPU(part1g1), onGPU(part2g0), func(e *Entry) { e.Released = true },
			"device " + part2g0 + " needs memory slices of partition " + part1g1 + ", which was made for " + mine + " and could not be removed after it while the driver did not work; it is free once the agent has removed it, see its log",
			"device " + part2g0 + " needs memory slices of partition " + part1g1 + ", which was made for " + theirs + " and could not be removed after it while the driver did not work; it is free once the agent has removed it, see its log"},
		{"a claim of a later version of the agent", onNIC(vf), onNIC(pf), func(e *Entry) { *e = *asOfLaterVersion(t, e) },
			"device " + pf + " is not free: a later version of the agent prepared " + mine + " with device " + vf + later,
			"device " + pf + " is not free: a later version of the agent prepared " + theirs + " with device " + vf + later},
	} {
		t.Run(test.name, func(t *testing.T) {
			for namespace, want := range map[string]string{"team": test.own, "finance": test.stranger} {
				holder, err := planOn(cutMachine(migDevice()), of(namespace, allocated("payroll", test.holds)))
				if err != nil {
					t.Fatal(err)
				}
				if test.change != nil {
					test.change(holder)
				}
				wanting := entryOf(t, "wanting", false, test.wants)
				refused := conflict(wanting, map[types.UID]*Entry{holder.ClaimUID: holder})
				if refused == nil || refused.Error() != want {
					t.Errorf("namespace %s is told\n%v; want\n%s", namespace, refused, want)
				}
				log := strings.Join(Details(fmt.Errorf("claim team/wanting: %w", errors.Join(errors.New("another fault"), refused))), " ")
				for _, word := range []string{namespace + "/payroll", string(holder.ClaimUID), test.holds[1], holder.Ending} {
					if !strings.Contains(log, word) {
						t.Errorf("the log of it is %q, and does not say %q", log, word)
					}
				}
			}
		})
	}
}

// Shares of one NIC are another way to be in each other's.
func TestWhoSharesANICIsToldToItsNamespaceAlone(t *testing.T) {
	var entries []*Entry
	for namespace, config := range map[string]string{"finance": `{"mode": "macvlan"}`, "team": `{"mode": "ipvlan"}`} {
		entry, err := planOn(fastMachine(), of(namespace, sharing(with(allocated("payroll-of-"+namespace, onNIC(nicPlain)), claim, "NICConfig "+config), "10G")))
		if err != nil {
			t.Fatal(err)
		}
		entries = append(entries, entry)
	}
	for i, entry := range entries {
		other := entries[1-i]
		err := conflict(entry, map[types.UID]*Entry{other.ClaimUID: other})
		if err == nil || !strings.Contains(err.Error(), "shared with a claim of another namespace") || strings.Contains(err.Error(), other.ClaimNamespace+"/") || strings.Contains(err.Error(), "payroll") {
			t.Errorf("namespace %s is told: %v", entry.ClaimNamespace, err)
		}
	}
}

// Pods are those of their namespace, whatever UID a claim's status says.
func TestClaimsOfTwoNamespacesAreInNoPodTogether(t *testing.T) {
	rdma := of("finance", allocated("payroll", onNIC("nic-0000-18-00-0")))
	scope := allocated("scope", onEgress())
	scope.Status.ReservedFor[0].UID = rdma.Status.ReservedFor[0].UID
	held, err := plan(rdma)
	if err != nil {
		t.Fatal(err)
	}
	joining, err := plan(scope)
	if err != nil {
		t.Fatal(err)
	}
	if err := conflict(joining, map[types.UID]*Entry{held.ClaimUID: held}); err != nil {
		t.Errorf("it is told of another namespace's claim: %v", err)
	}
	held.ClaimNamespace = "team"
	if err := conflict(joining, map[types.UID]*Entry{held.ClaimUID: held}); err == nil {
		t.Error("in one pod they would be refused")
	}
}

func TestDetailsAreOfAllErrors(t *testing.T) {
	one, two := &HeldError{HeldDevice: "one"}, &HeldError{HeldDevice: "two"}
	got := Details(errors.Join(one, fmt.Errorf("claim team/c: %w", two), errors.New("plain")))
	if len(got) != 2 || slices.ContainsFunc(got, func(s string) bool { return s == "" }) || Details(nil) != nil {
		t.Errorf("details %q", got)
	}
}
