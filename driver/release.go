// Release takes back what claims have on a node that is served by no agent:
// before one is uninstalled, when none will start, when the API server is lost.
// It asks nobody but the node. What it does for a claim is what an agent does when
// the kubelet unprepares it, and like that it can be killed and repeated.

package driver

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/types"

	"github.com/hostler-dev/hostler/api/v1alpha1"
	"github.com/hostler-dev/hostler/driver/cdi"
	"github.com/hostler-dev/hostler/driver/claim"
	"github.com/hostler-dev/hostler/netattach"
	"github.com/hostler-dev/hostler/netattach/attach"
	"github.com/hostler-dev/hostler/topology"
)

// ReleaseOptions say what is released. Records and Look must be set.
type ReleaseOptions struct {
	// Claim is the one to release; all if empty.
	Claim types.UID
	// Force releases claims whose pods still run, too.
	Force bool
	// DryRun changes nothing.
	DryRun bool
	// Records are what netattach has on record, see attach.Attacher.
	Records func() ([]attach.Record, error)
	// Look reads the machine. It is called if partitions are to be removed: one
	// whose GPU is gone is gone with it.
	Look func(context.Context) *topology.Snapshot
	// Proc is where the kernel shows processes. Default: /proc.
	Proc string
}

// Released is what became of one claim.
type Released struct {
	Claim types.UID
	// Entry is what the journal had on it, nil for a claim that only files are left of.
	Entry *claim.Entry
	// Err is why something of it is left, nil if nothing is.
	Err error
}

// CopyJournal opens a copy of the journal in directory, for a look at what a
// release would do: one that is damaged or missing is rebuilt there. Those that were
// set aside are copied too, since an agent might take something back from them.
func CopyJournal(ctx context.Context, paths v1alpha1.PathsConfig, directory string) (*claim.Journal, error) {
	for {
		before, _ := os.ReadFile(journalPath(paths))
		if err := copyJournal(paths, directory); err != nil {
			return nil, fmt.Errorf("copy the journal: %w", err)
		}
		// Once an agent has replaced the file, what was copied beside it is not its own.
		if after, _ := os.ReadFile(journalPath(paths)); bytes.Equal(before, after) {
			break
		}
	}
	return claim.OpenJournal(ctx, filepath.Join(directory, filepath.Base(journalPath(paths))), cdi.Directory{Path: paths.CDI})
}

func copyJournal(paths v1alpha1.PathsConfig, directory string) error {
	files, err := filepath.Glob(journalPath(paths) + "*")
	for _, file := range files {
		raw, fault := os.ReadFile(file)
		switch {
		case fault == nil:
			err = errors.Join(err, os.WriteFile(filepath.Join(directory, filepath.Base(file)), raw, 0o600))
		case !errors.Is(fault, os.ErrNotExist): // an agent's temporary file may come and go
			err = errors.Join(err, fault)
		}
	}
	return err
}

// Release releases claims, in the order of their UIDs. It is for a Driver that
// does not run. The error is about what cannot be told of any claim.
func (d *Driver) Release(ctx context.Context, o ReleaseOptions) ([]Released, error) {
	if o.Proc == "" {
		o.Proc = "/proc"
	}
	records, fault := o.Records()
	specs, err := d.directory.List()
	if err != nil {
		return nil, err
	}
	described, err := d.steps.Metadata.List()
	if err != nil {
		return nil, err
	}
	processes, err := readPodProcesses(o.Proc)
	if err != nil {
		return nil, err
	}
	claims := map[types.UID]bool{}
	for _, uid := range append(specs, described...) {
		claims[uid] = true
	}
	for _, record := range records {
		claims[record.Intent.ClaimUID] = true
	}
	cut := false
	for _, entry := range d.cfg.Journal.Entries() {
		claims[entry.ClaimUID] = true
		cut = cut || slices.ContainsFunc(entry.Devices, func(device claim.Device) bool { return device.Partition != nil })
	}
	if cut && !o.DryRun {
		d.SetSnapshot(o.Look(ctx))
	}
	var released []Released
	for _, uid := range slices.Sorted(maps.Keys(claims)) {
		if o.Claim != "" && uid != o.Claim {
			continue
		}
		r := Released{Claim: uid, Entry: d.cfg.Journal.Entry(uid)}
		if r.Err = d.mayRelease(ctx, r, o, records, processes); r.Err == nil && !o.DryRun {
			r.Err = d.release(ctx, r, o)
		}
		released = append(released, r)
	}
	return released, errors.Join(fault, d.cfg.Journal.Checkpoint())
}

// mayRelease is nil unless pods still use the claim.
func (d *Driver) mayRelease(ctx context.Context, r Released, o ReleaseOptions, records []attach.Record, processes podProcesses) error {
	if ctx.Err() != nil {
		return fmt.Errorf("not looked at: %w", context.Cause(ctx))
	}
	if err := d.cfg.Journal.Later(r.Claim, d.cfg.BootID); err != nil {
		return err
	}
	if o.Force {
		return nil
	}
	inUse, err := d.cfg.Attacher.InUse(r.Claim)
	if err != nil {
		return fmt.Errorf("look whether its pods still run: %w", err)
	}
	var pods, running []netattach.PodReference
	if r.Entry != nil {
		pods = slices.Clone(r.Entry.Pods)
	}
	for _, record := range records {
		if record.Intent.ClaimUID == r.Claim && !slices.Contains(pods, record.Pod) {
			pods = append(pods, record.Pod)
		}
	}
	for _, pod := range pods {
		if processes.of(pod.UID) {
			running = append(running, pod)
		}
	}
	switch {
	case len(running) > 0:
		return fmt.Errorf("pod %s still runs; end it first, or take its devices away from it with --force", podNames(running))
	case inUse:
		return fmt.Errorf("the sandbox of pod %s still lives; end the pod first, or take its devices away from it with --force", podNames(pods))
	}
	return nil
}

func podNames(pods []netattach.PodReference) string {
	var names []string
	for _, pod := range pods {
		names = append(names, pod.Namespace+"/"+pod.Name)
	}
	return strings.Join(names, ", ")
}

// release undoes one claim and looks whether anything is left of it.
func (d *Driver) release(ctx context.Context, r Released, o ReleaseOptions) error {
	if r.Entry != nil {
		if err := d.runner.Unprepare(ctx, r.Claim); err != nil {
			return err
		}
		if left := d.cfg.Journal.Entry(r.Claim); left != nil {
			var partitions []string
			for i := range left.Devices {
				partitions = append(partitions, left.Devices[i].Name)
			}
			return fmt.Errorf("GPU partition %s may still be there, and cannot be removed while the accelerator driver does not work; run this again when it does, or reboot the machine, which removes all partitions", strings.Join(partitions, ", "))
		}
	} else if err := errors.Join(d.cfg.Attacher.Release(ctx, r.Claim), d.directory.Remove(r.Claim), d.steps.Metadata.Remove(r.Claim)); err != nil {
		return err
	}
	records, _ := o.Records() // whose fault is no claim's in particular, and reported once
	for _, record := range records {
		if record.Intent.ClaimUID != r.Claim {
			continue
		}
		var missing []string
		for i := range record.Intent.Devices {
			missing = append(missing, missingWords(&record.Intent.Devices[i]))
		}
		return fmt.Errorf("%s: neither in pod %s nor on the host; the kernel may still be taking the pod's network namespace apart; run this again, for ten minutes, and look in the other pods' namespaces, for a netdev by its MAC address (`ip link`), for an RDMA device by its name (`rdma dev show`)",
			strings.Join(missing, ", "), podNames([]netattach.PodReference{record.Pod}))
	}
	return nil
}
