// NVLink and the NVLink fabric. NVML has no "how many links": links are asked
// for one by one up to its maximum, and a link that the GPU does not have
// answers "invalid argument" or "not supported". Which links there are and where they
// lead is soldered or plugged while the power is off; only whether they are up is asked
// at each reading, which on a GPU with 18 links is 18 calls of 90.

package nvml

import (
	"encoding/hex"
	"errors"
	"fmt"
	"slices"

	"github.com/NVIDIA/go-nvml/pkg/nvml"

	"github.com/hostler-dev/hostler/topology"
)

// links reads every NVLink port of the GPU.
func (r *reading) links() {
	if r.failed != nil || !r.has("nvmlDeviceGetNvLinkState") {
		return
	}
	last := r.gpu.NVLinks
	ports := r.device.ports()
	var links []topology.NVLink
	for number := range nvml.NVLINK_MAX_LINKS {
		if ports[number].absent {
			continue
		}
		link, answer := r.link(number, &ports[number])
		if r.failed != nil {
			return
		}
		switch answer {
		case linkExists:
			links = append(links, link)
		case linkUnknown: // what was last known of it is the better guess
			if at := slices.IndexFunc(last, func(l topology.NVLink) bool { return l.Link == number }); at >= 0 {
				links = append(links, last[at])
			}
		case linksNotSupported:
			if number == 0 {
				r.gpu.NVLinks = nil
				return // a GPU without NVLink: the other 35 questions have the same answer
			}
		}
	}
	r.gpu.NVLinks = links
	if len(links) > 0 { // a GPU that denies all may be in a mode in which it has none
		r.device.keepPorts(ports)
	}
}

// linkAnswer is what came of asking whether the GPU has a link.
type linkAnswer int

const (
	linkExists linkAnswer = iota
	linkAbsent
	linksNotSupported
	linkUnknown // the getter failed
)

func (r *reading) linkState(number int) (active bool, answer linkAnswer) {
	state, err := call(r.ctx, r.device.lane, "nvmlDeviceGetNvLinkState", func() (nvml.EnableState, nvml.Return) { return r.handle.GetNvLinkState(number) })
	switch {
	case err == nil:
		return state == nvml.FEATURE_ENABLED, linkExists
	case errors.Is(err, code(nvml.ERROR_INVALID_ARGUMENT)):
		return false, linkAbsent
	case errors.Is(err, ErrNotSupported):
		return false, linksNotSupported
	}
	r.note("nvmlDeviceGetNvLinkState", err)
	return false, linkUnknown
}

// nvlinkPort is what does not change of a port while the driver is loaded.
type nvlinkPort struct {
	absent bool
	// whole is the link as it was when it was up and all of it could be read, nil before.
	whole *topology.NVLink
}

// ports are those of the GPU, by number of the link.
func (d *device) ports() [nvml.NVLINK_MAX_LINKS]nvlinkPort {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.nvlinks
}

func (d *device) keepPorts(ports [nvml.NVLINK_MAX_LINKS]nvlinkPort) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.nvlinks = ports
}

// link reads one port. Of a port that is down, drivers do not know the far end.
func (r *reading) link(number int, port *nvlinkPort) (topology.NVLink, linkAnswer) {
	link := topology.NVLink{Link: number, Peer: topology.NVLinkPeerUnknown}
	var answer linkAnswer
	link.Active, answer = r.linkState(number)
	port.absent = answer == linkAbsent
	if !link.Active {
		return link, answer
	}
	if port.whole != nil {
		return *port.whole, answer
	}
	complete := get(r, "nvmlDeviceGetNvLinkVersion", func() (uint32, nvml.Return) { return r.handle.GetNvLinkVersion(number) },
		func(v uint32) { link.Version = int(v) })
	complete = get(r, "nvmlDeviceGetNvLinkRemoteDeviceType", func() (nvml.IntNvLinkDeviceType, nvml.Return) { return r.handle.GetNvLinkRemoteDeviceType(number) },
		func(v nvml.IntNvLinkDeviceType) { link.Peer = peerKind(v) }) && complete
	symbol := "nvmlDeviceGetNvLinkRemotePciInfo_v2"
	complete = get(r, symbol, func() (nvml.PciInfo, nvml.Return) { return r.handle.GetNvLinkRemotePciInfo(number) }, func(info nvml.PciInfo) {
		// On NVSwitch systems whose switches the node does not see, the far end
		// is all zeroes or all ones; that is "does not say", not a fault.
		if pci, err := canonical(info); err == nil && pci != "0000:00:00.0" {
			link.PeerPCI = pci
		}
	}) && complete
	if complete && link.Peer != topology.NVLinkPeerUnknown { // which may yet be known
		port.whole = &link
	}
	return link, answer
}

// matchPeers completes links whose far end is known by address only, as old
// drivers do not tell its kind: one that is a GPU of the node is a GPU.
func matchPeers(gpus []topology.GPU) {
	known := map[string]bool{}
	for _, gpu := range gpus {
		known[gpu.Placement.PCI] = true
	}
	for i := range gpus {
		// The session remembers this reading, which must not change under it.
		links := slices.Clone(gpus[i].NVLinks)
		for j := range links {
			if links[j].Peer == topology.NVLinkPeerUnknown && known[links[j].PeerPCI] {
				links[j].Peer = topology.NVLinkPeerGPU
			}
		}
		gpus[i].NVLinks = links
	}
}

func peerKind(t nvml.IntNvLinkDeviceType) topology.NVLinkPeer {
	switch t {
	case nvml.NVLINK_DEVICE_TYPE_GPU:
		return topology.NVLinkPeerGPU
	case nvml.NVLINK_DEVICE_TYPE_SWITCH:
		return topology.NVLinkPeerSwitch
	case nvml.NVLINK_DEVICE_TYPE_IBMNPU:
		return topology.NVLinkPeerCPU
	}
	return topology.NVLinkPeerUnknown
}

// membership is what the versions of nvmlGpuFabricInfo_t have in common. status
// says whether joining succeeded; it means something only once state is "completed".
type membership struct {
	cluster [16]uint8
	clique  uint32
	state   uint8
	status  nvml.Return
}

// fabric reads the GPU's membership of an NVLink fabric. GPUs outside any
// fabric answer "not supported", in the return code or in the state.
func (r *reading) fabric() {
	if r.has("nvmlDeviceGetGpuFabricInfoV") {
		get(r, "nvmlDeviceGetGpuFabricInfoV", func() (membership, nvml.Return) {
			info, ret := r.handle.GetGpuFabricInfoV().V2()
			return membership{info.ClusterUuid, info.CliqueId, info.State, nvml.Return(info.Status)}, ret
		}, r.joined)
		return
	}
	get(r, "nvmlDeviceGetGpuFabricInfo", func() (membership, nvml.Return) {
		info, ret := r.handle.GetGpuFabricInfo()
		return membership{info.ClusterUuid, info.CliqueId, info.State, nvml.Return(info.Status)}, ret
	}, r.joined)
}

func (r *reading) joined(m membership) {
	r.gpu.Fabric = nil
	if m.state == nvml.GPU_FABRIC_STATE_NOT_SUPPORTED {
		return
	}
	r.gpu.Fabric = &topology.Fabric{ClusterUUID: clusterUUID(m.cluster), CliqueID: m.clique, State: fabricState(m.state)}
	if m.state == nvml.GPU_FABRIC_STATE_COMPLETED && m.status != nvml.SUCCESS {
		r.gpu.Fabric.State = topology.FabricFailed
		r.note("NVLink fabric", fmt.Errorf("the GPU could not join its NVLink fabric: NVML says %s; see the log of the fabric manager", nameOf(m.status)))
	}
}

func fabricState(state uint8) string {
	switch state {
	case nvml.GPU_FABRIC_STATE_NOT_STARTED:
		return "NotStarted"
	case nvml.GPU_FABRIC_STATE_IN_PROGRESS:
		return "InProgress"
	case nvml.GPU_FABRIC_STATE_COMPLETED:
		return "Completed"
	}
	return "NotSupported"
}

// clusterUUID is "" for the nil UUID, which single-node NVSwitch systems report.
func clusterUUID(b [16]uint8) string {
	if b == [16]uint8{} {
		return ""
	}
	h := hex.EncodeToString(b[:])
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}
