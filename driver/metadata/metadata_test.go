package metadata

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	resourceapi "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/dynamic-resource-allocation/api/metadata"
	"k8s.io/dynamic-resource-allocation/devicemetadata"
	"k8s.io/utils/ptr"
)

func newDirectory(t *testing.T) *Directory {
	t.Helper()
	d, err := New(filepath.Join(t.TempDir(), "dra-device-metadata"))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// contentOf a claim with one NIC, whose address in the pod is given.
func contentOf(address string) *Content {
	return &Content{
		ObjectMeta:   metav1.ObjectMeta{Namespace: "team", Name: "c-x7k2p", UID: "6d8a4cb2"},
		PodClaimName: ptr.To("nic"),
		Requests: []metadata.DeviceMetadataRequest{{Name: "any/vf", Devices: []metadata.Device{{
			Driver: "hostler.dev", Pool: "node-a/nic", Name: "nic-0000-18-00-0",
			Attributes:  map[resourceapi.QualifiedName]resourceapi.DeviceAttribute{"hostler.dev/kind": {StringValue: ptr.To("PF")}},
			NetworkData: &resourceapi.NetworkDeviceData{InterfaceName: "net1", IPs: []string{address}, HardwareAddress: "02:00:00:00:00:01"},
		}}}},
	}
}

const golden = `{
  "kind": "DeviceMetadata",
  "apiVersion": "metadata.resource.k8s.io/VERSION",
  "metadata": {
    "name": "c-x7k2p",
    "namespace": "team",
    "uid": "6d8a4cb2",
    "generation": 1
  },
  "podClaimName": "nic",
  "requests": [
    {
      "name": "any/vf",
      "devices": [
        {
          "driver": "hostler.dev",
          "pool": "node-a/nic",
          "name": "nic-0000-18-00-0",
          "attributes": {
            "hostler.dev/kind": {
              "string": "PF"
            }
          },
          "networkData": {
            "interfaceName": "net1",
            "ips": [
              "10.1.0.5/24"
            ],
            "hardwareAddress": "02:00:00:00:00:01"
          }
        }
      ]
    }
  ]
}
`

func TestFileHasAllVersionsNewestFirst(t *testing.T) {
	d := newDirectory(t)
	if written, err := d.Ensure(contentOf("10.1.0.5/24")); err != nil || !written {
		t.Fatal(written, err)
	}
	got, err := os.ReadFile(d.File("6d8a4cb2", "any"))
	if err != nil {
		t.Fatal(err)
	}
	want := strings.ReplaceAll(golden, "VERSION", "v1beta1") + strings.ReplaceAll(golden, "VERSION", "v1alpha1")
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	var invalid error
	read := &Content{}
	if err := devicemetadata.DecodeMetadataFromStream(json.NewDecoder(bytes.NewReader(got)), read, devicemetadata.DecodeMetadataWithValidationResult(&invalid)); err != nil || invalid != nil {
		t.Errorf("the library reads it with %v and %v", err, invalid)
	}
}

func TestContainerFile(t *testing.T) {
	const base = "/var/run/kubernetes.io/dra-device-attributes/"
	for _, test := range []struct{ name, podClaim, request, want string }{
		{"claim of its own", "", "gpu", "resourceclaims/shared/gpu/hostler.dev-metadata.json"},
		{"claim made from a template", "mine", "gpu", "resourceclaimtemplates/mine/gpu/hostler.dev-metadata.json"},
		{"subrequest", "", "any/large", "resourceclaims/shared/any/hostler.dev-metadata.json"},
	} {
		if got := ContainerFile("hostler.dev", test.podClaim, "shared", test.request); got != base+test.want {
			t.Errorf("%s: %s", test.name, got)
		}
	}
}

func TestGenerationCountsChanges(t *testing.T) {
	d := newDirectory(t)
	for i, step := range []struct {
		name       string
		disturb    func(file string) error
		address    string
		written    bool
		generation int64
	}{
		{"first", nil, "10.1.0.5/24", true, 1},
		{"again", nil, "10.1.0.5/24", false, 1},
		{"other address", nil, "10.1.0.6/24", true, 2},
		{"again", nil, "10.1.0.6/24", false, 2},
		{"somebody edited it", func(file string) error {
			raw, err := os.ReadFile(file)
			if err != nil {
				return err
			}
			return os.WriteFile(file, bytes.ReplaceAll(raw, []byte("net1"), []byte("eth0")), 0o600)
		}, "10.1.0.6/24", true, 3},
		{"somebody emptied it", func(file string) error { return os.Truncate(file, 0) }, "10.1.0.6/24", true, 1},
		{"somebody deleted it", os.Remove, "10.1.0.6/24", true, 1},
	} {
		content := contentOf(step.address)
		if step.disturb != nil {
			if err := step.disturb(d.File(content.UID, "any")); err != nil {
				t.Fatal(err)
			}
			if d.Verify(content) == nil {
				t.Errorf("%d, %s: not noticed", i, step.name)
			}
		}
		written, err := d.Ensure(content)
		if err != nil || written != step.written {
			t.Errorf("%d, %s: written %v (%v)", i, step.name, written, err)
		}
		if err := d.Verify(content); err != nil {
			t.Errorf("%d, %s: %v", i, step.name, err)
		}
		read, err := d.Read(content.UID, "any/vf")
		if err != nil {
			t.Fatal(err)
		}
		if read.Generation != step.generation {
			t.Errorf("%d, %s: generation %d, want %d", i, step.name, read.Generation, step.generation)
		}
		read.Generation = 0
		if diff := cmp.Diff(content, read); diff != "" {
			t.Errorf("%d, %s: read back (-want +got):\n%s", i, step.name, diff)
		}
	}
}

func TestRemove(t *testing.T) {
	d := newDirectory(t)
	for _, claim := range []types.UID{"b", "a"} {
		content := contentOf("10.1.0.5/24")
		content.UID = claim
		if _, err := d.Ensure(content); err != nil {
			t.Fatal(err)
		}
	}
	for i, want := range [][]types.UID{{"a", "b"}, {"b"}, {"b"}} {
		got, err := d.List()
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("listed at %d (-want +got):\n%s", i, diff)
		}
		if err := d.Remove("a"); err != nil {
			t.Error(err)
		}
	}
	if list, err := newDirectory(t).List(); err != nil || len(list) > 0 {
		t.Errorf("a directory that is not there: %v, %v", list, err)
	}
}

func TestUnwritableDirectory(t *testing.T) {
	d := newDirectory(t)
	if err := os.WriteFile(d.path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Ensure(contentOf("10.1.0.5/24")); err == nil || !strings.Contains(err.Error(), "any/vf") || !strings.Contains(err.Error(), d.path) {
		t.Errorf("error %v", err)
	}
	if err := d.Remove("6d8a4cb2"); err != nil {
		t.Errorf("there is nothing to remove: %v", err)
	}
}

// BenchmarkWrite is what each request adds to a prepare: a file, read back.
func BenchmarkWrite(b *testing.B) {
	d, err := New(b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	content := contentOf("10.1.0.5/24")
	attributes := content.Requests[0].Devices[0].Attributes
	for i := range 20 { // a GPU has as many
		attributes[resourceapi.QualifiedName(fmt.Sprintf("hostler.dev/attribute%d", i))] = resourceapi.DeviceAttribute{StringValue: ptr.To("NVIDIA H100 80GB HBM3")}
	}
	for b.Loop() {
		if _, err := d.Ensure(content); err != nil {
			b.Fatal(err)
		}
		if err := d.Verify(content); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		if err := d.Remove(content.UID); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
}
