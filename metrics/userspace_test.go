package metrics

import (
	"context"
	"fmt"
	"testing"

	"github.com/hostler-dev/hostler/topology/nvml"
)

type pausedGPUs struct{}

func (pausedGPUs) Sample(context.Context, string) (nvml.Sample, error) {
	return nvml.Sample{}, fmt.Errorf("sample: %w", nvml.ErrPaused)
}

// While a GPU changes hands the others have no sample, and no error is counted.
func TestAPauseOfTheDriverIsNoFailedSample(t *testing.T) {
	if _, ok, err := sampleGPU(pausedGPUs{}, "0000:17:00.0")(t.Context()); ok || err != nil {
		t.Errorf("a sample: %t, error %v; want neither", ok, err)
	}
}
