// Between the journal's versions on disk and the form that the program works with.
// API machinery picks the function by the types.

package claim

import (
	"errors"
	"fmt"

	"k8s.io/apimachinery/pkg/conversion"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Versions of the journal, oldest first.
const (
	version1 = "v1"
	version2 = "v2"
)

const journalGroup, journalKind = "journal.hostler.dev", "Journal"

func journalVersion(version string) schema.GroupVersion {
	return schema.GroupVersion{Group: journalGroup, Version: version}
}

func newJournalScheme() (*runtime.Scheme, error) {
	scheme := runtime.NewScheme()
	scheme.AddKnownTypeWithName(journalVersion(runtime.APIVersionInternal).WithKind(journalKind), &record{})
	scheme.AddKnownTypeWithName(journalVersion(version1).WithKind(journalKind), &journalV1{})
	scheme.AddKnownTypeWithName(journalVersion(version2).WithKind(journalKind), &journalV2{})
	return scheme, errors.Join(
		convert(scheme, func(in *journalV1, out *record) error {
			*out = record{Entries: each(in.Entries, fromV1), Unprepared: each(in.Unprepared, tombstoneFromV1), Incomplete: in.Incomplete, Generation: in.Generation, Sequence: in.Sequence}
			return nil
		}),
		convert(scheme, func(in *journalV2, out *record) error {
			*out = record{Entries: each(in.Entries, fromV2), Unprepared: each(in.Unprepared, tombstoneFromV1), Incomplete: in.Incomplete, Generation: in.Generation, Sequence: in.Sequence}
			return nil
		}),
		convert(scheme, func(in *record, out *journalV1) error {
			for _, entry := range in.Entries {
				if entry.oldestVersion() != version1 {
					return fmt.Errorf("the entry of claim %s cannot be said in version %s", entry.ClaimUID, version1)
				}
			}
			*out = journalV1{Entries: each(in.Entries, toV1), Unprepared: each(in.Unprepared, tombstoneToV1), Incomplete: in.Incomplete, Generation: in.Generation, Sequence: in.Sequence}
			return nil
		}),
		convert(scheme, func(in *record, out *journalV2) error {
			*out = journalV2{Entries: each(in.Entries, toV2), Unprepared: each(in.Unprepared, tombstoneToV1), Incomplete: in.Incomplete, Generation: in.Generation, Sequence: in.Sequence}
			return nil
		}),
	)
}

func convert[A, B any](scheme *runtime.Scheme, f func(*A, *B) error) error {
	return scheme.AddConversionFunc((*A)(nil), (*B)(nil), func(a, b any, _ conversion.Scope) error { return f(a.(*A), b.(*B)) })
}

func each[A, B any](list []A, f func(A) B) []B {
	out := make([]B, 0, len(list))
	for _, item := range list {
		out = append(out, f(item))
	}
	return out
}

// oldestVersion is the oldest in which all of the record can be said.
func (r *record) oldestVersion() string {
	version := version1
	for _, entry := range r.Entries {
		version = max(version, entry.oldestVersion())
	}
	return version
}

// oldestVersion is the oldest in which all of the entry can be said.
func (e *Entry) oldestVersion() string {
	for i := range e.Devices {
		if device := &e.Devices[i]; device.VF != nil || device.VFIO != nil || !isInV1(device.Network) {
			return version2
		}
	}
	return version1
}

func fromV1(in *entryV1) *Entry {
	if in == nil {
		return nil
	}
	out := newEntry(&in.claimV1, &in.endV1)
	for i := range in.Devices {
		out.Devices = append(out.Devices, deviceFromV1(&in.Devices[i]))
	}
	return out
}

func toV1(in *Entry) *entryV1 {
	out := &entryV1{claimV1: claimToV1(in), endV1: endToV1(in)}
	for i := range in.Devices {
		out.Devices = append(out.Devices, deviceToV1(&in.Devices[i]))
	}
	return out
}

func fromV2(in *entryV2) *Entry {
	if in == nil {
		return nil
	}
	out := newEntry(&in.claimV1, &in.endV1)
	for i := range in.Devices {
		device := hardwareFromV1(&in.Devices[i].hardwareV1)
		device.Network = in.Devices[i].Network
		if vf := in.Devices[i].VF; vf != nil {
			device.VF = &VFChange{PF: vf.PF, Index: vf.Index, Wanted: vf.Wanted, Before: vf.Before, NetdevMAC: vf.NetdevMAC}
		}
		device.VFIO = in.Devices[i].VFIO
		out.Devices = append(out.Devices, device)
	}
	return out
}

func toV2(in *Entry) *entryV2 {
	out := &entryV2{claimV1: claimToV1(in), endV1: endToV1(in)}
	for i := range in.Devices {
		device := deviceV2{hardwareV1: hardwareToV1(&in.Devices[i]), Network: in.Devices[i].Network, VFIO: in.Devices[i].VFIO}
		if vf := in.Devices[i].VF; vf != nil {
			device.VF = &vfChangeV2{PF: vf.PF, Index: vf.Index, Wanted: vf.Wanted, Before: vf.Before, NetdevMAC: vf.NetdevMAC}
		}
		out.Devices = append(out.Devices, device)
	}
	return out
}

func newEntry(claim *claimV1, end *endV1) *Entry {
	return &Entry{
		ClaimUID: claim.ClaimUID, ClaimNamespace: claim.ClaimNamespace, ClaimName: claim.ClaimName, PodClaimName: claim.PodClaimName,
		BootID: claim.BootID, Pods: claim.Pods, Egress: end.Egress, Released: end.Released, Ending: end.Ending,
	}
}

func claimToV1(in *Entry) claimV1 {
	return claimV1{
		ClaimUID: in.ClaimUID, ClaimNamespace: in.ClaimNamespace, ClaimName: in.ClaimName, PodClaimName: in.PodClaimName,
		BootID: in.BootID, Pods: in.Pods,
	}
}

func endToV1(in *Entry) endV1 {
	return endV1{Egress: in.Egress, Released: in.Released, Ending: in.Ending}
}

func deviceFromV1(in *deviceV1) Device {
	out := hardwareFromV1(&in.hardwareV1)
	out.Network = networkFromV1(in.Network)
	return out
}

func deviceToV1(in *Device) deviceV1 {
	return deviceV1{hardwareV1: hardwareToV1(in), Network: networkToV1(in.Network)}
}

func hardwareFromV1(in *hardwareV1) Device {
	out := Device{
		Request: in.Request, Pool: in.Pool, Name: in.Name, ShareID: in.ShareID, AdminAccess: in.AdminAccess,
		GPU: in.GPU, Capabilities: in.Capabilities, NIC: in.NIC, RDMA: in.RDMA,
	}
	if p := in.Partition; p != nil {
		out.Partition = &Partition{Profile: p.Profile, ProfileID: p.ProfileID, Placement: p.Placement, Static: p.Static}
	}
	return out
}

func hardwareToV1(in *Device) hardwareV1 {
	out := hardwareV1{
		Request: in.Request, Pool: in.Pool, Name: in.Name, ShareID: in.ShareID, AdminAccess: in.AdminAccess,
		GPU: in.GPU, Capabilities: in.Capabilities, NIC: in.NIC, RDMA: in.RDMA,
	}
	if p := in.Partition; p != nil {
		out.Partition = &partitionV1{Profile: p.Profile, ProfileID: p.ProfileID, Placement: p.Placement, Static: p.Static}
	}
	return out
}

func tombstoneFromV1(in tombstoneV1) Tombstone { return Tombstone{Claim: in.ClaimUID, At: in.At} }
func tombstoneToV1(in Tombstone) tombstoneV1   { return tombstoneV1{ClaimUID: in.Claim, At: in.At} }
