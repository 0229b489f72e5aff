package nvmlsim

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
)

// The library keeps what it has read. Whichever way a file is changed, the next
// call says what the file says now.
func TestEachWayToChangeAFileIsSeenByTheNextCall(t *testing.T) {
	control, lib := install(t, Build)
	d := device(t, lib, 0)
	file := filepath.Join(control.Dir, "gpu0", "temperature")
	elsewhere := filepath.Join(t.TempDir(), "temperature")
	write := func(path, text string) func(int) error {
		return func(degrees int) error { return os.WriteFile(path, []byte(strconv.Itoa(degrees)+text), 0o644) }
	}
	open, err := os.OpenFile(filepath.Join(control.Dir, "gpu0", "temperature.open"), os.O_CREATE|os.O_RDWR, 0o644)
	must(t, err)
	defer open.Close()
	for _, way := range []struct {
		name    string
		prepare func() error
		change  func(degrees int) error
	}{
		{"written in place", nil, write(file, "\n")},
		{"written without a newline", nil, write(file, "")},
		{"replaced by another", nil, func(degrees int) error { return control.SetTemperature(0, degrees) }},
		{"removed and made anew", nil, func(degrees int) error {
			if err := os.Remove(file); err != nil {
				return err
			}
			if _, r := d.GetTemperature(nvml.TEMPERATURE_GPU); r != nvml.ERROR_NOT_SUPPORTED {
				t.Errorf("without the file the call answers %v", r)
			}
			return write(file, "\n")(degrees)
		}},
		{"written through a descriptor that stays open", func() error { return os.Rename(open.Name(), file) }, func(degrees int) error {
			_, err := open.WriteAt([]byte(strconv.Itoa(degrees)), 0)
			return err
		}},
		{"written by its other name", func() error { return errors.Join(write(elsewhere, "\n")(0), os.Remove(file), os.Link(elsewhere, file)) }, write(elsewhere, "\n")},
		{"written where a link leads", func() error { return errors.Join(os.Remove(file), os.Symlink(elsewhere, file)) }, write(elsewhere, "\n")},
		{"in a folder that is replaced", func() error { return os.Remove(file) }, func(degrees int) error {
			folder := filepath.Dir(file)
			if err := os.Rename(folder, folder+".away"); err != nil {
				return err
			}
			if err := os.CopyFS(folder, os.DirFS(folder+".away")); err != nil {
				return err
			}
			return write(file, "\n")(degrees)
		}},
	} {
		t.Run(way.name, func(t *testing.T) {
			if way.prepare != nil {
				must(t, way.prepare())
			}
			for degrees := 41; degrees < 44; degrees++ {
				must(t, way.change(degrees))
				for range 2 { // read, and as it was kept
					heat, r := d.GetTemperature(nvml.TEMPERATURE_GPU)
					ok(t, r)
					equal(t, "temperature", heat, uint32(degrees))
				}
				must(t, os.RemoveAll(filepath.Join(control.Dir, "gpu0.away")))
			}
		})
	}
}
