package main

// Preparing claims: one, eight in one call, eight calls at once. The floor of
// each is what nobody can do without: the claims are fetched from the API server,
// all at once, and one file reaches the disk.

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	drapb "k8s.io/kubelet/pkg/apis/dra/v1"
)

const (
	atOnce = 8
	// singles and rounds of eight; p99 of concurrent calls is over rounds × 8.
	singles, rounds = 80, 40
	warmUps         = 3
	// quiet between measured calls: a kubelet prepares when a pod starts, not
	// hundreds of times a second, which would measure the client's rate limit.
	quiet = 100 * time.Millisecond
)

func measurePrepare(ctx context.Context, b *bed, results []*Result) (err error) {
	claims, remove, err := b.gpuClaims(ctx, atOnce)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, remove(context.WithoutCancel(ctx))) }()
	k, err := newKubelet(b)
	if err != nil {
		return err
	}
	defer k.connection.Close()
	p := preparation{bed: b, kubelet: k, claims: claims}
	// The page is made anew with each sample of a device: after that what was counted
	// before, by an earlier run in a cluster that was kept, say, is on it.
	if err := pause(ctx, 6*time.Second); err != nil {
		return err
	}
	idle, err := b.clocks(ctx, 0)
	if err != nil {
		return err
	}
	// Connections are opened and caches are warm on both sides before anything counts.
	for range warmUps {
		if err := errors.Join(p.floor(ctx, claims...), p.prepared(ctx, &samples{}, claims...)); err != nil {
			return err
		}
	}
	before, err := b.clocks(ctx, idle.prepare.count+uint64(warmUps*len(claims)))
	if err != nil {
		return err
	}
	prepared := before.prepare.count
	var ours, floors [3]samples
	for i, shape := range []struct {
		of      string
		measure func(context.Context) (ours, floor samples, err error)
		// claims of one call.
		claims int
	}{
		{"one prepared claim", p.one, 1},
		{"eight claims in one call, each part as it is for one of them", p.batch, atOnce},
		{"one of eight calls at once", p.concurrent, 1},
	} {
		if ours[i], floors[i], err = shape.measure(ctx); err != nil {
			return err
		}
		prepared += uint64(len(ours[i]) * shape.claims)
		after, err := b.clocks(ctx, prepared)
		if err != nil {
			return err
		}
		b.accounts = append(b.accounts, accountFor(shape.of, before, after, ours[i], shape.claims))
		before = after
	}
	one, batch, concurrent := ours[0], ours[1], ours[2]
	results[0].Set(one.p50(), len(one))
	results[0].SetFloor(floors[0].p50())
	results[0].Budget = 1.5 * floors[0].p50()
	results[0].Note = "floor: one GET of the claim and one fsynced file"
	results[1].Set(batch.p50(), len(batch))
	results[1].SetFloor(floors[1].p50())
	results[1].Budget = 2 * one.p50()
	results[1].Note = "floor: eight GETs at once and one fsynced file"
	results[2].Set(concurrent.p99(), len(concurrent))
	results[2].SetFloor(floors[2].p99())
	results[2].Budget = 4 * one.p50()
	results[2].Note = fmt.Sprintf("p50 %s ms; floor: eight at once of one GET and one fsynced file each, p99", number(new(concurrent.p50())))
	return nil
}

type preparation struct {
	*bed
	*kubelet
	claims []*drapb.Claim
}

// floor fetches the claims and writes one file where the agent has its journal.
func (p preparation) floor(ctx context.Context, claims ...*drapb.Claim) error {
	errs := make([]error, len(claims))
	fetch := func(i int) {
		_, errs[i] = p.bed.client.ResourceV1().ResourceClaims(namespace).Get(ctx, claims[i].Name, metav1.GetOptions{})
	}
	var others sync.WaitGroup
	for i := range claims[1:] {
		others.Go(func() { fetch(i + 1) })
	}
	fetch(0)
	others.Wait()
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("fetch claims: %w", err)
	}
	return p.synced(claims[0].Name)
}

// synced writes 1 KiB, about one entry of a journal, and waits for the disk.
func (p preparation) synced(name string) (err error) {
	path := filepath.Join(p.nodePath("/var/lib/hostler"), "bench-"+name)
	file, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("write the floor's file: %w", err)
	}
	defer func() { err = errors.Join(err, file.Close(), os.Remove(path)) }()
	if _, err := file.Write(make([]byte, 1024)); err != nil {
		return fmt.Errorf("write the floor's file: %w", err)
	}
	return file.Sync()
}

// prepared measures one call and undoes it.
func (p preparation) prepared(ctx context.Context, to *samples, claims ...*drapb.Claim) error {
	began := time.Now()
	if err := p.prepare(ctx, claims...); err != nil {
		return err
	}
	to.add(time.Since(began))
	return p.unprepare(ctx, claims...)
}

func (p preparation) floored(ctx context.Context, to *samples, claims ...*drapb.Claim) error {
	began := time.Now()
	if err := p.floor(ctx, claims...); err != nil {
		return err
	}
	to.add(time.Since(began))
	return nil
}

// one takes turns with the floor, so that both see the same machine.
func (p preparation) one(ctx context.Context) (ours, floor samples, err error) {
	for i := range singles {
		claim := p.claims[i%len(p.claims)]
		if err := errors.Join(pause(ctx, quiet), p.floored(ctx, &floor, claim), p.prepared(ctx, &ours, claim)); err != nil {
			return nil, nil, err
		}
	}
	return ours, floor, nil
}

func (p preparation) batch(ctx context.Context) (ours, floor samples, err error) {
	for range rounds {
		if err := errors.Join(pause(ctx, quiet), p.floored(ctx, &floor, p.claims...), p.prepared(ctx, &ours, p.claims...)); err != nil {
			return nil, nil, err
		}
	}
	return ours, floor, nil
}

func (p preparation) concurrent(ctx context.Context) (ours, floor samples, err error) {
	for range rounds {
		if err := pause(ctx, quiet); err != nil {
			return nil, nil, err
		}
		more, err := p.together(func(to *samples, claim *drapb.Claim) error { return p.floored(ctx, to, claim) })
		if err != nil {
			return nil, nil, err
		}
		floor = append(floor, more...)
		more, err = p.together(func(to *samples, claim *drapb.Claim) error {
			began := time.Now()
			err := p.prepare(ctx, claim)
			to.add(time.Since(began))
			return err
		})
		if err = errors.Join(err, p.unprepare(ctx, p.claims...)); err != nil {
			return nil, nil, err
		}
		ours = append(ours, more...)
	}
	return ours, floor, nil
}

// together calls do for all claims at the same time.
func (p preparation) together(do func(*samples, *drapb.Claim) error) (samples, error) {
	all := make([]samples, len(p.claims))
	errs := make([]error, len(p.claims))
	start := make(chan struct{})
	var calls sync.WaitGroup
	for i, claim := range p.claims {
		calls.Go(func() {
			<-start
			errs[i] = do(&all[i], claim)
		})
	}
	close(start)
	calls.Wait()
	var joined samples
	for _, one := range all {
		joined = append(joined, one...)
	}
	return joined, errors.Join(errs...)
}
