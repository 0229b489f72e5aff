package main

// What the hook takes as proof while the agent is away: the agent's record of
// an attachment to this namespace, and the kernel's own word that it stands.

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
)

// record is the part of netattach/attach.Record that the hook needs.
type record struct {
	State       string `json:"state"`
	BootID      string `json:"bootID"`
	NetNSInode  uint64 `json:"netnsInode"`
	RulesetHash string `json:"rulesetHash"`
	// Powers with which containers that use the claim were let start.
	Powers []string `json:"powers"`
	// PowersKnown is false in records of versions that did not note them.
	PowersKnown bool `json:"powersKnown"`
	Intent      struct {
		Devices []device `json:"devices"`
	} `json:"intent"`
	Devices []deviceState `json:"devices"`
}

// device is the part of netattach.DeviceIntent that the hook needs.
type device struct {
	Pool     string `json:"pool"`
	Device   string `json:"device"`
	ShareID  string `json:"shareID"`
	HostName string `json:"hostName"`
	PodName  string `json:"podName"`
	PodIndex int    `json:"podIndex"`
	Child    struct {
		Kind        string `json:"kind"`
		ParentIndex int    `json:"parentIndex"`
	} `json:"child"`
	Bandwidth uint64 `json:"bandwidth"`
}

func prove(records string, q question, namespace *os.File) error {
	r, err := readRecord(filepath.Join(records, q.Claim+"-"+q.PodUID+".json"))
	if errors.Is(err, fs.ErrNotExist) {
		return errors.New("it was not attached to this pod before")
	}
	if err != nil {
		return err
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return fmt.Errorf("cannot read the boot ID: %w", err)
	}
	if r.State != "Attached" || r.BootID != strings.TrimSpace(string(boot)) {
		return errors.New("its attachment to this pod is not complete")
	}
	if err := r.overpowered(records, q); err != nil {
		return err
	}
	if len(r.Intent.Devices) == 0 && r.RulesetHash == "" {
		return nil // it wants nothing of the network
	}
	var stat syscall.Stat_t
	if err := syscall.Fstat(int(namespace.Fd()), &stat); err != nil {
		return fmt.Errorf("cannot look at the container's network namespace: %w", err)
	}
	if stat.Ino != r.NetNSInode {
		return errors.New("it was attached to an earlier network namespace of this pod")
	}
	return inNamespace(namespace, r.verify)
}

func readRecord(path string) (record, error) {
	var r record
	raw, err := os.ReadFile(path)
	if err != nil {
		return r, fmt.Errorf("cannot read its attachment record: %w", err)
	}
	if err := json.Unmarshal(raw, &r); err != nil {
		return r, fmt.Errorf("its attachment record %s is damaged: %w", path, err)
	}
	return r, nil
}

// hasNICs says that an admitted claim has NICs. One of GPUs alone, or of a scope, says
// nothing of which RDMA devices its containers are to have.
func hasNICs(records string, q question) (bool, error) {
	r, err := readRecord(filepath.Join(records, q.Claim+"-"+q.PodUID+".json"))
	if err != nil {
		return false, fmt.Errorf("cannot tell whether claim %s has NICs: %w", q.Claim, err)
	}
	return len(r.Intent.Devices) > 0, nil
}

// overpowered refuses a container that could undo what limits its pod, which may be
// a matter of any claim of the pod, and one that may undo what is yet to limit it: that
// the agent would have to know of (netattach/attach, power.go).
func (r record) overpowered(records string, q question) error {
	for _, capability := range []string{"CAP_NET_ADMIN", "CAP_SYS_ADMIN"} {
		if !slices.Contains(q.Capabilities, capability) {
			continue
		}
		paths, err := filepath.Glob(filepath.Join(records, "*-"+q.PodUID+".json"))
		if err != nil {
			return fmt.Errorf("cannot list the pod's attachment records: %w", err)
		}
		for _, path := range paths {
			r, err := readRecord(path)
			if err != nil {
				return err
			}
			if limits := r.limits(); limits != "" {
				return fmt.Errorf("the pod has %s, which this container could undo because it has %s; remove that from securityContext.capabilities (or \"privileged\")", limits, capability)
			}
		}
		if r.PowersKnown && !slices.Contains(r.Powers, capability) {
			return fmt.Errorf("the agent has let no container with %s start with it before", capability)
		}
	}
	return nil
}

// limits says by what the pod is limited, "" if by nothing.
func (r record) limits() string {
	switch {
	case r.RulesetHash != "":
		return "an egress scope"
	case slices.ContainsFunc(r.Intent.Devices, func(d device) bool { return d.Bandwidth > 0 }):
		return "a share of a NIC and is held to its bandwidth"
	}
	return ""
}

// verify runs in the container's network namespace.
func (r record) verify() error {
	interfaces, err := net.Interfaces()
	if err != nil {
		return fmt.Errorf("cannot list the pod's network interfaces: %w", err)
	}
	for _, device := range r.Intent.Devices {
		// Of a device without netdev there is nothing to see; what keeps other pods from
		// it is the RDMA subsystem itself, or on a shared node the device cgroup.
		found := device.HostName == ""
		for _, i := range interfaces {
			found = found || i.Name == device.PodName && i.Index == device.PodIndex
		}
		if !found {
			return fmt.Errorf("network device %s is no longer in the pod as %s", device.Device, device.PodName)
		}
		if err := device.proveChild(); err != nil {
			return err
		}
	}
	for _, device := range r.Devices {
		if err := device.proveMade(interfaces); err != nil {
			return err
		}
	}
	if r.RulesetHash == "" {
		return nil
	}
	return verifyRules(r.RulesetHash, interfaces)
}

// inNamespace runs f on a thread that is in the namespace. The thread is not
// used for anything after, because the process ends or only waits.
func inNamespace(namespace *os.File, f func() error) error {
	result := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlock: the thread dies with the goroutine
		if _, _, errno := syscall.RawSyscall(sysSetns, namespace.Fd(), syscall.CLONE_NEWNET, 0); errno != 0 {
			result <- fmt.Errorf("cannot enter the container's network namespace: %w", errno)
			return
		}
		result <- f()
	}()
	return <-result
}
