package claim

// No feature excludes another: each kind of device with each thing that may be
// asked of it or happen to it. Every cell says what is expected.

import (
	"errors"
	"maps"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/hostler-dev/hostler/topology"
)

// pairTable has a line for each feature and a column for each of kinds(), in that
// order: + works, another letter is refused with the words below. In the end the
// machine is as it was, but for L, which works, and N: there nobody knows any more
// whose doing it is how the hardware is.
const pairTable = `
shared-by-two-pods       + + + + + + + + + + + + + + + + + + +
admin-access             + l + n n n n n n n n n n + v n n v n
two-requests             + + + + + + i + + + + + + + + + + + o
subrequest               + + + + + + + + + + + + + + + + + + +
another-alternative      + + + + + + + + + + + + + + + + + + +
share-ID                 + + + + + + + + + + + + + + + + + + +
another-drivers-device   + + + + + + + + + + + + + + + + + + o
class-and-claim-config   + + + + + + + + + + + + + + + + + + +
config-of-the-claim-only + + + + + c c + + + + + + + + + c + +
beside-a-scope           + + + + + + + + + + b b b e + b b b o
from-a-template          + + + + + + + + + + + + + + + + + + m
extended-resource        + + + + + + + + + + + + + + + + + + +
metadata                 + + + + + + + + + + + + + + + + + + +
repeated-prepare         + + + + + + + + + + + + + + + + + + +
late-prepare             s s s s s s s s s s s s s s s s s s s
held-by-another-claim    h h h h h h h + + h h h h + h h h h h
device-gone              g g g g g g g g g g g g g + g g g g g
crash                    + + + + + + + + + + + + + + + + + + +
reboot                   + + + + + + + + + + + + + + + + + + +
spec-wiped               + + + + + + + + + + + + + + + + + + +
reconciled               + + + + + + + + + + + + + + + + + + +
claim-deleted            + + + + + + + + + + + + + + + + + + +
pod-that-lives-on        + + + + + + + + + + + + + + + + + + +
netdev-not-home          + + + + + + + + + + + + + + + + + + +
driver-dead-at-the-end   + + + + + + + + + + + + + + + + + + +
API-server-away          + + + + + + + + + + + + + + + + + + +
full-disk                d d d d d d d d d d d d d d d d d d d
CDI-not-writable         + + + + + + + + + + + + + + + + + + +
damaged-journal          + + + + + + + + + + + + + + + + + + +
deleted-journal          + + + + + + + + + + + + + + + + + + +
journal-and-specs-lost   + L + + + L + + + + + + + + L N N N +
`

func pairWords() map[string]string {
	return map[string]string{
		"l": "admin access is for looking at what is there",
		"n": "a NIC is in one network namespace at a time",
		"v": "mode vfio takes the GPU from its driver",
		"i": "would both be called net1 in the pod",
		"h": "already held by claim team/other",
		"g": "the node no longer has the device",
		"o": "give the NIC a claim of its own",
		"c": "only a DeviceClass can set it",
		"b": "bypass the rules of an egress scope",
		"e": "two egress devices",
		"m": "publish.multusResourceNames",
		"N": "its netdev is not in the host's network namespace",
		"s": "was unprepared after this call",
		"d": "no space left on device; free space on the file system of",
	}
}

// features prepare the claim with what they add, on an agent of the world.
func features() map[string]func(w *world, k kind) error {
	changed := func(change func(*resourceapi.ResourceClaim)) func(*world, kind) error {
		return func(w *world, k kind) error {
			c := k.claim("c")
			change(c)
			return prepareWhole(w, c)
		}
	}
	result := func(change func(*resourceapi.DeviceRequestAllocationResult)) func(*world, kind) error {
		return changed(func(c *resourceapi.ResourceClaim) { change(&c.Status.Allocation.Devices.Results[0]) })
	}
	return map[string]func(*world, kind) error{
		"shared-by-two-pods": changed(func(c *resourceapi.ResourceClaim) {
			c.Status.ReservedFor = append(c.Status.ReservedFor, resourceapi.ResourceClaimConsumerReference{Resource: "pods", Name: "second", UID: "pod-second"})
		}),
		"admin-access": result(func(r *resourceapi.DeviceRequestAllocationResult) { r.AdminAccess = new(true) }),
		"two-requests": func(w *world, k kind) error {
			k.devices = append(k.devices, k.other...)
			return prepareWhole(w, k.claim("c"))
		},
		"subrequest": func(w *world, k kind) error {
			c := k.claim("c")
			c.Status.Allocation.Devices.Results[0].Request = "r0/sub"
			return prepareWhole(w, c)
		},
		// What is said of an alternative that was not taken is no matter.
		"another-alternative": func(w *world, k kind) error {
			c := k.claim("c")
			c.Status.Allocation.Devices.Results[0].Request = "r0/sub"
			for i := range c.Status.Allocation.Devices.Config {
				c.Status.Allocation.Devices.Config[i].Requests = []string{"r0/sub"}
			}
			with(with(with(c, claim, `GPUConfig {"mode": "none"}`, "r0/other"), claim, `NICConfig {"mode": "none"}`, "r0/other"), claim, `EgressConfig {"dns": "none"}`, "r0/other")
			return prepareWhole(w, c)
		},
		"share-ID": result(func(r *resourceapi.DeviceRequestAllocationResult) { r.ShareID = new(types.UID("one")) }),
		"another-drivers-device": changed(func(c *resourceapi.ResourceClaim) {
			c.Status.Allocation.Devices.Results = append(c.Status.Allocation.Devices.Results,
				resourceapi.DeviceRequestAllocationResult{Request: "theirs", Driver: "other.example.com", Pool: "pool", Device: "device"})
		}),
		"class-and-claim-config": changed(func(c *resourceapi.ResourceClaim) {
			switch device := c.Status.Allocation.Devices.Results[0].Device; {
			case device == "egress":
				with(with(c, class, `EgressConfig {"dns": "None"}`), claim, `EgressConfig {"dns": "None"}`)
			case strings.HasPrefix(device, "nic"):
				with(with(c, class, `NICConfig {"rdma": "None"}`), claim, `NICConfig {"rdma": "Auto"}`)
			default:
				with(with(c, class, `GPUConfig {}`), claim, `GPUConfig {}`)
			}
		}),
		"config-of-the-claim-only": func(w *world, k kind) error {
			return prepareWhole(w, k.from(claim, allocated("c", k.devices...)))
		},
		"beside-a-scope": func(w *world, k kind) error {
			k.devices = append(k.devices, onEgress())
			k.own = map[string]string{"egress": `EgressConfig {}`}
			return prepareWhole(w, k.claim("c"))
		},
		"from-a-template": changed(func(c *resourceapi.ResourceClaim) { fromTemplate(c) }),
		"metadata": func(w *world, k kind) error {
			if err := prepareWhole(w, k.claim("c")); err != nil {
				return err
			}
			return w.start(0).tells()
		},
		"held-by-another-claim": func(w *world, k kind) error {
			if err := prepareWhole(w, k.claim("other")); err != nil {
				return err
			}
			err := prepareWhole(w, k.claim("c"))
			return errors.Join(err, w.start(0).unprepare(k.claim("other")))
		},
		"device-gone": func(w *world, k kind) error {
			a := w.start(0)
			a.see = func(*topology.Snapshot) *topology.Snapshot {
				return &topology.Snapshot{Driver: topology.Driver{State: topology.DriverReady}}
			}
			_, err := a.prepare(k.claim("c"))
			return err
		},
		"extended-resource": changed(func(c *resourceapi.ResourceClaim) {
			c.Annotations = map[string]string{resourceapi.ExtendedResourceClaimAnnotation: "true"}
			c.Status.Allocation.Devices.Results[0].Request = "container-0-request-0"
			for i := range c.Status.Allocation.Devices.Config {
				c.Status.Allocation.Devices.Config[i].Requests = []string{"container-0-request-0"}
			}
		}),
	}
}

// prepareWhole prepares the claim and looks whether what it was answered is there.
func prepareWhole(w *world, c *resourceapi.ResourceClaim) error {
	a := w.start(0)
	entry, err := a.prepare(c)
	if err != nil {
		return err
	}
	spec, err := os.ReadFile(a.cdi.File(c.UID))
	if err != nil {
		return err
	}
	if len(entry.Pods) != len(c.Status.ReservedFor) || !entry.answers(c) {
		return errors.New("the entry is of other pods or devices")
	}
	for i := range entry.Devices {
		for _, id := range entry.CDIDeviceIDs(&entry.Devices[i]) {
			if _, name, _ := strings.Cut(id, "="); !strings.Contains(string(spec), `"name":"`+name+`"`) {
				return errors.New("the spec has no device " + id)
			}
		}
	}
	return nil
}

func TestEveryKindWithEveryFeature(t *testing.T) {
	all := features()
	maps.Copy(all, events())
	for line := range strings.SplitSeq(strings.TrimSpace(pairTable), "\n") {
		fields := strings.Fields(line)
		feature := all[fields[0]]
		delete(all, fields[0])
		if feature == nil || len(fields)-1 != len(kinds()) {
			t.Errorf("line %q is of no feature, or does not have a cell for each of %d kinds", fields[0], len(kinds()))
			continue
		}
		for i, k := range kinds() {
			t.Run(fields[0]+"/"+k.name, func(t *testing.T) {
				w := newWorld(t, inMemory(t))
				w.bus()
				start := w.still()
				err := feature(w, k)
				cell := fields[1+i]
				want, refused := pairWords()[cell]
				if refused != (err != nil) || refused && !strings.Contains(err.Error(), want) || !refused && cell != "+" && cell != "L" {
					t.Errorf("%v; want %q", err, want)
				}
				a := w.start(0)
				if err := errors.Join(a.unprepare(k.claim("c")), a.reconcile()); err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(start, w.still()); (diff != "") != (cell == "L" || cell == "N") {
					t.Errorf("the machine in the end (-want +got):\n%s", diff)
				}
			})
		}
	}
	for feature := range all {
		t.Errorf("feature %s is in no line", feature)
	}
}
