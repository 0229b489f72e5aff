package claim

// What may happen to a claim of any kind, from its first prepare to its end: the other
// half of the features of TestEveryKindWithEveryFeature.

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/google/go-cmp/cmp"
	resourceapi "k8s.io/api/resource/v1"

	"github.com/hostler-dev/hostler/driver/publish"
)

// after has something happen between the claim's prepare and the next.
func after(event func(*world, kind) error) func(*world, kind) error {
	return func(w *world, k kind) error {
		return errors.Join(prepareWhole(w, k.claim("c")), event(w, k), prepareWhole(w, k.claim("c")))
	}
}

func events() map[string]func(w *world, k kind) error {
	return map[string]func(*world, kind) error{
		"repeated-prepare": after(func(*world, kind) error { return nil }),
		"crash": func(w *world, k kind) error {
			_, err := w.start(9).prepare(k.claim("c"))
			if !errors.Is(err, errKilled) {
				return errors.New("it lives")
			}
			return prepareWhole(w, k.claim("c"))
		},
		"reboot":     after(func(w *world, k kind) error { w.reboot(); return w.start(0).reconcile(k.claim("c")) }),
		"spec-wiped": after(func(w *world, k kind) error { w.wipe(); return w.start(0).reconcile(k.claim("c")) }),
		"reconciled": after(func(w *world, k kind) error { return w.start(0).reconcile(k.claim("c")) }),
		"late-prepare": func(w *world, k kind) error {
			a := w.start(0)
			early := a.Arrive()
			if err := errors.Join(prepare(a, k), unprepare(a, k)); err != nil {
				return err
			}
			_, err := a.Prepare(quiet(), early, k.claim("c"))
			return err
		},
		"claim-deleted": after(func(w *world, _ kind) error {
			a := w.start(0)
			return errors.Join(a.reconcile(), a.has(0))
		}),
		"pod-that-lives-on": after(func(w *world, _ kind) error {
			w.inUse["uid-c"] = true
			defer delete(w.inUse, "uid-c")
			a := w.start(0)
			return errors.Join(a.reconcile(), a.has(1))
		}),
		"netdev-not-home": func(w *world, k kind) error {
			if err := prepareWhole(w, k.claim("c")); err != nil {
				return err
			}
			w.unhappy["uid-c"] = errors.New("the netdev is not home yet")
			a := w.start(0)
			if err := unprepare(a, k); !errors.Is(err, w.unhappy["uid-c"]) {
				return fmt.Errorf("unprepared: %w", err)
			}
			if entry := w.start(0).journal.Entry("uid-c"); entry == nil || !strings.Contains(entry.Ending, "not home") {
				return fmt.Errorf("the journal does not say why it stays: %+v", entry)
			}
			delete(w.unhappy, "uid-c")
			a = w.start(0)
			return errors.Join(a.reconcile(k.claim("c")), a.has(0))
		},
		"driver-dead-at-the-end": func(w *world, k kind) error {
			if err := prepareWhole(w, k.claim("c")); err != nil {
				return err
			}
			w.dead = true
			err := unprepare(w.start(0), k)
			w.dead = false
			a := w.start(0)
			return errors.Join(err, a.reconcile(), a.has(0))
		},
		"API-server-away": after(func(w *world, _ kind) error {
			a, away := w.start(0), errors.New("connection refused")
			err := a.Reconcile(quiet(), func(context.Context, string, string) (*resourceapi.ResourceClaim, error) { return nil, away }, a.cdi)
			if !errors.Is(err, away) {
				return fmt.Errorf("it is not said: %w", err)
			}
			return a.has(1)
		}),
		"full-disk": func(w *world, k kind) error {
			a := w.start(0)
			a.journal.disk = fullDisk{}
			return prepare(a, k)
		},
		"CDI-not-writable": func(w *world, k kind) error {
			w.block()
			a := w.start(0)
			if err := prepare(a, k); err == nil || !strings.Contains(err.Error(), "CDI directory") {
				return fmt.Errorf("prepared without a CDI directory: %w", err)
			}
			err := a.has(0)
			w.wipe()
			return errors.Join(err, prepareWhole(w, k.claim("c")))
		},
		"damaged-journal":        after(func(w *world, k kind) error { return w.lose("damaged", k) }),
		"deleted-journal":        after(func(w *world, k kind) error { return w.lose("", k) }),
		"journal-and-specs-lost": after(func(w *world, k kind) error { w.wipe(); return w.lose("damaged", k) }),
	}
}

// has is nil if the agent's journal, and the one on disk, have that many claims.
func (a *agent) has(claims int) error {
	disk, err := ReadJournal(a.path)
	if err != nil {
		return err
	}
	if len(a.journal.Entries()) != claims || len(disk.Entries()) != claims {
		return fmt.Errorf("the journal has %d claims, and %d on disk; want %d", len(a.journal.Entries()), len(disk.Entries()), claims)
	}
	return nil
}

// lose has the journal say something else, or be gone, and the next agent recover.
func (w *world) lose(says string, k kind) error {
	path := filepath.Join(w.directory, "state", "journal")
	err := os.Remove(path)
	if says != "" {
		err = errors.Join(err, os.WriteFile(path, []byte(says), 0o600))
	}
	if err != nil {
		return err
	}
	a := w.start(0)
	return errors.Join(a.recover(k), a.reconcile(k.claim("c")), a.has(1))
}

// recover asks the API server for what a lost journal had.
func (a *agent) recover(k kind) error {
	list := func(_ context.Context, visit func(*resourceapi.ResourceClaim) error) error {
		return visit(k.claim("c"))
	}
	return a.Recover(quiet(), list, func(pool string) bool { return strings.HasPrefix(pool, node+"/") })
}

// fullDisk takes nothing more.
type fullDisk struct{ realDisk }

func (fullDisk) Create(string) (diskFile, error)       { return nil, syscall.ENOSPC }
func (fullDisk) Overwrite(string, int64, []byte) error { return syscall.ENOSPC }

// tells is nil if the claim's containers can read of each of its devices what the
// device's slice says of it.
func (a *agent) tells() error {
	entry := a.journal.Entry("uid-c")
	spec, err := os.ReadFile(a.cdi.File(entry.ClaimUID))
	if err != nil {
		return err
	}
	for i := range entry.Devices {
		device := &entry.Devices[i]
		content, err := a.metadata.Read(entry.ClaimUID, device.Request)
		if err != nil {
			return err
		}
		told := content.Requests[0].Devices
		if len(told) != 1 || told[0].Driver != publish.DriverName || told[0].Pool != device.Pool || told[0].Name != device.Name {
			return fmt.Errorf("of device %s of request %s it is told %+v", device.Name, device.Request, told)
		}
		if !strings.Contains(string(spec), a.metadata.File(entry.ClaimUID, device.Request)) {
			return fmt.Errorf("the file of request %s is in no container", device.Request)
		}
		subject := publish.Subject{GPU: device.GPU, NIC: device.NIC}
		if device.Partition != nil {
			_, subject.Partition = a.now().Partition(device.Name)
		}
		machine := *a.snapshot // as it is while nobody has anything
		machine.GPUs = append(slices.Clone(machine.GPUs), a.mig.Snapshot())
		slice, _ := publish.NewDescriber(publish.Input{Snapshot: &machine}).Describe(subject)
		for name, value := range slice {
			if diff := cmp.Diff(value, told[0].Attributes[name]); diff != "" {
				return fmt.Errorf("%s of device %s (-slice +told):\n%s", name, device.Name, diff)
			}
		}
		if _, bound := told[0].Attributes[publish.DriverName+"/vfioFunctions"]; bound != (device.VFIO != nil) || len(slice) == 0 {
			return fmt.Errorf("of device %s it is told %v", device.Name, told[0].Attributes)
		}
	}
	return nil
}
