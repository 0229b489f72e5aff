package claim

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/apimachinery/pkg/types"
)

func TestNobodyIsExpectedForLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := &Journal{}
		arrived := j.Expect("held-up")
		time.Sleep(gatherPatience + time.Millisecond)
		begin := time.Now()
		j.gathering.wait()
		if waited := time.Since(begin); waited != 0 {
			t.Errorf("waited %v for one that is held up", waited)
		}
		defer j.Expect("next")()
		arrived()
		begin = time.Now()
		j.gathering.wait()
		if waited := time.Since(begin); waited != gatherLimit {
			t.Errorf("waited %v for the next one, want %v", waited, gatherLimit)
		}
	})
}

func TestAWriteWaitsAMomentForThoseWhoAreExpected(t *testing.T) {
	for name, test := range map[string]struct {
		// expected says after what time each of them comes.
		expected []time.Duration
		want     time.Duration
	}{
		"nobody is expected":              {nil, 0},
		"one who has arrived already":     {[]time.Duration{0}, 0},
		"one":                             {[]time.Duration{gatherLimit / 3}, gatherLimit / 3},
		"the last of several":             {[]time.Duration{gatherLimit / 2, gatherLimit / 3, 0}, gatherLimit / 2},
		"one who takes too long":          {[]time.Duration{time.Minute}, gatherLimit},
		"others, not one who is too long": {[]time.Duration{gatherLimit / 3, time.Minute}, gatherLimit},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				j := &Journal{}
				for i, after := range test.expected {
					arrived := j.Expect(types.UID(fmt.Sprint(i)))
					come := func() {
						time.Sleep(after)
						arrived()
						arrived() // counts once
					}
					if after == 0 {
						come()
					} else {
						go come()
					}
				}
				begin := time.Now()
				j.gathering.wait()
				if waited := time.Since(begin); waited != test.want {
					t.Errorf("waited %v, want %v", waited, test.want)
				}
				// When all have come, the next write waits for nobody.
				time.Sleep(2 * time.Minute)
				begin = time.Now()
				j.gathering.wait()
				if waited := time.Since(begin); waited != 0 {
					t.Errorf("afterwards waited %v", waited)
				}
			})
		})
	}
}
