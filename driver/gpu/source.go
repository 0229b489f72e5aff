// A driver that can only read all its GPUs at once is a Partitioner too: what
// the GPU in question is cut into is part of what it reads.

package gpu

import (
	"context"
	"fmt"

	"github.com/hostler-dev/hostler/topology"
)

// Source reads and cuts the node's GPUs; nvml.Source does.
type Source interface {
	topology.GPUReader
	CreatePartition(ctx context.Context, pci string, profileID int, place topology.MIGPlacement) (topology.MIGInstance, error)
	DestroyPartition(ctx context.Context, pci string, gpuInstance int) error
}

// NewPartitioner makes a Partitioner of a source.
func NewPartitioner(source Source) Partitioner { return reading{source} }

type reading struct{ Source }

// Partition implements Partitioner. It does not trust a reading with problems: a
// GPU that did not answer is listed as it was known last.
func (r reading) Partition(ctx context.Context, pci string, profileID int, place topology.MIGPlacement) (*topology.MIGInstance, error) {
	driver, gpus, _ := r.ReadGPUs(ctx)
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if driver.State != topology.DriverReady {
		return nil, fmt.Errorf("the accelerator driver does not work (%s): %s", driver.State, driver.Message)
	}
	for i := range gpus {
		if gpus[i].Placement.PCI == pci {
			return instanceOf(&gpus[i], profileID, place)
		}
	}
	return nil, fmt.Errorf("the accelerator driver lists no GPU at %s", pci)
}

func instanceOf(gpu *topology.GPU, profileID int, place topology.MIGPlacement) (*topology.MIGInstance, error) {
	switch {
	case gpu.Lost:
		return nil, fmt.Errorf("GPU %s has fallen off the bus", gpu.Placement.PCI)
	case len(gpu.Problems) > 0:
		return nil, fmt.Errorf("GPU %s does not answer everything, so its partitions are not certain: %s", gpu.Placement.PCI, gpu.Problems[0].Message)
	case gpu.MIG == nil:
		return nil, nil // out of MIG mode a GPU has no instances
	}
	for i := range gpu.MIG.Instances {
		if instance := &gpu.MIG.Instances[i]; instance.ProfileID == profileID && instance.Placement == place {
			return instance, nil
		}
	}
	return nil, nil
}
