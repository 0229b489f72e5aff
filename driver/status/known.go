package status

// What a Writer keeps of each claim: as much as it takes to find the claim and to
// tell whether its status is as wanted. All of it is told anew when the claim is
// prepared or looked at.

import (
	"fmt"
	"hash/fnv"
	"maps"
	"slices"
	"time"

	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	"k8s.io/utils/ptr"

	"github.com/hostler-dev/hostler/driver/claim"
	"github.com/hostler-dev/hostler/driver/publish"
	"github.com/hostler-dev/hostler/netattach/attach"
)

type known struct {
	namespace, name string
	uid             types.UID
	// allocated are its devices of this driver; part says that these are not all, but
	// what the journal kept of a released claim.
	allocated []Device
	part      bool
	// prepared and failure are how its last prepare ended; settled is until when a
	// prepared claim waits for what else becomes of it.
	prepared bool
	failure  string
	settled  time.Time
	// attachFailures by pod.
	attachFailures map[types.UID]string
	// present is what the API server has of this driver, as of the claim's version.
	present []resourceapi.AllocatedDeviceStatus
	version string
	// written is when that was last changed, tried what was written then; dropped
	// says that the API server took none of it.
	written time.Time
	tried   []resourceapi.AllocatedDeviceStatus
	dropped bool
	// complaint is why the API server did not take the last write, as it was logged.
	complaint string
	// doubtful: it may be gone or be allocated anew, so it is read first.
	doubtful bool
}

// left are the claims that an earlier agent prepared and may have said something of.
// Should one end before it is looked at, that has to be taken back all the same.
func left(entries []*claim.Entry) map[types.UID]*known {
	claims := map[types.UID]*known{}
	for _, entry := range entries {
		k := &known{namespace: entry.ClaimNamespace, name: entry.ClaimName, uid: entry.ClaimUID, part: entry.Released, attachFailures: map[types.UID]string{}, doubtful: true}
		for i := range entry.Devices {
			d := &entry.Devices[i]
			k.allocated = append(k.allocated, Device{Pool: d.Pool, Name: d.Name, ShareID: ptr.Deref(d.ShareID, "")})
		}
		claims[k.uid] = k
	}
	return claims
}

// see takes over what the API server has, unless that was read before the last write.
func (k *known) see(read *resourceapi.ResourceClaim) {
	if order, err := resourceversion.CompareResourceVersion(read.ResourceVersion, k.version); err == nil && order < 0 {
		return
	}
	k.present, k.version = ours(read), read.ResourceVersion
	// Pods that the claim is not reserved for any more have no failures.
	maps.DeleteFunc(k.attachFailures, func(pod types.UID, _ string) bool {
		return !slices.ContainsFunc(read.Status.ReservedFor, func(r resourceapi.ResourceClaimConsumerReference) bool { return r.UID == pod })
	})
}

func (k *known) isAllocated(claim *resourceapi.ResourceClaim) bool {
	allocated := allocatedOf(claim)
	if k.part {
		return !slices.ContainsFunc(k.allocated, func(d Device) bool { return !slices.Contains(allocated, d) })
	}
	return slices.Equal(k.allocated, allocated)
}

// isOver reports whether the node has no more of the claim than a partition that is
// removed when the driver works again.
func isOver(entry *claim.Entry) bool { return entry == nil || entry.Released }

// allocatedOf are the claim's devices of this driver.
func allocatedOf(claim *resourceapi.ResourceClaim) []Device {
	if claim.Status.Allocation == nil {
		return nil
	}
	var devices []Device
	for _, result := range claim.Status.Allocation.Devices.Results {
		if result.Driver == publish.DriverName {
			devices = append(devices, Device{Pool: result.Pool, Name: result.Device, ShareID: ptr.Deref(result.ShareID, "")})
		}
	}
	return devices
}

// Prepared is told how a prepare of the claim ended, a repeated one too.
func (w *Writer) Prepared(c *resourceapi.ResourceClaim, err error) {
	allocated := allocatedOf(c)
	w.mu.Lock()
	k := w.claims[c.UID]
	if k == nil {
		k = &known{namespace: c.Namespace, name: c.Name, uid: c.UID, attachFailures: map[types.UID]string{}}
		w.claims[c.UID] = k
	}
	k.see(c)
	k.allocated, k.part, k.doubtful, k.prepared, k.failure, k.settled = allocated, false, false, err == nil, "", w.cfg.Now().Add(settleTime)
	if err != nil {
		k.failure, k.settled = err.Error(), time.Time{}
	}
	w.mu.Unlock()
	delay := settleTime
	switch {
	case err != nil:
		delay = failTime
	case joinsPods(w.cfg.Entry(c.UID)):
		delay = attachTime
	}
	w.queue.AddAfter(c.UID, delay)
}

// joinsPods reports whether the claim wants something in its pods' networks.
func joinsPods(entry *claim.Entry) bool {
	return entry != nil && (entry.Egress != nil || slices.ContainsFunc(entry.Devices, func(d claim.Device) bool { return d.Network != nil }))
}

// Unprepared is told that nothing of the claim is left on the node, see isOver.
func (w *Writer) Unprepared(claim types.UID) {
	w.mu.Lock()
	if k := w.claims[claim]; k != nil {
		k.prepared, k.failure = false, ""
		clear(k.attachFailures)
	}
	w.mu.Unlock()
	w.queue.AddAfter(claim, leaveTime)
}

// Attached is told what became of the claim in a pod.
func (w *Writer) Attached(change attach.Change) {
	w.mu.Lock()
	k := w.claims[change.Claim]
	if k != nil {
		k.settled = time.Time{}
		switch {
		case change.Err != nil:
			k.attachFailures[change.Pod] = change.Err.Error()
		case change.Attached:
			delete(k.attachFailures, change.Pod)
		}
	}
	w.mu.Unlock()
	switch {
	case k == nil: // an agent that has just started looks at all claims anyway
	case change.Attached:
		w.queue.Add(change.Claim)
	case change.Err != nil:
		w.queue.AddAfter(change.Claim, settleTime)
	default:
		w.queue.AddAfter(change.Claim, leaveTime)
	}
}

// Review compares all claims with what is wanted, after the driver has looked at
// them. Those that the node has nothing of are asked for: nobody tells when a claim
// goes that could not be prepared.
func (w *Writer) Review() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for uid, k := range w.claims {
		if isOver(w.cfg.Entry(uid)) {
			k.prepared, k.doubtful = false, true
		}
		w.queue.Add(uid)
	}
}

// seen is told of a claim that was read anew.
func (w *Writer) seen(read *resourceapi.ResourceClaim) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if k := w.claims[read.UID]; k != nil {
		k.doubtful = false
		k.see(read)
	}
}

// look is a copy of what is known of the claim, nil if nothing is.
func (w *Writer) look(claim types.UID) *known {
	w.mu.Lock()
	defer w.mu.Unlock()
	k := w.claims[claim]
	if k == nil {
		return nil
	}
	copied := *k
	copied.attachFailures = maps.Clone(k.attachFailures)
	return &copied
}

// forget drops the claim, unless it was told of anew since it was looked at.
func (w *Writer) forget(looked *known) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if k := w.claims[looked.uid]; k != nil && !k.prepared && k.failure == looked.failure && slices.Equal(k.allocated, looked.allocated) {
		delete(w.claims, looked.uid)
	}
}

func (w *Writer) doubt(looked *known) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if k := w.claims[looked.uid]; k != nil {
		k.doubtful = true
	}
}

// longestManager is the API's limit of a field manager's name, in bytes.
const longestManager = 128

// fieldManager is one for each node, so that a claim that was allocated anew keeps
// what its new node's agent says when this one takes back what it said.
func fieldManager(node string) string {
	name := publish.DriverName + "/" + node
	if len(name) <= longestManager {
		return name
	}
	hash := fnv.New64a()
	_, _ = hash.Write([]byte(name)) // which never fails
	sum := fmt.Sprintf("-%x", hash.Sum64())
	return name[:longestManager-len(sum)] + sum
}

// complain reports whether the error is another than the last one of the claim.
func (w *Writer) complain(looked *known, err error) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	k := w.claims[looked.uid]
	if k == nil || k.complaint == err.Error() {
		return false
	}
	k.complaint = err.Error()
	return true
}
