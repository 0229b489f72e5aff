package claim

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"

	"tags.cncf.io/container-device-interface/specs-go"

	"github.com/hostler-dev/hostler/driver/cdi"
	"github.com/hostler-dev/hostler/topology"
)

// anyGPU makes edits without looking at a driver root.
type anyGPU struct{}

func (anyGPU) Common(context.Context, topology.Driver, []string) (*specs.ContainerEdits, error) {
	return &specs.ContainerEdits{Env: []string{"NVIDIA_VISIBLE_DEVICES=void"}}, nil
}

func (anyGPU) Device(_ context.Context, _ topology.Driver, gpu *topology.GPU) (*specs.ContainerEdits, error) {
	return &specs.ContainerEdits{Env: []string{fmt.Sprintf("MINOR=%d", gpu.Minor)}, DeviceNodes: []*specs.DeviceNode{{Path: "/dev/" + gpu.UUID}}}, nil
}

// Partition names the nodes by the instance, so that a spec shows which one it is for.
func (anyGPU) Partition(_ context.Context, _ topology.Driver, gpu *topology.GPU, p *cdi.Partition) (*specs.ContainerEdits, error) {
	if p.Instance == nil || len(p.Instance.ComputeInstances) != 1 {
		return nil, errors.New("the partition does not exist whole")
	}
	return &specs.ContainerEdits{DeviceNodes: []*specs.DeviceNode{{Path: fmt.Sprintf("/dev/%s-gi%d", gpu.UUID, p.Instance.GPUInstance)}}}, nil
}

// sum is the checksum line's value for a body.
func sum(body string) string {
	s := sha256.Sum256([]byte(body))
	return hex.EncodeToString(s[:])
}
