package claim

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/types"
	"tags.cncf.io/container-device-interface/specs-go"

	"github.com/hostler-dev/hostler/netattach"
)

// rdmaNodes of the devices of a claim's CDI spec.
func (r *room) rdmaNodes(t *testing.T) []string {
	t.Helper()
	raw, err := os.ReadFile(r.cdi.File("uid-c"))
	if err != nil {
		t.Fatal(err)
	}
	var spec specs.Spec
	if err := json.Unmarshal(raw, &spec); err != nil {
		t.Fatal(err)
	}
	var nodes []string
	for _, device := range spec.Devices {
		for _, node := range device.ContainerEdits.DeviceNodes {
			nodes = append(nodes, filepath.Base(node.Path))
		}
	}
	return nodes
}

func TestContainersGetTheNodesThatAnRDMADeviceHasInItsPod(t *testing.T) {
	for name, test := range map[string]struct {
		state *netattach.RDMAState
		nodes []string
		err   error
		want  []string
		says  string
	}{
		"shared with the node":                    {&netattach.RDMAState{Device: "mlx5_0"}, nil, nil, []string{"uverbs0"}, ""},
		"moved, and numbered anew":                {&netattach.RDMAState{Device: "mlx5_0", Exclusive: true}, []string{"/dev/infiniband/uverbs3"}, nil, []string{"uverbs3"}, ""},
		"moved, and numbered as before":           {&netattach.RDMAState{Device: "mlx5_0", Exclusive: true}, []string{"/dev/infiniband/uverbs0"}, nil, []string{"uverbs0"}, ""},
		"the pod does without":                    {&netattach.RDMAState{Device: "mlx5_0", Fallback: "it went away"}, nil, nil, nil, ""},
		"moved, and nothing is to be seen of it":  {&netattach.RDMAState{Device: "mlx5_0", Exclusive: true}, nil, nil, []string{"uverbs0"}, "has no uverbs node"},
		"moved, and its nodes could not be read":  {&netattach.RDMAState{Device: "mlx5_0", Exclusive: true}, nil, errors.New("EIO"), []string{"uverbs0"}, "EIO"},
		"nothing is on record of where it is now": {nil, nil, nil, []string{"uverbs0"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			directory := t.TempDir()
			r := newRoom(t, directory, boot)
			r.steps.RDMANodes = func(string) ([]string, error) { return test.nodes, test.err }
			if err := os.WriteFile(filepath.Join(directory, "dev", "infiniband", "uverbs3"), nil, 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := r.prepare(allocated("c", onNIC("nic-0000-18-00-0"))); err != nil {
				t.Fatal(err)
			}
			if got := r.rdmaNodes(t); !slices.Equal(got, []string{"uverbs0"}) {
				t.Fatalf("prepared with the nodes %v", got)
			}
			r.attacher.inPods = map[types.UID][]netattach.DeviceState{"uid-c": {{Device: "nic-0000-18-00-0", Interface: "eth1", RDMA: test.state}}}
			err := r.steps.FollowRDMA(t.Context(), r.journal.Entry("uid-c"))
			if test.says == "" != (err == nil) || err != nil && !strings.Contains(err.Error(), test.says) {
				t.Errorf("error %v, want %q", err, test.says)
			}
			if diff := cmp.Diff(test.want, r.rdmaNodes(t)); diff != "" {
				t.Errorf("nodes (-want +got):\n%s", diff)
			}
			if test.says != "" {
				return
			}
			// The look at all claims agrees, and so does a repeated prepare.
			if _, err := r.prepare(allocated("c", onNIC("nic-0000-18-00-0"))); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, r.rdmaNodes(t)); diff != "" {
				t.Errorf("nodes after a second prepare (-want +got):\n%s", diff)
			}
		})
	}
}
