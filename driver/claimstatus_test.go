package driver

import (
	"context"
	"testing"

	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	resourceapply "k8s.io/client-go/applyconfigurations/resource/v1"
	resourceclient "k8s.io/client-go/kubernetes/typed/resource/v1"
	drapbv1 "k8s.io/kubelet/pkg/apis/dra/v1"

	"github.com/hostler-dev/hostler/driver/claim"
	"github.com/hostler-dev/hostler/driver/publish"
	"github.com/hostler-dev/hostler/netattach/attach"
)

func withStatus(cfg *Config) {
	cfg.StatusClient = cfg.KubeClient.ResourceV1()
	cfg.AttachRecords = func(types.UID) ([]attach.Record, error) { return nil, nil }
}

// says is the reason of the claim's first device being ready or not, "" for nothing.
func (s *started) says(t *testing.T, name string) string {
	t.Helper()
	c, err := s.client.ResourceV1().ResourceClaims("team").Get(context.Background(), name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, device := range c.Status.Devices {
		if ready := meta.FindStatusCondition(device.Conditions, "Ready"); ready != nil {
			return ready.Reason
		}
	}
	return ""
}

func TestClaimsSayWhatBecameOfThem(t *testing.T) {
	s := startWith(t, withStatus, claimOn("good", publish.GPUPool(node), "gpu-0000-20-00-0"), claimOn("bad", publish.GPUPool(node), "gpu-0000-99-00-0"))
	s.SetSnapshot(machineOf(1))
	if got := s.prepare(t, "uid-good", "good"); got.Error != "" {
		t.Fatal(got.Error)
	}
	if got := s.prepare(t, "uid-bad", "bad"); got.Error == "" {
		t.Fatal("prepared a GPU that is not there")
	}
	eventually(t, "the good one says so", func() bool { return s.says(t, "good") == "Prepared" })
	eventually(t, "the bad one says so", func() bool { return s.says(t, "bad") == "PrepareFailed" })
	s.recorder.mu.Lock()
	measured := s.recorder.seen["status do ok=true"]
	s.recorder.mu.Unlock()
	if measured == 0 {
		t.Error("the writes are not measured")
	}
	if _, err := drapbv1.NewDRAPluginClient(s.conn).NodeUnprepareResources(context.Background(), &drapbv1.NodeUnprepareResourcesRequest{
		Claims: []*drapbv1.Claim{{Namespace: "team", Name: "good", Uid: "uid-good"}},
	}); err != nil {
		t.Fatal(err)
	}
}

func TestAgentThatDiedBeforeItToldIsMadeUpFor(t *testing.T) {
	s := startWith(t, func(cfg *Config) {
		withStatus(cfg)
		gpu := machineOf(1).GPUs[0]
		if err := cfg.Journal.Put(&claim.Entry{ClaimUID: "uid-c", ClaimNamespace: "team", ClaimName: "c", BootID: "boot",
			Devices: []claim.Device{{Request: "r", Pool: publish.GPUPool(node), Name: gpu.Name, GPU: &gpu}}}); err != nil {
			t.Fatal(err)
		}
	}, claimOn("c", publish.GPUPool(node), "gpu-0000-20-00-0"))
	s.SetSnapshot(machineOf(1))
	eventually(t, "the claim says that it is prepared", func() bool { return s.says(t, "c") == "Prepared" })
}

// hangs is an API server that answers no write of status.
type hangs struct {
	resourceclient.ResourceClaimInterface
	asked chan struct{}
}

func (h hangs) ResourceClaims(string) resourceclient.ResourceClaimInterface { return h }

func (h hangs) ApplyStatus(ctx context.Context, _ *resourceapply.ResourceClaimApplyConfiguration, _ metav1.ApplyOptions) (*resourceapi.ResourceClaim, error) {
	select {
	case h.asked <- struct{}{}:
	default:
	}
	<-ctx.Done()
	return nil, context.Cause(ctx)
}

func TestNoPrepareWaitsForAWriteOfStatus(t *testing.T) {
	h := hangs{asked: make(chan struct{}, 1)}
	s := startWith(t, func(cfg *Config) { withStatus(cfg); cfg.StatusClient = h }, claimOn("one", publish.GPUPool(node), "gpu-0000-20-00-0"), claimOn("two", publish.GPUPool(node), "gpu-0000-21-00-0"))
	s.SetSnapshot(machineOf(2))
	if got := s.prepare(t, "uid-one", "one"); got.Error != "" {
		t.Fatal(got.Error)
	}
	<-h.asked // it hangs from now on
	for _, name := range []string{"one", "two"} {
		if got := s.prepare(t, types.UID("uid-"+name), name); got.Error != "" {
			t.Errorf("claim %s: %s", name, got.Error)
		}
	}
}
