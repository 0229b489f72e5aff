// Reading NICs. Netdev counters come through netlink, which knows the netdevs of
// the host's network namespace and no others; RDMA port state and counters come
// from sysfs, where each file is read alone. A file that fails is left in peace
// for a while: reading counters of a restricted function makes mlx5 write an
// error to the kernel log each time (node_exporter issue 3434).

package metrics

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/hostler-dev/hostler/topology"
	"github.com/hostler-dev/hostler/topology/sysfs"
)

// quarantine is how long a file that could not be read is not tried again.
const quarantine = 10 * time.Minute

// LinkReader reads a netdev of the host by its index.
type LinkReader interface {
	ReadLink(index int) (LinkReading, error)
}

// NetlinkReader reads netdevs through rtnetlink.
type NetlinkReader struct{}

// ReadLink implements LinkReader.
func (NetlinkReader) ReadLink(index int) (LinkReading, error) {
	link, err := netlink.LinkByIndex(index)
	if err != nil {
		return LinkReading{}, fmt.Errorf("reading netdev %d: %w", index, err)
	}
	attrs := link.Attrs()
	// Virtual netdevs may have no operational state; administratively up must do then.
	up := attrs.OperState == netlink.OperUp || (attrs.OperState == netlink.OperUnknown && attrs.Flags&net.FlagUp != 0)
	reading := LinkReading{Up: up}
	if s := attrs.Statistics; s != nil {
		reading.ReceivedBytes, reading.TransmittedBytes = float64(s.RxBytes), float64(s.TxBytes)
		reading.ReceivedPackets, reading.TransmittedPackets = float64(s.RxPackets), float64(s.TxPackets)
	}
	return reading, nil
}

// nicReader reads one NIC. It belongs to one goroutine.
type nicReader struct {
	sys   string
	links LinkReader
	// broken files, and until when they are left alone.
	broken map[string]time.Time
}

// read takes one reading. What failed is missing from it and told in the error.
func (r *nicReader) read(nic *topology.NIC, now time.Time) (NICReading, error) {
	var reading NICReading
	var failures []error
	if nic.Link != nil && nic.Link.Index != 0 {
		link, err := r.links.ReadLink(nic.Link.Index)
		switch {
		case err == nil:
			reading.Link = &link
		case errors.As(err, &netlink.LinkNotFoundError{}):
			// It went into a pod since the last snapshot.
		default:
			failures = append(failures, err)
		}
	}
	if nic.RDMA != nil {
		for _, port := range nic.RDMA.Ports {
			p, err := r.readPort(nic.RDMA.Name, port.Port, now)
			reading.Ports = append(reading.Ports, p)
			failures = append(failures, err)
		}
	}
	return reading, errors.Join(failures...)
}

func (r *nicReader) readPort(rdma string, port int, now time.Time) (PortReading, error) {
	reading := PortReading{RDMADevice: rdma, Port: port}
	folder := filepath.Join(r.sys, "class/infiniband", rdma, "ports", strconv.Itoa(port))
	var failures []error
	if state, err := r.readFile(filepath.Join(folder, "state"), now); err != nil {
		failures = append(failures, err)
	} else if _, word, found := strings.Cut(state, ":"); found { // "4: ACTIVE"
		reading.State = strings.TrimSpace(word)
	}
	counter := func(name string, unit float64) *float64 {
		text, err := r.readFile(filepath.Join(folder, "counters", name), now)
		if err != nil || text == "" {
			failures = append(failures, err)
			return nil
		}
		value, err := strconv.ParseUint(text, 10, 64)
		if err != nil { // irdma says "N/A (no PMA)": not a failure, there is no such counter
			return nil
		}
		scaled := float64(value) * unit
		return &scaled
	}
	// The data counters count words of four bytes (IBTA, PortRcvData).
	reading.ReceivedBytes, reading.TransmittedBytes = counter("port_rcv_data", 4), counter("port_xmit_data", 4)
	reading.LinkDowned = counter("link_downed", 1)
	return reading, errors.Join(failures...)
}

// readFile reads a sysfs file, "" if it does not exist or is left alone.
func (r *nicReader) readFile(path string, now time.Time) (string, error) {
	if until, broken := r.broken[path]; broken {
		if now.Before(until) {
			return "", nil
		}
		delete(r.broken, path)
	}
	text, err := sysfs.Root("").Text(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		r.broken[path] = now.Add(quarantine)
		return "", fmt.Errorf("reading a counter (not tried again for %s): %w", quarantine, err)
	}
	return text, nil
}
