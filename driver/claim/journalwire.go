// What the journal says on disk, version by version. Entry is the form that the
// program works with; the forms here are what was agreed with every program that
// reads the file, and each is written down in full, so that a field which is added
// to Entry gets into no version unless somebody puts it there.
//
// A version may get further fields only if a program that does not know them, and
// drops them when it writes, does no harm. Anything else is for the next version:
// whoever cannot undo a claim must not take it for one that it can.
//
// Values of other packages (the egress scope, and from version 2 on the network intent)
// are in all versions as they are. The same rule holds for them, see TestFieldsOnDisk.

package claim

import (
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"

	"github.com/hostler-dev/hostler/driver/vfio"
	"github.com/hostler-dev/hostler/netattach"
	"github.com/hostler-dev/hostler/topology"
)

// record is all that the file says, in no version.
type record struct {
	metav1.TypeMeta
	Entries    []*Entry
	Unprepared []Tombstone
	// Incomplete says that the journal was lost and that nobody has looked yet, in
	// the API server, for claims which could not be rebuilt.
	Incomplete bool
	// Generation of the file, and number of the record in it, see journalrecent.go.
	Generation string
	Sequence   uint64
}

// journalV1 is version 1: what claims are about GPUs and their partitions, netdevs,
// RDMA devices and egress scopes.
type journalV1 struct {
	metav1.TypeMeta `json:",inline"`
	Entries         []*entryV1    `json:"entries"`
	Unprepared      []tombstoneV1 `json:"unprepared,omitempty"`
	Incomplete      bool          `json:"incomplete,omitempty"`
	Generation      string        `json:"generation,omitempty"`
	Sequence        uint64        `json:"sequence,omitempty"`
}

type entryV1 struct {
	claimV1 `json:",inline"`
	Devices []deviceV1 `json:"devices,omitempty"`
	endV1   `json:",inline"`
}

// claimV1 and endV1 are what comes before and after an entry's devices.
type claimV1 struct {
	ClaimUID       types.UID                `json:"claimUID"`
	ClaimNamespace string                   `json:"claimNamespace"`
	ClaimName      string                   `json:"claimName"`
	PodClaimName   string                   `json:"podClaimName,omitempty"`
	BootID         string                   `json:"bootID"`
	Pods           []netattach.PodReference `json:"pods,omitempty"`
}

type endV1 struct {
	Egress   *netattach.EgressIntent `json:"egress,omitempty"`
	Released bool                    `json:"released,omitempty"`
	Ending   string                  `json:"ending,omitempty"`
}

type deviceV1 struct {
	hardwareV1 `json:",inline"`
	Network    *networkV1 `json:"network,omitempty"`
}

// hardwareV1 is what comes before a device's network intent.
type hardwareV1 struct {
	Request      string        `json:"request"`
	Pool         string        `json:"pool"`
	Name         string        `json:"name"`
	ShareID      *types.UID    `json:"shareID,omitempty"`
	AdminAccess  bool          `json:"adminAccess,omitempty"`
	GPU          *topology.GPU `json:"gpu,omitempty"`
	Capabilities []string      `json:"capabilities,omitempty"`
	Partition    *partitionV1  `json:"partition,omitempty"`
	NIC          *topology.NIC `json:"nic,omitempty"`
	RDMA         bool          `json:"rdma,omitempty"`
}

type partitionV1 struct {
	Profile   string                `json:"profile"`
	ProfileID int                   `json:"profileID"`
	Placement topology.MIGPlacement `json:"placement"`
	Static    bool                  `json:"static,omitempty"`
}

type tombstoneV1 struct {
	ClaimUID types.UID `json:"claimUID"`
	At       time.Time `json:"at"`
}

// journalV2 is version 2: devices may also be VFs with settings of their own, and
// PCI functions that are bound to vfio-pci, and what pods get of NICs may be more than
// netdevs with addresses: see journalnetwork.go. Version 1 cannot take these back.
type journalV2 struct {
	metav1.TypeMeta `json:",inline"`
	Entries         []*entryV2    `json:"entries"`
	Unprepared      []tombstoneV1 `json:"unprepared,omitempty"`
	Incomplete      bool          `json:"incomplete,omitempty"`
	Generation      string        `json:"generation,omitempty"`
	Sequence        uint64        `json:"sequence,omitempty"`
}

type entryV2 struct {
	claimV1 `json:",inline"`
	Devices []deviceV2 `json:"devices,omitempty"`
	endV1   `json:",inline"`
}

type deviceV2 struct {
	hardwareV1 `json:",inline"`
	Network    *netattach.DeviceIntent `json:"network,omitempty"`
	VF         *vfChangeV2             `json:"vf,omitempty"`
	VFIO       *vfio.Binding           `json:"vfio,omitempty"`
}

type vfChangeV2 struct {
	PF        string               `json:"pf"`
	Index     int                  `json:"index"`
	Wanted    netattach.VFSettings `json:"wanted"`
	Before    netattach.VFSettings `json:"before"`
	NetdevMAC string               `json:"netdevMAC,omitempty"`
}

// DeepCopyObject implements runtime.Object. Entries are never modified, so that
// copies can share them; that holds for all versions.
func (r *record) DeepCopyObject() runtime.Object    { c := *r; return &c }
func (j *journalV1) DeepCopyObject() runtime.Object { c := *j; return &c }
func (j *journalV2) DeepCopyObject() runtime.Object { c := *j; return &c }
