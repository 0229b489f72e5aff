package driver

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/dynamic-resource-allocation/kubeletplugin"

	"github.com/hostler-dev/hostler/driver/gpu/gputest"
	"github.com/hostler-dev/hostler/driver/publish"
)

// kubeletPatience is how long the kubelet waits (draClientTimeout).
const kubeletPatience = 45 * time.Second

// The driver takes ten minutes to cut a GPU. The kubelet hears in time of that claim
// and of the others, asks again, and in the end has one partition.
func TestSlowGPUDelaysNoAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		device := gputest.New(migPCI)
		device.Interrupt = func(moment string) error {
			if moment == "gpu instance made" {
				time.Sleep(10 * time.Minute)
			}
			return nil
		}
		d, _ := newDriver(t, fake.NewClientset(), withCapabilities(t, pathsIn(t)), func(c *Config) { c.Partitioner = device })
		d.SetSnapshot(cutMachine(device))
		slow, fast := claimOn("slow", publish.GPUPool(node), part1g), claimOn("fast", publish.NICPool(node), "nic-0000-18-00-0")
		call := func(what string, answer func(context.Context) map[types.UID]error) map[types.UID]error {
			t.Helper()
			ctx, cancel := context.WithTimeout(t.Context(), kubeletPatience)
			defer cancel()
			begin := time.Now()
			results := answer(ctx)
			if took := time.Since(begin); took > callLimit {
				t.Errorf("%s: answered after %v", what, took)
			}
			return results
		}
		prepare := func(ctx context.Context) map[types.UID]error {
			results, err := d.PrepareResourceClaims(ctx, []*resourceapi.ResourceClaim{slow, fast})
			if err != nil {
				t.Fatal(err)
			}
			return map[types.UID]error{slow.UID: results[slow.UID].Err, fast.UID: results[fast.UID].Err}
		}
		for range 3 {
			results := call("prepare", prepare)
			if err := results[fast.UID]; err != nil {
				t.Errorf("the other claim of the call: %v", err)
			}
			if err := results[slow.UID]; !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, errCallLimit) || !strings.Contains(err.Error(), "the next call waits for it") {
				t.Errorf("the slow claim: %v", err)
			}
		}
		time.Sleep(10 * time.Minute)
		if results := call("prepare, once it is over", prepare); results[slow.UID] != nil || device.Changes() != 1 {
			t.Errorf("once it is over: %v, after %d changes of the GPU; want one", results[slow.UID], device.Changes())
		}
		device.Interrupt = func(moment string) error {
			if moment == "before a gpu instance is removed" {
				time.Sleep(time.Minute)
			}
			return nil
		}
		unprepare := func(ctx context.Context) map[types.UID]error {
			results, err := d.UnprepareResourceClaims(ctx, []kubeletplugin.NamespacedObject{{UID: slow.UID}, {UID: fast.UID}})
			if err != nil {
				t.Fatal(err)
			}
			return results
		}
		if results := call("unprepare", unprepare); results[fast.UID] != nil || results[slow.UID] == nil {
			t.Errorf("unprepare: %v", results)
		}
		if results := call("unprepare again", unprepare); results[slow.UID] != nil || len(device.Snapshot().MIG.Instances)+len(d.cfg.Journal.Entries()) != 0 {
			t.Errorf("unprepare again: %v, instances %v", results, device.Snapshot().MIG.Instances)
		}
	})
}

func TestAnswersComeBeforeTheCallersTimeIsOver(t *testing.T) {
	for name, test := range map[string]struct{ given, want time.Duration }{
		"the kubelet's":     {kubeletPatience, 40 * time.Second},
		"no limit":          {0, 40 * time.Second},
		"a longer one":      {time.Hour, 40 * time.Second},
		"a very short one":  {80 * time.Millisecond, 70 * time.Millisecond},
		"half of the usual": {20 * time.Second, 17500 * time.Millisecond},
	} {
		synctest.Test(t, func(t *testing.T) {
			ctx, begin := t.Context(), time.Now()
			if test.given > 0 {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, test.given)
				defer cancel()
			}
			ctx, cancel := limited(ctx)
			defer cancel()
			<-ctx.Done()
			if got := time.Since(begin); got != test.want || !errors.Is(context.Cause(ctx), errCallLimit) {
				t.Errorf("%s: ends after %v (%v), want %v", name, got, context.Cause(ctx), test.want)
			}
		})
	}
}
