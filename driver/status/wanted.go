// Package status tells everybody who may read a ResourceClaim what became of its
// devices: status.devices says of each whether it is prepared, in its pod's
// network, under which name and addresses there, and if not, why.
//
// Wanted decides, purely, what there is to say, from the journal's entry, the
// records of attachments and the last failures. The Writer writes it, beside the
// work and never in its way: one server-side apply for each claim whose status is
// not what it should be, however much has happened to it meanwhile. Nothing of it
// is kept on the node, since all of it can be worked out again.
package status

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	resourceapi "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/hostler-dev/hostler/driver/claim"
	"github.com/hostler-dev/hostler/driver/publish"
	"github.com/hostler-dev/hostler/netattach"
	"github.com/hostler-dev/hostler/netattach/attach"
)

// The types of conditions. A device has those that concern it.
const (
	// Ready: all that the claim asks of the device on its node is done.
	Ready = "Ready"
	// Attached: the NIC is in the network of each pod that uses it.
	Attached = "Attached"
	// RDMAReady: the pod's containers have the NIC's RDMA device.
	RDMAReady = "RDMAReady"
	// EgressEnforced: the scope is in force in each pod that uses it.
	EgressEnforced = "EgressEnforced"
)

// The reasons of conditions.
const (
	ReasonPrepared        = "Prepared"
	ReasonPrepareFailed   = "PrepareFailed"
	ReasonUnprepareFailed = "UnprepareFailed"
	ReasonAttached        = "Attached"
	ReasonNotAttached     = "NotAttached"
	ReasonAttachFailed    = "AttachFailed"
	// ReasonCheckFailed: CNI plugins find that something that they made has changed.
	ReasonCheckFailed = "CheckFailed"
	ReasonEnforced    = "Enforced"
	// ReasonShared, ReasonExclusive and ReasonFallback are of RDMAReady.
	ReasonShared    = "Shared"
	ReasonExclusive = "Exclusive"
	ReasonFallback  = "Fallback"
)

// Device identifies an allocated device in its claim.
type Device struct {
	Pool, Name string
	// ShareID is "" for a device that is not shared.
	ShareID types.UID
}

// Claim is what this node knows of one.
type Claim struct {
	// Entry of the journal, nil if the claim is not prepared.
	Entry *claim.Entry
	// Allocated are the claim's devices of this driver, for one that could not be prepared.
	Allocated []Device
	// Failure is why the claim could not be prepared when that was last tried, "" if it could.
	Failure string
	// Records are those of the claim's attachments.
	Records []attach.Record
	// AttachFailures are why pods could not be attached when that was last tried, by UID.
	AttachFailures map[types.UID]string
}

// Wanted is what the claim's status should say of its devices, in the order of
// the allocation, with times of transition left out. Nothing is wanted of a claim
// that is not prepared and was not refused.
func Wanted(c Claim) []resourceapi.AllocatedDeviceStatus {
	var all []resourceapi.AllocatedDeviceStatus
	add := func(device Device, conditions []metav1.Condition, known *netattach.DeviceState) {
		// Administrators may have one device by two requests.
		if slices.ContainsFunc(all, func(s resourceapi.AllocatedDeviceStatus) bool { return deviceOf(&s) == device }) {
			return
		}
		status := resourceapi.AllocatedDeviceStatus{
			Driver: publish.DriverName, Pool: device.Pool, Device: device.Name, Conditions: conditions,
		}
		if known != nil {
			status.NetworkData, status.Data = claim.NetworkData(*known), claim.ChainData(*known)
		}
		if device.ShareID != "" {
			status.ShareID = ptr.To(string(device.ShareID))
		}
		all = append(all, status)
	}
	if c.Entry == nil || c.Entry.Released {
		if c.Failure != "" {
			for _, device := range c.Allocated {
				add(device, []metav1.Condition{condition(Ready, metav1.ConditionFalse, ReasonPrepareFailed, c.Failure)}, nil)
			}
		}
		return all
	}
	pods := podsOf(c)
	for i := range c.Entry.Devices {
		device := &c.Entry.Devices[i]
		key := Device{Pool: device.Pool, Name: device.Name, ShareID: ptr.Deref(device.ShareID, "")}
		add(key, conditions(c, device, pods), inOnePod(pods, device))
	}
	return all
}

func conditions(c Claim, device *claim.Device, pods []pod) []metav1.Condition {
	all := []metav1.Condition{ready(c)}
	if device.Network != nil {
		all = append(all, attached(device, pods))
	}
	if rdma, asked := rdmaReady(device, pods); asked && all[0].Status == metav1.ConditionTrue {
		all = append(all, rdma)
	}
	if device.GPU == nil && device.NIC == nil && c.Entry.Egress != nil {
		all = append(all, inPods(EgressEnforced, ReasonEnforced, pods))
	}
	return all
}

func ready(c Claim) metav1.Condition {
	switch {
	case c.Entry.Ending != "":
		return condition(Ready, metav1.ConditionFalse, ReasonUnprepareFailed, c.Entry.Ending)
	case c.Failure != "":
		return condition(Ready, metav1.ConditionFalse, ReasonPrepareFailed, c.Failure)
	}
	return condition(Ready, metav1.ConditionTrue, ReasonPrepared, "")
}

// pod is one that has the claim's devices in its network, or should have.
type pod struct {
	netattach.PodReference
	devices  []netattach.DeviceState
	attached bool
	failure  string
}

// podsOf are by namespace and name, so that what is said of several does not change with their order.
func podsOf(c Claim) []pod {
	var pods []pod
	told := map[types.UID]bool{}
	for _, record := range c.Records {
		if failure := c.AttachFailures[record.Pod.UID]; record.State == attach.StateAttached || failure == "" {
			told[record.Pod.UID] = true
			pods = append(pods, pod{PodReference: record.Pod, devices: record.Devices, attached: record.State == attach.StateAttached})
		}
	}
	for uid, failure := range c.AttachFailures {
		if !told[uid] {
			pods = append(pods, pod{PodReference: netattach.PodReference{UID: uid}, failure: failure})
		}
	}
	slices.SortFunc(pods, func(a, b pod) int {
		return cmp.Or(strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Name, b.Name), strings.Compare(string(a.UID), string(b.UID)))
	})
	return pods
}

// inPods is true once every pod that was given the device has it: one failure
// makes it false, whoever has it besides.
func inPods(kind, done string, pods []pod) metav1.Condition {
	var have []string
	for _, p := range pods {
		switch {
		case p.failure != "":
			return condition(kind, metav1.ConditionFalse, ReasonAttachFailed, p.failure)
		case p.attached:
			have = append(have, p.Name)
		}
	}
	switch {
	case len(have) == 0 || len(have) < len(pods):
		return condition(kind, metav1.ConditionFalse, ReasonNotAttached, "No container of a pod that uses the claim has been started yet, or its sandbox has ended")
	case len(have) == 1:
		return condition(kind, metav1.ConditionTrue, done, "In pod "+have[0])
	}
	return condition(kind, metav1.ConditionTrue, done, fmt.Sprintf("In %d pods", len(have)))
}

// attached is also false if the plugins of a CNI chain find that what they made for the
// device is not as it was. The pod has the rest, and goes on.
func attached(device *claim.Device, pods []pod) metav1.Condition {
	found := inPods(Attached, ReasonAttached, pods)
	if found.Status != metav1.ConditionTrue {
		return found
	}
	for _, p := range pods {
		for _, state := range p.devices {
			for _, network := range state.Networks {
				if network.Fault != "" && device.Is(state) {
					return condition(Attached, metav1.ConditionFalse, ReasonCheckFailed, found.Message+", but "+network.Fault)
				}
			}
		}
	}
	return found
}

// rdmaReady says how the pods have the RDMA device. One without a netdev is given
// with the containers' device nodes alone.
func rdmaReady(device *claim.Device, pods []pod) (metav1.Condition, bool) {
	moves := device.Network != nil && device.Network.RDMA != nil
	if !device.RDMA && !moves {
		return metav1.Condition{}, false
	}
	if device.Network == nil {
		return condition(RDMAReady, metav1.ConditionTrue, ReasonShared, "Its device nodes are in the claim's containers"), true
	}
	found := inPods(RDMAReady, ReasonShared, pods)
	if found.Status != metav1.ConditionTrue {
		return found, true
	}
	for _, p := range pods {
		for _, state := range p.devices {
			if state.RDMA == nil || !device.Is(state) {
				continue
			}
			switch {
			case state.RDMA.Fallback != "":
				return condition(RDMAReady, metav1.ConditionFalse, ReasonFallback, "The pod does without "+state.RDMA.Device+": "+state.RDMA.Fallback), true
			case state.RDMA.Exclusive:
				return condition(RDMAReady, metav1.ConditionTrue, ReasonExclusive, state.RDMA.Device+" is in the pod's network namespace alone"), true
			}
			found.Message = state.RDMA.Device + " is shared with the node"
		}
	}
	return found, true
}

// inOnePod is how the only pod that has the device knows it. There is one place to tell
// that: with several pods, each with a child of its own, it would be true of one of them.
func inOnePod(pods []pod, device *claim.Device) *netattach.DeviceState {
	var known *netattach.DeviceState
	for _, p := range pods {
		for i := range p.devices {
			if !device.Is(p.devices[i]) {
				continue
			}
			if known != nil {
				return nil
			}
			known = &p.devices[i]
		}
	}
	if known == nil || known.Interface == "" { // an RDMA device without netdev
		return nil
	}
	return known
}

func deviceOf(s *resourceapi.AllocatedDeviceStatus) Device {
	return Device{Pool: s.Pool, Name: s.Device, ShareID: types.UID(ptr.Deref(s.ShareID, ""))}
}

// longestMessage is less than the API's limit of 32768 bytes: whoever reads more
// than this reads the agent's log.
const longestMessage = 2048

func condition(kind string, status metav1.ConditionStatus, reason, message string) metav1.Condition {
	// JSON has no place for other bytes, and what comes back would differ for ever.
	message = strings.ToValidUTF8(message, "�")
	if len(message) > longestMessage {
		cut := longestMessage - len("…")
		for !utf8.RuneStart(message[cut]) {
			cut--
		}
		message = message[:cut] + "…"
	}
	return metav1.Condition{Type: kind, Status: status, Reason: reason, Message: message}
}
