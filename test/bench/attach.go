package main

// Attaching NICs to a pod's network namespace and bringing them home: one, and eight of
// one claim. The floor is the same journey in bare netlink messages: moved and renamed,
// addressed, up; moved and renamed back, up. The devices are veths, which the kernel
// moves like any netdev. Both take turns, and both are told per device.

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/hostler-dev/hostler/netattach/attach"
)

const (
	// attachments of one device; of eight there are a third as many.
	attachments = 60
	// attachBudget and attachTail are how many floors an attachment may take, at p50 and at p99.
	attachBudget, attachTail = 1.5, 2
)

func attachFigures() []Result {
	var figures []Result
	for _, count := range []string{"one", "eight"} {
		for _, way := range []string{"attach", "detach"} {
			figures = append(figures, Result{Name: way + "_" + count + "_p50", Unit: "ms"}, Result{Name: way + "_" + count + "_p99", Unit: "ms"})
		}
	}
	return figures
}

func measureAttach(ctx context.Context, b *bed, results []*Result) error {
	for i, count := range []int{1, 8} {
		j, err := newJourney(count)
		if err != nil {
			return err
		}
		if err := errors.Join(j.measure(ctx), j.close()); err != nil {
			return err
		}
		for way, times := range []struct{ ours, floor samples }{{j.in, j.floorIn}, {j.home, j.floorHome}} {
			p50, p99 := results[4*i+2*way], results[4*i+2*way+1]
			p50.Set(times.ours.p50(), len(times.ours))
			p50.SetFloor(times.floor.p50())
			p50.Budget = attachBudget * times.floor.p50()
			p99.Set(times.ours.p99(), len(times.ours))
			p99.SetFloor(times.floor.p99())
			p99.Budget = attachTail * times.floor.p99()
			p50.Note = fmt.Sprintf("per device of %d; floor: the same in bare netlink messages", count)
			p99.Note = p50.Note
		}
		b.accounts = append(b.accounts, j.account())
	}
	return nil
}

func (j *journey) measure(ctx context.Context) error {
	sandbox := attach.Sandbox{ID: "sandbox", Pod: j.claimant, NetNS: fmt.Sprintf("/proc/self/fd/%d", j.pod.Fd())}
	per := time.Duration(len(j.intent.Devices))
	rounds := attachments
	if per > 1 {
		rounds /= 3
	}
	for i := range rounds + 1 {
		in, home, floorIn, floorHome := &j.in, &j.home, &j.floorIn, &j.floorHome
		if i == 0 { // the first of each warms the caches
			in, home, floorIn, floorHome = &samples{}, &samples{}, &samples{}, &samples{}
		}
		began := time.Now()
		if err := j.attacher.Attach(ctx, sandbox); err != nil {
			return err
		}
		in.add(time.Since(began) / per)
		began = time.Now()
		if err := j.attacher.DetachSandbox(ctx, j.claimant.UID, sandbox.ID); err != nil {
			return err
		}
		home.add(time.Since(began) / per)
		if err := j.floor(floorIn, floorHome); err != nil {
			return fmt.Errorf("moving devices by hand: %w", err)
		}
		if i == 0 {
			continue
		}
		if err := j.stepByStep(ctx); err != nil {
			return err
		}
	}
	return nil
}

// floor moves all devices in and home with as few messages as there can be.
func (j *journey) floor(in, home *samples) error {
	per := time.Duration(len(j.intent.Devices))
	began := time.Now()
	for _, device := range j.intent.Devices {
		if err := bareMove(j.here, j.host, device.HostName, j.pod, device.PodName); err != nil {
			return err
		}
		moved, err := j.there.LinkByName(device.PodName)
		if err != nil {
			return err
		}
		prefix := device.Addresses[0]
		address := &netlink.Addr{IPNet: &net.IPNet{IP: prefix.Addr().AsSlice(), Mask: net.CIDRMask(prefix.Bits(), prefix.Addr().BitLen())}}
		if err := errors.Join(j.there.AddrAdd(moved, address), j.there.LinkSetUp(moved)); err != nil {
			return err
		}
	}
	in.add(time.Since(began) / per)
	began = time.Now()
	for _, device := range j.intent.Devices {
		if err := bareMove(j.there, j.pod, device.PodName, j.host, device.HostName); err != nil {
			return err
		}
		back, err := j.here.LinkByName(device.HostName)
		if err != nil {
			return err
		}
		if err := j.here.LinkSetUp(back); err != nil {
			return err
		}
	}
	home.add(time.Since(began) / per)
	return nil
}
