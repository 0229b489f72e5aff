package nvml

import (
	"testing"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
)

func TestAProbeTellsASilentGPUFromAnUnreadableRow(t *testing.T) {
	for _, test := range []struct {
		name              string
		temperature, rows nvml.Return
		silent, failed    bool
	}{
		{"a GPU that is well", nvml.SUCCESS, nvml.SUCCESS, false, false},
		{"one without a thermometer", nvml.ERROR_NOT_SUPPORTED, nvml.SUCCESS, false, false},
		{"one whose rows cannot be read lives", nvml.SUCCESS, nvml.ERROR_UNKNOWN, false, true},
		{"one that answers nothing with sense is silent", nvml.ERROR_UNKNOWN, nvml.SUCCESS, true, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			gpu := gpuAt("00000000:17:00.0")
			gpu.GetTemperatureFunc = func(nvml.TemperatureSensors) (uint32, nvml.Return) { return 40, test.temperature }
			gpu.GetRemappedRowsFunc = func() (int, int, bool, bool, nvml.Return) { return 0, 0, false, false, test.rows }
			has := func(symbol string) bool { return identityOnly(symbol) || symbol == "nvmlDeviceGetRemappedRows" }
			probe, err := newSession(driverWith(gpu), has, 0).Probe(t.Context(), "0000:17:00.0")
			if probe.Silent != test.silent || (err != nil) != test.failed {
				t.Errorf("silent %t, error %v", probe.Silent, err)
			}
		})
	}
}
