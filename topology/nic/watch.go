// Watch turns the kernel's announcements about links, addresses, routes, rules
// and next-hop objects into hints. What changed is not taken from the message:
// messages can be lost, the state cannot.

package nic

import (
	"context"
	"fmt"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// announcements are all groups whose messages can change which NICs there are,
// how they are and what the node lives on.
var announcements = []uint{
	unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR,
	unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE, unix.RTNLGRP_IPV4_RULE, unix.RTNLGRP_IPV6_RULE, unix.RTNLGRP_NEXTHOP,
}

// Watch calls changed for every announcement of the calling process's network
// namespace until ctx is done. An error means that announcements may have been
// missed: watch again. It is a topology.Watcher.
func Watch(ctx context.Context, changed func()) error {
	socket, err := nl.Subscribe(unix.NETLINK_ROUTE, announcements...)
	if err != nil {
		return fmt.Errorf("subscribe to changes of links, addresses, routes and rules: %w", err)
	}
	stop := context.AfterFunc(ctx, socket.Close) // ends a Receive that waits
	defer func() {
		if stop() {
			socket.Close()
		}
	}()
	changed() // what happened before the subscription was announced to nobody
	for {
		messages, _, err := socket.Receive()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			// ENOBUFS: more was announced than the socket holds.
			return fmt.Errorf("changes of links, addresses, routes or rules were missed: %w", err)
		}
		if len(messages) > 0 {
			changed()
		}
	}
}
