// What the API server lacks: devices that need it are withheld, and an
// administrator is told which and why. Older API servers drop fields that they do
// not know without a word, and a taint that is dropped is a faulty GPU on offer.

package publish

import (
	"fmt"
	"slices"
	"strings"

	"github.com/hostler-dev/hostler/api/v1alpha1"
)

// The releases are those in which the feature gates are on by default.
const (
	lacksTaints   = "the API server lacks DRADeviceTaints (Kubernetes 1.36 or newer)"
	fewTaints     = "the API server takes four taints a device and none with the effect None (Kubernetes 1.35 or newer takes more)"
	lacksCounters = "the API server lacks DRAPartitionableDevices (Kubernetes 1.36 or newer)"
	lacksSharing  = "the API server lacks DRAConsumableCapacity (Kubernetes 1.36 or newer)"
	lacksLists    = "the API server lacks DRAListTypeAttributes"
)

// kind is what an administrator calls a kind of device.
type kind string

const (
	gpuKind       kind = "GPU"
	nicKind       kind = "NIC"
	pfKind        kind = "PF"
	vfKind        kind = "VF"
	partitionKind kind = "MIG partition"
	pairKind      kind = "pair"
)

// shortage counts the devices that are withheld for one reason.
type shortage struct {
	lacks, reason string
	kind          kind
	count         int
}

// withhold notes a device that is not offered. The reason has a place for the kind, "%s with VFs".
func (o *offering) withhold(lacks, reason string, kind kind) {
	for i := range o.shortages {
		if s := &o.shortages[i]; s.lacks == lacks && s.reason == reason && s.kind == kind {
			s.count++
			return
		}
	}
	o.shortages = append(o.shortages, shortage{lacks, reason, kind, 1})
}

func (o *offering) fault(sentence string) {
	if !slices.Contains(o.faults, sentence) {
		o.faults = append(o.faults, sentence)
	}
}

// reasonOf words the taint that a device would have.
func reasonOf(key string) string {
	switch key {
	case UplinkTaint:
		return "%s that the node lives on"
	case AwayTaint:
		return "%s whose netdev is in another network namespace"
	case MIGModeTaint:
		return "%s in MIG mode as a whole"
	}
	return "%s with a fault"
}

// Shortfalls are sentences for an administrator about what Resources does not
// offer of this machine, or not in the form that was asked for, and why; none if all is
// well. Their order is that of the devices, and equal inputs have equal shortfalls.
func Shortfalls(in Input) []string { return offer(in).shortfalls() }

func (o *offering) shortfalls() []string {
	in := o.in
	var sentences []string
	for _, lacks := range []string{lacksTaints, lacksCounters} {
		var what []string
		total := 0
		for _, s := range o.shortages {
			if s.lacks == lacks {
				what, total = append(what, fmt.Sprintf(s.reason, s.kind.times(s.count))), total+s.count
			}
		}
		if total > 0 {
			sentences = append(sentences, fmt.Sprintf("%s: %s %s not published", lacks, enumerated(what), be(total)))
		}
	}
	if o.curtailed > 0 {
		sentences = append(sentences, fmt.Sprintf("%s: %s %s published without the least grave taints", fewTaints, kind("device").times(o.curtailed), be(o.curtailed)))
	}
	if !in.Features.SharedDevices {
		sentences = append(sentences, lacksSharing+": only one claim at a time can have an egress scope on this node")
		if in.Publish.SharedNICs {
			sentences = append(sentences, lacksSharing+": NICs are not shared, as if publish.sharedNICs were false")
		}
	}
	if in.Publish.NUMANode == v1alpha1.NUMANodeList && !in.Features.ListAttributes {
		sentences = append(sentences, lacksLists+": devices have their own NUMA node only, as if publish.numaNode were Scalar")
	}
	return append(sentences, o.faults...)
}

func (k kind) times(n int) string {
	if n == 1 {
		return "1 " + string(k)
	}
	return fmt.Sprintf("%d %ss", n, k)
}

func be(n int) string {
	if n == 1 {
		return "is"
	}
	return "are"
}

// enumerated joins "a", "b" and "c" into "a, b and c".
func enumerated(list []string) string {
	last := len(list) - 1
	if last < 1 {
		return strings.Join(list, "")
	}
	return strings.Join(list[:last], ", ") + " and " + list[last]
}
