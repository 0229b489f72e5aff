// What a claim's containers can read about their devices: one file for each
// request, see package metadata. It says what slices say of the devices, and what
// is known only now: a partition's UUID, the functions that user space got, and,
// once a netdev is in its pod, its name and addresses there.
//
// The files are made from the entry, the machine as it is and the records of
// attachments, so that they can be made again at any time.

package claim

import (
	"context"
	"fmt"
	"hash/fnv"
	"slices"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	metadataapi "k8s.io/dynamic-resource-allocation/api/metadata"
	"k8s.io/dynamic-resource-allocation/resourceclaim"
	"k8s.io/utils/ptr"

	"github.com/hostler-dev/hostler/driver/cdi"
	"github.com/hostler-dev/hostler/driver/gpu"
	"github.com/hostler-dev/hostler/driver/metadata"
	"github.com/hostler-dev/hostler/driver/publish"
	"github.com/hostler-dev/hostler/netattach"
	"github.com/hostler-dev/hostler/topology"
)

type metadataStep struct {
	steps *Steps
	entry *Entry
	// partitions of the entry, whose steps come before.
	partitions map[string]*gpu.PartitionStep
	// documents are kept from Compose for Do, and from there for Verify, which follow at once.
	documents []described
	// missing says that Do found a file missing or damaged.
	missing bool
}

func (s *metadataStep) Name() string { return "write the devices' metadata" }
func (s *metadataStep) Kind() string { return "metadata" }

func (s *metadataStep) Do(context.Context) error {
	defer s.steps.attachments.lock(s.entry.ClaimUID)()
	return s.each(func(d described) error {
		if !s.entry.First {
			_, unreadable := s.steps.Metadata.Read(s.entry.ClaimUID, d.content.Requests[0].Name)
			s.missing = s.missing || unreadable != nil
		}
		_, err := d.Ensure()
		return err
	})
}

// Verify takes what was attached since Do into account, which has changed the files.
func (s *metadataStep) Verify(context.Context) error {
	defer s.steps.attachments.lock(s.entry.ClaimUID)()
	return s.each(described.Verify)
}

func (s *metadataStep) Undo(context.Context) error { return s.steps.Metadata.Remove(s.entry.ClaimUID) }

// described is what one file is to say.
type described struct {
	content *metadata.Content
	*metadata.Document
}

// each calls visit for what each file is to say.
func (s *metadataStep) each(visit func(described) error) (err error) {
	if s.documents == nil {
		if s.documents, err = s.describe(); err != nil {
			return err
		}
	}
	states, err := s.steps.inPods(s.entry)
	if err != nil {
		return err
	}
	for _, d := range s.documents {
		if s.entry.hasNetdevs() {
			connect(d.content, s.entry, states)
			if d.Document, err = s.steps.Metadata.Encode(d.content); err != nil {
				return err
			}
		}
		if err := visit(d); err != nil {
			return err
		}
	}
	return nil
}

func (e *Entry) hasNetdevs() bool {
	return slices.ContainsFunc(e.Devices, func(d Device) bool { return d.Network != nil })
}

// describe makes the documents, but for what is known of netdevs in pods.
func (s *metadataStep) describe() ([]described, error) {
	var documents []described
	for _, indexes := range s.entry.requests() {
		request := s.entry.Devices[indexes[0]].Request
		content := &metadata.Content{
			ObjectMeta: metav1.ObjectMeta{Namespace: s.entry.ClaimNamespace, Name: s.entry.ClaimName, UID: s.entry.ClaimUID},
			Requests:   []metadataapi.DeviceMetadataRequest{{Name: request}},
		}
		if s.entry.PodClaimName != "" {
			content.PodClaimName = ptr.To(s.entry.PodClaimName)
		}
		for _, i := range indexes {
			device := &s.entry.Devices[i]
			content.Requests[0].Devices = append(content.Requests[0].Devices, metadataapi.Device{
				Driver: publish.DriverName, Pool: device.Pool, Name: device.Name, Attributes: s.attributes(device),
			})
		}
		document, err := s.steps.Metadata.Encode(content)
		if err != nil {
			return nil, err
		}
		documents = append(documents, described{content, document})
	}
	return documents, nil
}

// attributes of hardware that is out of sight for the moment, because its driver is
// loaded anew, say, are those that the file has.
func (s *metadataStep) attributes(device *Device) publish.Attributes {
	subject := publish.Subject{GPU: device.GPU, NIC: device.NIC}
	if subject.GPU != nil {
		if now := s.steps.Snapshot().GPU(device.GPU.Name); now != nil {
			subject.GPU = now
		}
	}
	if p := device.Partition; p != nil {
		subject.Partition = &topology.Partition{Profile: topology.MIGProfile{ID: p.ProfileID, Name: p.Profile}, Placement: p.Placement}
		if step := s.partitions[device.Name]; step != nil {
			subject.Partition.Instance = step.Instance()
		}
	}
	attributes, known := s.steps.Describe(subject)
	if !known {
		if before := s.before(device); before != nil {
			return before
		}
	}
	if device.VFIO != nil {
		var functions []string
		for _, binding := range device.bindings() {
			for _, function := range binding.Functions {
				functions = append(functions, function.PCI)
			}
		}
		attributes = attributes.WithVFIO(device.VFIO.Group, functions)
	}
	return attributes
}

func (s *metadataStep) before(device *Device) publish.Attributes {
	content, err := s.steps.Metadata.Read(s.entry.ClaimUID, device.Request)
	if err != nil {
		return nil // there is none, or none that can be read
	}
	for _, known := range content.Requests[0].Devices {
		if known.Name == device.Name {
			return known.Attributes
		}
	}
	return nil
}

// Attached has the claim's files say how its netdevs are known in their pod. It is
// for the moment between their move and the start of the pod's containers.
func (s *Steps) Attached(entry *Entry) error {
	defer s.attachments.lock(entry.ClaimUID)()
	states, err := s.inPods(entry)
	if err != nil {
		return err
	}
	for _, indexes := range entry.requests() {
		if !slices.ContainsFunc(indexes, func(i int) bool { return entry.Devices[i].Network != nil }) {
			continue
		}
		content, err := s.Metadata.Read(entry.ClaimUID, entry.Devices[indexes[0]].Request)
		if err != nil {
			return fmt.Errorf("tell the pod how its network devices are called: %w; the agent writes it anew at its next look at all claims", err)
		}
		content.Generation = 0
		connect(content, entry, states)
		if _, err := s.Metadata.Ensure(content); err != nil {
			return err
		}
		if err := s.Metadata.Verify(content); err != nil {
			return err
		}
	}
	return nil
}

// inPods is where the entry's netdevs are now.
func (s *Steps) inPods(entry *Entry) ([]netattach.DeviceState, error) {
	if !entry.hasNetdevs() {
		return nil, nil
	}
	states, err := s.Attacher.InPods(entry.ClaimUID)
	if err != nil {
		return nil, fmt.Errorf("look how network devices are called in their pods: %w", err)
	}
	return states, nil
}

// connect fills in what is known of the request's devices in their pod. With several
// pods, each with a child of its own, it would be true of one of them only.
func connect(content *metadata.Content, entry *Entry, states []netattach.DeviceState) {
	devices := content.Requests[0].Devices
	var at int
	for i := range entry.Devices {
		device := &entry.Devices[i]
		if resourceclaim.BaseRequestRef(device.Request) != resourceclaim.BaseRequestRef(content.Requests[0].Name) || at == len(devices) {
			continue
		}
		state, one := device.inOnePod(states)
		devices[at].NetworkData = nil
		if one {
			devices[at].NetworkData = NetworkData(state)
		}
		devices[at].Attributes = withChains(devices[at].Attributes, state)
		at++
	}
}

// requests are the indexes of the entry's devices by request, those of a
// request's alternatives together, in the order of their first devices.
func (e *Entry) requests() [][]int {
	var requests [][]int
	at := map[string]int{}
	for i := range e.Devices {
		base := resourceclaim.BaseRequestRef(e.Devices[i].Request)
		if _, known := at[base]; !known {
			at[base] = len(requests)
			requests = append(requests, nil)
		}
		requests[at[base]] = append(requests[at[base]], i)
	}
	return requests
}

// mount has each file appear in the containers that get the first device of its
// request, which are all that name the request or the whole claim. Where
// administrators have one device by two requests, its containers see the files of both.
func (s *Steps) mount(entry *Entry, claim *cdi.Claim) {
	for _, indexes := range entry.requests() {
		first := &entry.Devices[indexes[0]]
		i := slices.IndexFunc(claim.Devices, func(d cdi.Device) bool { return d.Name == first.Name && d.Share == first.share() })
		claim.Devices[i].Mounts = append(claim.Devices[i].Mounts, cdi.Mount{
			Host:      s.Metadata.File(entry.ClaimUID, first.Request),
			Container: metadata.ContainerFile(publish.DriverName, entry.PodClaimName, entry.ClaimName, first.Request),
		})
	}
}

// claimLocks are a few locks for any number of claims: those that share one wait
// for each other's writes of a small file, and no longer.
type claimLocks [32]sync.Mutex

func (l *claimLocks) lock(claim types.UID) (unlock func()) {
	hash := fnv.New32a()
	_, _ = hash.Write([]byte(claim)) // which never fails
	one := &l[hash.Sum32()%uint32(len(l))]
	one.Lock()
	return one.Unlock
}
