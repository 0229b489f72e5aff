package multus

// Device-info files: what is known of a device that Multus is to attach, for CNI
// plugins and, by the pod's annotation k8s.v1.cni.cncf.io/network-status, for the
// workload (Network Plumbing Working Group, Device Information Specification 1.1). The
// specification fixes the name of a file, and that it is gone when the device is free.

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	nadv1 "github.com/k8snetworkplumbingwg/network-attachment-definition-client/pkg/apis/k8s.cni.cncf.io/v1"
)

// DeviceInfo is the directory of device-info files; Multus looks below
// /var/run/k8s.cni.cncf.io/devinfo.
type DeviceInfo struct{ Path string }

// Device is what a file says of one.
type Device struct {
	// ResourceName by which Multus finds the device.
	ResourceName string
	// PCI address of it.
	PCI string
	// RDMA device, "" if the claim gets none.
	RDMA string
}

// File is the path of the device's file.
func (d DeviceInfo) File(device Device) string {
	plain := strings.NewReplacer("/", "-")
	return filepath.Join(d.Path, "dp", fmt.Sprintf("%s-%s-device.json", plain.Replace(device.ResourceName), plain.Replace(device.PCI)))
}

func (device Device) encode() ([]byte, error) {
	return json.Marshal(nadv1.DeviceInfo{
		Type: nadv1.DeviceInfoTypePCI, Version: nadv1.DeviceInfoVersion,
		Pci: &nadv1.PciDevice{PciAddress: device.PCI, RdmaDevice: device.RDMA},
	})
}

// Write makes the file, whole or not at all, whatever is in its place.
func (d DeviceInfo) Write(device Device) error {
	content, err := device.encode()
	if err != nil {
		return err
	}
	file := d.File(device)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return fmt.Errorf("make the directory of device-info files: %w; check paths.deviceInfo in the agent's configuration", err)
	}
	// Its name is the same for every attempt, so that what one left is found.
	if err := discard(unfinished(file)); err != nil {
		return fmt.Errorf("write a device-info file: %w", err)
	}
	temporary, err := os.OpenFile(unfinished(file), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("write a device-info file: %w", err)
	}
	_, err = temporary.Write(content)
	// Plugins of any user read it, and only the agent writes it.
	err = errors.Join(err, temporary.Chmod(0o444), temporary.Close())
	if err == nil {
		err = os.Rename(temporary.Name(), file)
	}
	if err != nil {
		return fmt.Errorf("write device-info file %s: %w", file, errors.Join(err, os.Remove(temporary.Name())))
	}
	return nil
}

// Verify fails unless the file says what it should.
func (d DeviceInfo) Verify(device Device) error {
	want, err := device.encode()
	if err != nil {
		return err
	}
	have, err := os.ReadFile(d.File(device))
	if err != nil {
		return fmt.Errorf("read back a device-info file: %w", err)
	}
	if !bytes.Equal(have, want) {
		return fmt.Errorf("device-info file %s differs from what was written; is a device plugin for the same device on the node?", d.File(device))
	}
	return nil
}

// Remove is done, too, if there is no file. It takes what a killed agent has begun.
func (d DeviceInfo) Remove(device Device) error {
	if err := errors.Join(discard(d.File(device)), discard(unfinished(d.File(device)))); err != nil {
		return fmt.Errorf("remove a device-info file: %w", err)
	}
	return nil
}

func unfinished(file string) string {
	return filepath.Join(filepath.Dir(file), "."+filepath.Base(file)+".tmp")
}

func discard(file string) error {
	if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
