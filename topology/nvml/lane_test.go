package nvml

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
)

// A lane whose calls may take 1 s is busy with one that may take 10 s; another
// comes 3 s after it.
func TestACallBehindOneThatMayTakeLong(t *testing.T) {
	for _, test := range []struct {
		name         string
		takes, short time.Duration // of the long call and of the one behind it
		waits        time.Duration
		long, want   error
	}{
		{"waits for it", 5 * time.Second, 0, 2 * time.Second, nil, nil},
		{"gives up when that takes longer than it may", time.Hour, 0, 10 * time.Second, ErrHung, ErrHung},
		{"has no more time than ever once it is its turn", 5 * time.Second, time.Hour, 3 * time.Second, nil, ErrHung},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLane("GPU a", time.Second)
				long := make(chan error, 1)
				go func() {
					_, err := callFor(t.Context(), l, 10*time.Second, "long", func() (int, nvml.Return) { time.Sleep(test.takes); return 0, nvml.SUCCESS })
					long <- err
				}()
				time.Sleep(3 * time.Second)
				begun := time.Now()
				_, err := call(t.Context(), l, "short", func() (int, nvml.Return) { time.Sleep(test.short); return 0, nvml.SUCCESS })
				if waited := time.Since(begun); !errors.Is(err, test.want) || waited != test.waits {
					t.Errorf("the answer after %s is %v, want %v after %s", waited, err, test.want, test.waits)
				}
				if err := <-long; !errors.Is(err, test.long) {
					t.Errorf("the long call says %v", err)
				}
				// Once a call is past its time, those behind it fail at once.
				begun = time.Now()
				_, err = call(t.Context(), l, "later", func() (int, nvml.Return) { return 0, nvml.SUCCESS })
				if !errors.Is(err, test.want) || time.Since(begun) > 0 {
					t.Errorf("a later call says %v after %s", err, time.Since(begun))
				}
				time.Sleep(2 * time.Hour) // all calls return
			})
		})
	}
}
