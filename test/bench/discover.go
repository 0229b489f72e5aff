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
	"github.com/hostler-dev/hostler/topology"
	"github.com/hostler-dev/hostler/topology/host"
	"github.com/hostler-dev/hostler/topology/nic"
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
	profile, links := manyVFs()
	rendered, err := machine.Render(profile, directory, machine.RenderOptions{NoDriver: true})
	if err != nil {
		return err
	}
	reader := host.New(host.Config{Sys: rendered.Sys, Dev: rendered.Dev, Kernel: links})
	var ours, floor samples
	for range discoveries {
		began := time.Now()
		hardware, err := reader.ReadHardware(ctx)
		if err != nil {
			return fmt.Errorf("read the machine: %w", err)
		}
		ours.add(time.Since(began))
		if err := complete(hardware); err != nil {
			return err
		}
		began = time.Now()
		if err := readIdentities(rendered.Sys); err != nil {
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

// links is what netlink would say.
type links []nic.LinkState

func (l links) Links() ([]nic.LinkState, error)   { return l, nil }
func (l links) Routes() ([]nic.Route, error)      { return nil, nil }
func (l links) Addresses() ([]nic.Address, error) { return nil, nil }

// manyVFs is a profile of the machine, and its netdevs.
func manyVFs() (*machine.Profile, links) {
	profile := &machine.Profile{
		Name: "many-vfs", Product: "bench", Driver: machine.Driver{Version: "570.124.06", CUDA: "12.8"},
		NUMANodes: []machine.NUMANode{{CPUs: "0-63", MemoryGiB: 512, Distances: []int{10}}},
	}
	var netdevs links
	number := 0
	function := func(pci string) (netdev string, rdma *machine.RDMA) {
		netdev, number = fmt.Sprintf("net%d", number), number+1
		netdevs = append(netdevs, nic.LinkState{Index: number, Name: netdev, Kind: "device", Type: "ethernet", MTU: 1500, Up: true, MAC: profile.MAC(0, pci).String()})
		return netdev, &machine.RDMA{Name: fmt.Sprintf("mlx5_%d", number-1), Index: number - 1, Rate: "400 Gb/sec (4X NDR)",
			Firmware: "28.39.1002", BoardID: "MT_0000000891", LinkLayer: "Ethernet"}
	}
	for i := range pfs {
		bus := 0x10 + i*4
		root, pci := fmt.Sprintf("0000:%02x:01.0", bus), fmt.Sprintf("0000:%02x:00.0", bus+1)
		profile.Bridges = append(profile.Bridges, machine.Bridge{PCI: root, Root: fmt.Sprintf("pci0000:%02x", bus), ID: "8086:352a"})
		pf := machine.NIC{PCI: pci, Parent: root, ID: "15b3:1021", Driver: "mlx5_core", SpeedMbps: 400000, MTU: 1500,
			PCIeGeneration: 5, Width: 16, TotalVFs: vfs, VFID: "15b3:101e"}
		pf.Interface, pf.RDMA = function(pci)
		for v := range vfs {
			vf := machine.VF{PCI: fmt.Sprintf("0000:%02x:%02x.%d", bus+1, 1+v/8, v%8), Driver: "mlx5_core"}
			vf.Interface, vf.RDMA = function(vf.PCI)
			pf.VFs = append(pf.VFs, vf)
		}
		profile.NICs = append(profile.NICs, pf)
	}
	return profile, netdevs
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
