// NVLink and the NVLink fabric. NVML has no "how many links": links are asked
// for one by one up to its maximum, and a link that the GPU does not have
// answers "invalid argument" or "not supported".

package nvml

import (
	"encoding/hex"

	"github.com/NVIDIA/go-nvml/pkg/nvml"

	"github.com/hostler-dev/hostler/topology"
)

// links reads every NVLink port of the GPU.
func (r *reading) links() {
	if r.failed != nil || !r.has("nvmlDeviceGetNvLinkState") {
		return
	}
	var links []topology.NVLink
	for number := range nvml.NVLINK_MAX_LINKS {
		link, exists := r.link(number)
		if r.failed != nil {
			return
		}
		if !exists && number == 0 {
			break // a GPU without NVLink: the other 35 questions have the same answer
		}
		if exists {
			links = append(links, link)
		}
	}
	r.gpu.NVLinks = links
}

func (r *reading) link(number int) (topology.NVLink, bool) {
	link := topology.NVLink{Link: number, Peer: topology.NVLinkPeerUnknown}
	exists := false
	get(r, "nvmlDeviceGetNvLinkState", func() (*nvml.EnableState, nvml.Return) {
		state, ret := r.handle.GetNvLinkState(number)
		if ret == nvml.ERROR_INVALID_ARGUMENT {
			return nil, nvml.SUCCESS // no such link: an answer, not a fault
		}
		return &state, ret
	}, func(state *nvml.EnableState) {
		exists = state != nil
		link.Active = exists && *state == nvml.FEATURE_ENABLED
	})
	if !link.Active {
		return link, exists
	}
	get(r, "nvmlDeviceGetNvLinkVersion", func() (uint32, nvml.Return) { return r.handle.GetNvLinkVersion(number) },
		func(v uint32) { link.Version = int(v) })
	get(r, "nvmlDeviceGetNvLinkRemoteDeviceType", func() (nvml.IntNvLinkDeviceType, nvml.Return) { return r.handle.GetNvLinkRemoteDeviceType(number) },
		func(v nvml.IntNvLinkDeviceType) { link.Peer = peerKind(v) })
	symbol := "nvmlDeviceGetNvLinkRemotePciInfo_v2"
	get(r, symbol, func() (nvml.PciInfo, nvml.Return) { return r.handle.GetNvLinkRemotePciInfo(number) }, func(info nvml.PciInfo) {
		// On NVSwitch systems whose switches the node does not see, the far end
		// is all zeroes or all ones; that is "does not say", not a fault.
		if pci, err := canonical(info); err == nil && pci != "0000:00:00.0" {
			link.PeerPCI = pci
		}
	})
	return link, true
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

// fabric reads the GPU's membership of an NVLink fabric. GPUs outside any
// fabric answer "not supported", in the return code or in the state.
func (r *reading) fabric() {
	type membership struct {
		cluster [16]uint8
		clique  uint32
		state   uint8
	}
	store := func(m membership) {
		r.gpu.Fabric = nil
		if m.state == nvml.GPU_FABRIC_STATE_NOT_SUPPORTED {
			return
		}
		r.gpu.Fabric = &topology.Fabric{ClusterUUID: clusterUUID(m.cluster), CliqueID: m.clique, State: fabricState(m.state)}
	}
	if r.has("nvmlDeviceGetGpuFabricInfoV") {
		get(r, "nvmlDeviceGetGpuFabricInfoV", func() (membership, nvml.Return) {
			info, ret := r.handle.GetGpuFabricInfoV().V2()
			return membership{info.ClusterUuid, info.CliqueId, info.State}, ret
		}, store)
		return
	}
	get(r, "nvmlDeviceGetGpuFabricInfo", func() (membership, nvml.Return) {
		info, ret := r.handle.GetGpuFabricInfo()
		return membership{info.ClusterUuid, info.CliqueId, info.State}, ret
	}, store)
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
