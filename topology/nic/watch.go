// Watch turns the kernel's announcements about links, addresses and routes into
// hints. What changed is not taken from the message: messages can be lost, the state cannot.

package nic

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/vishvananda/netlink"
)

// Watch calls changed, possibly from several goroutines, for every announcement
// of the calling process's network namespace until ctx is done. An error means that
// announcements may have been missed: watch again. It is a topology.Watcher.
func Watch(ctx context.Context, changed func()) error {
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	done := make(chan struct{})
	var readers sync.WaitGroup
	// The library closes a channel once its socket is closed, which done does;
	// until then its message must be taken.
	defer readers.Wait()
	defer close(done)

	links := make(chan netlink.LinkUpdate)
	addresses := make(chan netlink.AddrUpdate)
	routes := make(chan netlink.RouteUpdate)
	if err := netlink.LinkSubscribeWithOptions(links, done, netlink.LinkSubscribeOptions{ErrorCallback: fail}); err != nil {
		return fmt.Errorf("subscribe to changes of links: %w", err)
	}
	readers.Go(func() { hint(links, changed) })
	if err := netlink.AddrSubscribeWithOptions(addresses, done, netlink.AddrSubscribeOptions{ErrorCallback: fail}); err != nil {
		return fmt.Errorf("subscribe to changes of addresses: %w", err)
	}
	readers.Go(func() { hint(addresses, changed) })
	if err := netlink.RouteSubscribeWithOptions(routes, done, netlink.RouteSubscribeOptions{ErrorCallback: fail}); err != nil {
		return fmt.Errorf("subscribe to changes of routes: %w", err)
	}
	readers.Go(func() { hint(routes, changed) })

	changed() // what happened before the subscription was announced to nobody
	<-ctx.Done()
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) && !errors.Is(cause, context.DeadlineExceeded) {
		return fmt.Errorf("changes of links, addresses or routes were missed: %w", cause)
	}
	return nil
}

func hint[T any](updates <-chan T, changed func()) {
	for range updates {
		changed()
	}
}
