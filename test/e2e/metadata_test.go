package e2e

// What containers can read of their devices, in the place and form of KEP-5304,
// decoded by the library's own reader.

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	resourceapi "k8s.io/api/resource/v1"
	metadataapi "k8s.io/dynamic-resource-allocation/api/metadata"
	"k8s.io/dynamic-resource-allocation/devicemetadata"
)

// told is the file of a request in a container of the pod, and its path.
func (s *scenario) told(pod, container, of, request string) (*metadataapi.DeviceMetadata, error) {
	s.Helper()
	path := "/var/run/kubernetes.io/dra-device-attributes/" + of + "/" + request + "/hostler.dev-metadata.json"
	out, err := s.try("exec", pod, "-c", container, "--", "cat", path)
	if err != nil {
		return nil, err
	}
	content, invalid := &metadataapi.DeviceMetadata{}, error(nil)
	if err := devicemetadata.DecodeMetadataFromStream(json.NewDecoder(strings.NewReader(out)), content, devicemetadata.DecodeMetadataWithValidationResult(&invalid)); err != nil || invalid != nil {
		return nil, fmt.Errorf("%s of %s: %w, %w", path, pod, err, invalid)
	}
	if len(content.Requests) != 1 || len(content.Requests[0].Devices) != 1 {
		return nil, fmt.Errorf("%s of %s: %+v, want one request with one device", path, pod, content)
	}
	return content, nil
}

// twoContainers has the requests gpu and nic of one claim in a container each.
const twoContainers = `apiVersion: v1
kind: Pod
metadata: {name: trainer}
spec:
  terminationGracePeriodSeconds: 0
  resourceClaims: [{name: mine, resourceClaimTemplateName: both}]
  containers:
  - {name: gpu, image: IMAGE, imagePullPolicy: Never, command: [sh, -c, "trap 'exit 1' TERM; while :; do sleep 1; done"], resources: {claims: [{name: mine, request: gpu}]}}
  - {name: nic, image: IMAGE, imagePullPolicy: Never, command: [sh, -c, "trap 'exit 1' TERM; while :; do sleep 1; done"], resources: {claims: [{name: mine, request: nic}]}}
`

func TestContainersCanReadOfTheirDevices(t *testing.T) {
	s := newScenario(t)
	s.apply(template("both", requests(request("gpu", oneGPU), request("nic", anyNIC))+config("nic", nicConfig("fabric0", "192.168.79.1/24"))),
		strings.ReplaceAll(twoContainers, "IMAGE", testImage))
	s.awaitReady("trainer")
	check := func() {
		t.Helper()
		for _, request := range []string{"gpu", "nic"} {
			content, err := s.told("trainer", request, "resourceclaimtemplates/mine", request)
			must(t, err)
			device := content.Requests[0].Devices[0]
			published := s.device(device.Name)
			if diff := cmp.Diff(published.Attributes, device.Attributes); diff != "" {
				t.Errorf("request %s (-published +told):\n%s", request, diff)
			}
			var want *resourceapi.NetworkDeviceData
			if request == "nic" {
				mac := strings.Fields(s.sh("trainer", "cat /sys/class/net/fabric0/address"))[0]
				want = &resourceapi.NetworkDeviceData{InterfaceName: "fabric0", IPs: []string{"192.168.79.1/24"}, HardwareAddress: mac}
			}
			if diff := cmp.Diff(want, device.NetworkData); diff != "" {
				t.Errorf("network of request %s (-want +told):\n%s", request, diff)
			}
		}
		for container, others := range map[string]string{"gpu": "nic", "nic": "gpu"} {
			if _, err := s.told("trainer", container, "resourceclaimtemplates/mine", others); err == nil {
				t.Errorf("container %s reads of the device of container %s", container, others)
			}
		}
	}
	check()
	if out, err := s.try("exec", "trainer", "-c", "gpu", "--", "sh", "-c", "echo x > /var/run/kubernetes.io/dra-device-attributes/resourceclaimtemplates/mine/gpu/hostler.dev-metadata.json"); err == nil {
		t.Errorf("a container can write to its file: %s", out)
	}

	// Everything that is written for containers is wiped; a new agent writes it anew,
	// and a container that ends starts again.
	claim := s.claimOf("trainer")
	for _, pattern := range []string{filepath.Join(s.node.CDI, "*hostler*"), s.node.metadata(string(claim.UID))} {
		files, err := filepath.Glob(pattern)
		must(t, err)
		if len(files) == 0 {
			t.Fatalf("nothing is at %s", pattern)
		}
		for _, file := range files {
			must(t, os.RemoveAll(file))
		}
	}
	s.killAgent()
	s.eventually("all is written anew", func() error {
		specs, err := filepath.Glob(filepath.Join(s.node.CDI, "*hostler*"))
		must(t, err)
		files, err := filepath.Glob(s.node.metadata(string(claim.UID)))
		must(t, err)
		if len(specs) == 0 || len(files) != 2 {
			return fmt.Errorf("specs %v, metadata %v", specs, files)
		}
		return nil
	})
	for _, container := range []string{"gpu", "nic"} {
		if _, err := s.try("exec", "trainer", "-c", container, "--", "kill", "1"); err != nil {
			t.Logf("ending container %s: %v", container, err) // it may end before it has answered
		}
	}
	s.eventually("both containers have started again", func() error {
		out, err := s.try("get", "pod", "trainer", "-o", "jsonpath={.status.containerStatuses[*].restartCount} {.status.containerStatuses[*].ready}")
		if err == nil && out != "1 1 true true" {
			err = fmt.Errorf("restarts and readiness: %s", out)
		}
		return err
	})
	check()
}

// metadata matches the files that the agent keeps for the claim.
func (b *bed) metadata(claim string) string {
	return filepath.Join(b.KubeletRoot, "plugins/hostler.dev/dra-device-metadata", claim+"_*")
}

func TestContainersCanReadOfTheirPartition(t *testing.T) {
	s := newScenarioOn(t, &node2)
	parent := s.node.gpu(t, uncutGPU)
	s.apply(claim("shared", requests(request("mig", migClass, profileOf("1g.10gb", parent.UUID)...))), onMIGNode(podWith("user", "resourceClaimName: shared", "")))
	s.awaitReady("user")
	content, err := s.told("user", "main", "resourceclaims/shared", "mig")
	must(t, err)
	attributes := content.Requests[0].Devices[0].Attributes
	for name, prefix := range map[resourceapi.QualifiedName]string{"hostler.dev/uuid": "MIG-", "hostler.dev/parentUUID": parent.UUID, "hostler.dev/migProfile": "1g.10gb"} {
		if value := attributes[name].StringValue; value == nil || !strings.HasPrefix(*value, prefix) {
			t.Errorf("%s is %v, want %s…", name, value, prefix)
		}
	}
}
