package claim

import (
	"fmt"
	"sync"
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

// watched is a disk that tells what is being written.
type watched struct {
	disk
	writing func()
}

func (w watched) Overwrite(path string, offset int64, data []byte) error {
	w.writing()
	return w.disk.Overwrite(path, offset, data)
}

// Of claims that come together, what is worked out beside the write begins when all are
// in it, so that the disk is not kept waiting by it.
func TestWhatGoesOnMeanwhileBeginsWithTheWrite(t *testing.T) {
	j, _ := slotted(t)
	var mu sync.Mutex
	var events []string
	note := func(event string) {
		mu.Lock()
		defer mu.Unlock()
		events = append(events, event)
	}
	j.disk = watched{j.disk, func() { note("write") }}
	const claims = 4
	uids := []types.UID{"0", "1", "2", "3"}
	defer j.Expect(uids...)()
	var all sync.WaitGroup
	for _, uid := range uids {
		all.Go(func() {
			if err := j.put(&Entry{ClaimUID: uid}, func() { note("meanwhile, of " + fmt.Sprint(len(j.Entries()))) }); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	// A machine that is too busy to bring all in time writes more than once, never without its own.
	begun := 0
	for i, event := range events {
		if event != "write" {
			begun++
			continue
		}
		if i == 0 || events[i-1] == "write" {
			t.Errorf("a write began before what is to go on beside it: %q", events)
		}
	}
	if begun != claims || events[len(events)-1] != "write" {
		t.Errorf("%q", events)
	}
}

func TestNothingGoesOnBesideAnEntryThatConflicts(t *testing.T) {
	j, _ := slotted(t)
	entry := func(claim types.UID) *Entry {
		return &Entry{ClaimUID: claim, Devices: []Device{{Name: "gpu-0000-17-00-0", GPU: &machine().GPUs[0]}}}
	}
	if err := j.Put(entry("a")); err != nil {
		t.Fatal(err)
	}
	if err := j.put(entry("b"), func() { t.Error("called") }); err == nil {
		t.Error("one GPU went to two claims")
	}
}
