package driver

// What follows when a claim has ended, however long that took and whoever asked for it.

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/dynamic-resource-allocation/kubeletplugin"

	"github.com/hostler-dev/hostler/driver/publish"
)

// slowAttacher brings netdevs home when it may.
type slowAttacher struct {
	fakeAttacher
	begun, may chan struct{}
}

func (a slowAttacher) Release(context.Context, types.UID) error {
	a.begun <- struct{}{}
	<-a.may
	return nil
}

func TestANICIsLookedForWhenItIsHomeAndNotWhenTheCallEnds(t *testing.T) {
	attacher := slowAttacher{begun: make(chan struct{}, 1), may: make(chan struct{})}
	var rescans atomic.Int32
	d, _ := newDriver(t, fake.NewClientset(), pathsIn(t), func(c *Config) {
		c.Attacher, c.Rescan = attacher, func() { rescans.Add(1) }
	})
	d.SetSnapshot(machineOf(1))
	c := claimOn("nic", publish.NICPool(node), d.machine.now().NICs[0].Name)
	if err := prepareOnly(d, c); err != nil {
		t.Fatal(err)
	}
	call, hangUp := context.WithCancel(t.Context())
	go func() { <-attacher.begun; hangUp() }()
	results, err := d.UnprepareResourceClaims(call, []kubeletplugin.NamespacedObject{{UID: c.UID}})
	if err = errors.Join(err, results[c.UID]); !errors.Is(err, context.Canceled) || rescans.Load() != 0 {
		t.Fatalf("%v, and the machine was read %d times; want the call to end before the work", err, rescans.Load())
	}
	close(attacher.may)
	eventually(t, "the machine is read when the netdev is home", func() bool { return rescans.Load() == 1 })
}

// busyAttacher has a pod that uses every claim, until it has ended.
type busyAttacher struct {
	fakeAttacher
	ended *atomic.Bool
}

func (a busyAttacher) InUse(types.UID) (bool, error) { return !a.ended.Load(), nil }

func TestDevicesOfAForceDeletedPodAreFreeOnceItHasEnded(t *testing.T) {
	var ended atomic.Bool
	d, recorder := newDriver(t, fake.NewClientset(), pathsIn(t), func(c *Config) { c.Attacher = busyAttacher{ended: &ended} })
	d.SetSnapshot(machineOf(1))
	c := claimOn("gone", publish.GPUPool(node), "gpu-0000-20-00-0") // the API server does not know it
	if err := prepareOnly(d, c); err != nil {
		t.Fatal(err)
	}
	reconciling(t, d, recorder, c)
	if d.cfg.Journal.Entry(c.UID) == nil {
		t.Fatal("the GPU of a running pod was given away")
	}
	ended.Store(true)
	d.SandboxEnded()
	eventually(t, "the GPU is free, and nobody waits for it", func() bool { return d.cfg.Journal.Entry(c.UID) == nil && !d.runner.Orphans() })
}

func TestSandboxesThatEndInPeaceHaveNothingReconciled(t *testing.T) {
	d, _ := newDriver(t, fake.NewClientset(), pathsIn(t))
	d.SandboxEnded()
	if len(d.reconcileNow) > 0 {
		t.Error("all claims are looked at, and none waited for that")
	}
}
