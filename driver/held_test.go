package driver

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"

	"github.com/go-logr/logr/funcr"
	resourceapi "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"

	"github.com/hostler-dev/hostler/driver/claim"
	"github.com/hostler-dev/hostler/driver/publish"
)

// The kubelet makes an event of a prepare's error, in the namespace of the pod, and
// the claim's status says it, too. Neither names what another namespace has.
func TestClaimsOfOtherNamespacesAreNamedInTheLogAlone(t *testing.T) {
	const device = "nic-0000-18-00-0"
	s := startWith(t, func(cfg *Config) {
		withStatus(cfg)
		nic := machineOf(0).NICs[0]
		if err := cfg.Journal.Put(&claim.Entry{ClaimUID: "uid-of-theirs", ClaimNamespace: "finance", ClaimName: "payroll", BootID: "boot", Ending: "pod finance/payroll-0 still runs",
			Devices: []claim.Device{{Request: "r", Pool: publish.NICPool(node), Name: device, NIC: &nic}}}); err != nil {
			t.Fatal(err)
		}
		// It cannot be undone, whoever tries.
		cfg.Attacher = brokenAttacher{}
	}, claimOn("c", publish.NICPool(node), device))
	s.SetSnapshot(machineOf(0))
	var mu sync.Mutex
	var log strings.Builder
	ctx, cancel := context.WithCancel(klog.NewContext(context.Background(), funcr.New(func(_, line string) {
		mu.Lock()
		defer mu.Unlock()
		log.WriteString(line)
	}, funcr.Options{})))
	answered := make(chan string, 1)
	go func() {
		results, err := s.PrepareResourceClaims(ctx, []*resourceapi.ResourceClaim{claimOn("c", publish.NICPool(node), device)})
		if err == nil {
			err = results["uid-c"].Err
		}
		answered <- err.Error()
	}()
	eventually(t, "the claim says that it is refused", func() bool { return s.says(t, "c") == "PrepareFailed" })
	cancel() // it would wait for the device
	told := []string{<-answered}
	c, err := s.client.ResourceV1().ResourceClaims("team").Get(context.Background(), "c", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range c.Status.Devices {
		for _, condition := range d.Conditions {
			told = append(told, condition.Message)
		}
	}
	for _, text := range told {
		if !strings.Contains(text, device) || !strings.Contains(text, "a claim of another namespace") {
			t.Errorf("told %q; want the device and whose it is", text)
		}
		for _, secret := range []string{"finance", "payroll", "uid-of-theirs"} {
			if strings.Contains(text, secret) {
				t.Errorf("told %q, which names %q", text, secret)
			}
		}
	}
	mu.Lock()
	defer mu.Unlock()
	for _, word := range []string{"finance/payroll", "uid-of-theirs", "payroll-0 still runs"} {
		if !strings.Contains(log.String(), word) {
			t.Errorf("the log does not say %q: %s", word, log.String())
		}
	}
}

// brokenAttacher cannot take anything back.
type brokenAttacher struct{ fakeAttacher }

func (brokenAttacher) Release(context.Context, types.UID) error {
	return errors.New("pod finance/payroll-0 still runs")
}
