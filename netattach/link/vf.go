package link

// VFs as their PFs have them. A VF's VLAN, rates and rights are not the VF's but
// the PF's to set: whoever holds the VF, in a pod or a virtual machine, cannot
// change them. The PF is found by its PCI address, since names change; sysfs
// says which netdev that function has, and netlink has the settings.

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"github.com/hostler-dev/hostler/netattach"
	"github.com/hostler-dev/hostler/topology/nic"
	"github.com/hostler-dev/hostler/topology/sysfs"
)

// VFsConfig says where PFs are.
type VFsConfig struct {
	// Sys is where sysfs is mounted. Default: /sys.
	Sys string
	// Namespace is a descriptor of the host's network namespace, which the caller
	// keeps open. Default: the process's own.
	Namespace *int
}

// VFs reads and sets what PFs in the host's network namespace keep of their VFs.
type VFs struct {
	sys  sysfs.Root
	host *Host
}

// NewVFs opens the host's namespace.
func NewVFs(cfg VFsConfig) (*VFs, error) {
	host, err := NewHost(HostConfig{Namespace: cfg.Namespace})
	if err != nil {
		return nil, err
	}
	if cfg.Sys == "" {
		cfg.Sys = "/sys"
	}
	return &VFs{sys: sysfs.Root(cfg.Sys), host: host}, nil
}

// Close releases the namespace that NewVFs opened.
func (v *VFs) Close() error { return v.host.Close() }

// VF reads a VF's settings and its netdev's address. The error is
// netattach.ErrVFGone if there is no such VF any more.
func (v *VFs) VF(vf netattach.VF) (netattach.VFState, error) {
	var state netattach.VFState
	here, pf, err := v.openPF(vf, extVFs)
	if err != nil {
		return state, err
	}
	defer here.Close()
	settings, ok := pf.vfs[vf.Index]
	if !ok {
		return state, fmt.Errorf("%s: its driver (%s) tells nothing of the VF; look at what `ip link show %s` says", v.describe(vf), v.driver(vf.PF), pf.name)
	}
	state.Settings = settings
	netdev, err := v.netdev(here, vf.PCI, 0)
	if netdev != nil {
		state.NetdevMAC = netdev.mac.String()
	}
	return state, err
}

// SetVF has the PF's driver take over what is set in setting, one setting or
// those that the kernel takes together: VLAN with QoS and protocol, both rates.
func (v *VFs) SetVF(vf netattach.VF, setting netattach.VFSettings) error {
	attribute, err := encodeVF(vf.Index, setting)
	if err != nil {
		return err
	}
	here, pf, err := v.openPF(vf, 0)
	if err != nil {
		return err
	}
	defer here.Close()
	if err := here.setVF(pf, attribute); err != nil {
		return fmt.Errorf("set %s on %s (%s): %w; %s", setting, v.describe(vf), pf.name, err, remedy(err, v.driver(vf.PF)))
	}
	return nil
}

// SetNetdevMAC gives the VF's netdev an address; it is no error if none is on the
// host. It goes through the PF's driver, which takes only the administrative address once that is set.
func (v *VFs) SetNetdevMAC(vf netattach.VF, mac string) error {
	here, err := open(v.host.namespace)
	if err != nil {
		return err
	}
	defer here.Close()
	netdev, err := v.netdev(here, vf.PCI, 0)
	if err != nil || netdev == nil {
		return err
	}
	if err := here.setMAC(netdev, mac); err != nil {
		return fmt.Errorf("give %s, the netdev of %s, the address %s: %w; if its driver (%s) keeps another one, unbind it from that and bind it again (/sys/bus/pci/devices/%s/driver)",
			netdev.name, v.describe(vf), mac, err, v.driver(vf.PCI), vf.PCI)
	}
	return nil
}

func (v *VFs) describe(vf netattach.VF) string {
	return fmt.Sprintf("VF %d (%s) of PF %s", vf.Index, vf.PCI, vf.PF)
}

func (v *VFs) driver(address string) string {
	if driver := v.sys.LinkBase("bus", "pci", "devices", address, "driver"); driver != "" {
		return driver
	}
	return "none"
}

// openPF opens the host's namespace and finds the PF's netdev in it.
func (v *VFs) openPF(vf netattach.VF, extent uint32) (*space, *netdev, error) {
	if _, err := os.Lstat(v.sys.Path("bus", "pci", "devices", vf.PF)); errors.Is(err, fs.ErrNotExist) {
		return nil, nil, fmt.Errorf("%s: the PF is gone: %w", v.describe(vf), netattach.ErrVFGone)
	}
	if there := v.sys.LinkBase("bus", "pci", "devices", vf.PF, fmt.Sprintf("virtfn%d", vf.Index)); there != vf.PCI {
		return nil, nil, fmt.Errorf("%s: the PF's VF of that number is now %q: %w", v.describe(vf), there, netattach.ErrVFGone)
	}
	here, err := open(v.host.namespace)
	if err != nil {
		return nil, nil, err
	}
	pf, err := v.netdev(here, vf.PF, extent)
	if err == nil && pf == nil {
		err = fmt.Errorf("%s: the PF's netdev is not in the host's network namespace, so nothing can be set on its VFs; bring it back, or bind the PF to its driver (now: %s)", v.describe(vf), v.driver(vf.PF))
	}
	if err != nil {
		here.Close()
		return nil, nil, err
	}
	return here, pf, nil
}

// netdev is the function's own netdev, nil if the namespace has none.
func (v *VFs) netdev(here *space, address string, extent uint32) (*netdev, error) {
	names := nic.Netdevs(v.sys, address)
	if len(names) == 0 {
		return nil, nil
	}
	found, err := here.netdev(names[0], extent)
	if errors.Is(err, unix.ENODEV) || err == nil && found.parent != "" && found.parent != address {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read %s, the netdev of %s: %w", names[0], address, err)
	}
	return found, nil
}

// remedy says what helps against the kernel's answer to a setting.
func remedy(answer error, driver string) string {
	switch {
	case errors.Is(answer, unix.EOPNOTSUPP), errors.Is(answer, unix.EPROTONOSUPPORT):
		return fmt.Sprintf("the PF's driver (%s) cannot set this; leave it out of the NICConfig, or ask for NICs whose driver can", driver)
	case errors.Is(answer, unix.EPERM), errors.Is(answer, unix.EACCES):
		return "the agent needs CAP_NET_ADMIN in the host's network namespace"
	}
	return fmt.Sprintf("the PF's driver (%s) refuses the value, or refuses it now; the kernel's log may say why", driver)
}
