// The firmware version of a netdev, by the ethtool request that `ethtool -i`
// makes. RDMA devices tell it in sysfs, so this is for cards without RDMA.

package nic

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Firmware implements FirmwareReader.
func (Netlink) Firmware(netdev string) (version string, err error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return "", fmt.Errorf("open a socket to ask for the firmware of %s: %w", netdev, err)
	}
	defer func() { err = errors.Join(err, unix.Close(fd)) }()
	info, err := unix.IoctlGetEthtoolDrvinfo(fd, netdev)
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENODEV) {
		return "", nil // a driver without the request, or a netdev that has just left
	}
	if err != nil {
		return "", fmt.Errorf("ask the driver of %s for its firmware (ETHTOOL_GDRVINFO): %w", netdev, err)
	}
	version = unix.ByteSliceToString(info.Fw_version[:])
	if version == "N/A" {
		version = ""
	}
	return version, nil
}
