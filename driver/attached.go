// What workloads are told of their devices, see claim's metadata step: by which
// rules they are described, and when a netdev is in its pod.

package driver

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"

	"k8s.io/apimachinery/pkg/types"

	"github.com/hostler-dev/hostler/driver/metadata"
	"github.com/hostler-dev/hostler/driver/publish"
	"github.com/hostler-dev/hostler/topology"
)

// metadataDirectory is where the library would keep the files, too.
func (cfg *Config) metadataDirectory() (*metadata.Directory, error) {
	return metadata.New(filepath.Join(pluginDirectory(cfg.Paths), "dra-device-metadata"))
}

// describer keeps what one snapshot takes to work out for all claims.
type describer struct {
	mu       sync.Mutex
	snapshot *topology.Snapshot
	features publish.Features
	made     *publish.Describer
}

// describe returns what slices say of the device.
func (d *Driver) describe(subject publish.Subject) (publish.Attributes, bool) {
	features, _ := d.cfg.Features()
	snapshot := d.machine.now()
	d.describer.mu.Lock()
	if d.describer.made == nil || d.describer.snapshot != snapshot || d.describer.features != features {
		d.describer.snapshot, d.describer.features = snapshot, features
		d.describer.made = publish.NewDescriber(publish.Input{Snapshot: snapshot, Features: features, Publish: d.cfg.Publish})
	}
	made := d.describer.made
	d.describer.mu.Unlock()
	return made.Describe(subject)
}

// Attached is told by netattach that the claim's netdevs are up in their pod, whose
// containers may start when it returns nil.
func (d *Driver) Attached(ctx context.Context, uid types.UID) error {
	entry := d.cfg.Journal.Entry(uid)
	if entry == nil {
		return fmt.Errorf("claim %s is not prepared any more", uid)
	}
	err := errors.Join(d.steps.Attached(entry), d.steps.FollowRDMA(ctx, entry))
	if err != nil {
		d.wantReconcile()
	}
	return err
}

// SandboxEnded has claims looked at that only waited for that. It does not block.
func (d *Driver) SandboxEnded() {
	if d.runner.Orphans() {
		d.wantReconcile()
	}
}
