package main

// Discovery of a machine with 16 PFs of 128 VFs each, rendered as sysfs into
// memory. What netlink would say is handed over as values: 2,064 netdevs are
// more than this machine should make for a measurement. The floor is reading
// what names a function, for every function once.

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/hostler-dev/hostler/test/machine"
	"github.com/hostler-dev/hostler/test/simulated"
	"github.com/hostler-dev/hostler/topology"
)

const (
	pfs, vfs    = 16, 128
	discoveries = 5
)

func measureDiscover(ctx context.Context, _ *bed, results []*Result) (err error) {
	directory, err := os.MkdirTemp("/dev/shm", "hostler-bench-")
	if err != nil {
		return fmt.Errorf("make a folder in memory: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(directory)) }()
	m, err := simulated.New("nic-16x128", directory, machine.RenderOptions{})
	if err != nil {
		return err
	}
	var ours, floor samples
	for range discoveries {
		began := time.Now()
		hardware, err := m.Hardware().ReadHardware(ctx) // by a reader that remembers nothing
		if err != nil {
			return fmt.Errorf("read the machine: %w", err)
		}
		ours.add(time.Since(began))
		if err := complete(hardware); err != nil {
			return err
		}
		began = time.Now()
		if err := readIdentities(m.Rendered.Sys); err != nil {
			return err
		}
		floor.add(time.Since(began))
	}
	r := results[0]
	r.Set(ours.p50(), len(ours))
	r.SetFloor(floor.p50())
	r.Note = fmt.Sprintf("p50, %d functions, netlink's part given as values; floor: reading class, IDs, NUMA node and names of every function", pfs*(vfs+1))
	return nil
}

// complete guards against measuring a discovery that found less.
func complete(hardware topology.Hardware) error {
	whole := 0
	for _, n := range hardware.NICs {
		if n.Link != nil && n.RDMA != nil {
			whole++
		}
	}
	if want := pfs * (vfs + 1); len(hardware.NICs) != want || whole != want {
		return fmt.Errorf("discovery found %d NICs, %d of them with netdev and RDMA device, of %d", len(hardware.NICs), whole, want)
	}
	return nil
}

// readIdentities reads what tells any function apart, and nothing of its
// netdev's and RDMA device's state.
func readIdentities(sys string) error {
	functions, err := filepath.Glob(filepath.Join(sys, "bus/pci/devices/*"))
	if err != nil {
		return err
	}
	for _, function := range functions {
		for _, name := range []string{"class", "vendor", "device", "numa_node"} {
			if _, err := os.ReadFile(filepath.Join(function, name)); err != nil {
				return err
			}
		}
		if _, err := filepath.EvalSymlinks(function); err != nil {
			return err
		}
		for _, name := range []string{"net", "infiniband"} {
			if _, err := os.ReadDir(filepath.Join(function, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
	}
	return nil
}
