package driver

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	resourceapi "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	resourceclient "k8s.io/client-go/kubernetes/typed/resource/v1"
	drapbv1 "k8s.io/kubelet/pkg/apis/dra/v1"
	drapbv1beta1 "k8s.io/kubelet/pkg/apis/dra/v1beta1"

	"github.com/hostler-dev/hostler/driver/publish"
)

// askedClient is an API server that is asked for claims and may take its time. The
// clientset that it is made of answers one question after the other.
type askedClient struct {
	kubernetes.Interface
	// before is called with each claim's name; what it returns is the answer, if it is one.
	before func(ctx context.Context, name string) error

	mu    sync.Mutex
	asked map[string]int
}

func (c *askedClient) IsWatchListSemanticsUnSupported() bool { return true }

func (c *askedClient) ResourceV1() resourceclient.ResourceV1Interface {
	return askedResources{c.Interface.ResourceV1(), c}
}

type askedResources struct {
	resourceclient.ResourceV1Interface
	client *askedClient
}

func (r askedResources) ResourceClaims(namespace string) resourceclient.ResourceClaimInterface {
	return askedClaims{r.ResourceV1Interface.ResourceClaims(namespace), r.client}
}

type askedClaims struct {
	resourceclient.ResourceClaimInterface
	client *askedClient
}

func (c askedClaims) Get(ctx context.Context, name string, options metav1.GetOptions) (*resourceapi.ResourceClaim, error) {
	c.client.mu.Lock()
	c.client.asked[name]++
	c.client.mu.Unlock()
	if err := c.client.before(ctx, name); err != nil {
		return nil, err
	}
	return c.ResourceClaimInterface.Get(ctx, name, options)
}

func (c *askedClient) times(name string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.asked[name]
}

// startAsked starts a driver whose API server calls before.
func startAsked(t *testing.T, before func(context.Context, string) error, claims ...*resourceapi.ResourceClaim) (*started, *askedClient) {
	t.Helper()
	client := &askedClient{before: before, asked: map[string]int{}}
	s := startWith(t, func(cfg *Config) {
		client.Interface = cfg.KubeClient
		cfg.KubeClient = client
	}, claims...)
	s.SetSnapshot(machineOf(8))
	// It reads claims, too.
	eventually(t, "the first reconciliation is over", func() bool {
		s.recorder.mu.Lock()
		defer s.recorder.mu.Unlock()
		return s.recorder.seen["reconcile ok=true"] > 0
	})
	return s, client
}

func eightClaims() (claims []*resourceapi.ResourceClaim, request []*drapbv1.Claim, old []*drapbv1beta1.Claim) {
	for i, gpu := range machineOf(8).GPUs {
		c := claimOn(fmt.Sprint("c", i), publish.GPUPool(node), gpu.Name)
		claims = append(claims, c)
		request = append(request, &drapbv1.Claim{Namespace: c.Namespace, Name: c.Name, Uid: string(c.UID)})
		old = append(old, &drapbv1beta1.Claim{Namespace: c.Namespace, Name: c.Name, Uid: string(c.UID)})
	}
	return claims, request, old
}

// barrier answers nobody until n have asked.
func barrier(n int) func(context.Context, string) error {
	var mu sync.Mutex
	arrived, all := 0, make(chan struct{})
	return func(ctx context.Context, _ string) error {
		mu.Lock()
		if arrived++; arrived == n {
			close(all)
		}
		mu.Unlock()
		select {
		case <-all:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func TestClaimsOfACallAreFetchedAllAtOnce(t *testing.T) {
	claims, request, old := eightClaims()
	for name, prepare := range map[string]func(*started) (map[string]string, error){
		"kubelet": func(s *started) (map[string]string, error) {
			answer, err := drapbv1.NewDRAPluginClient(s.conn).NodePrepareResources(t.Context(), &drapbv1.NodePrepareResourcesRequest{Claims: request})
			failures := map[string]string{}
			for uid, c := range answer.GetClaims() {
				failures[uid] = c.Error
			}
			return failures, err
		},
		"older kubelet": func(s *started) (map[string]string, error) {
			answer, err := drapbv1beta1.NewDRAPluginClient(s.conn).NodePrepareResources(t.Context(), &drapbv1beta1.NodePrepareResourcesRequest{Claims: old})
			failures := map[string]string{}
			for uid, c := range answer.GetClaims() {
				failures[uid] = c.Error
			}
			return failures, err
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, client := startAsked(t, barrier(len(claims)), claims...)
			failures, err := prepare(s)
			if err != nil || len(failures) != len(claims) {
				t.Fatalf("%d answers, %v", len(failures), err)
			}
			for _, c := range claims {
				if failure := failures[string(c.UID)]; failure != "" {
					t.Errorf("claim %s: %s", c.Name, failure)
				}
				if n := client.times(c.Name); n != 1 {
					t.Errorf("claim %s was asked for %d times", c.Name, n)
				}
			}
		})
	}
}

func TestEachCallFetchesAnew(t *testing.T) {
	claims, request, _ := eightClaims()
	s, client := startAsked(t, func(context.Context, string) error { return nil }, claims...)
	for range 2 {
		if _, err := drapbv1.NewDRAPluginClient(s.conn).NodePrepareResources(t.Context(), &drapbv1.NodePrepareResourcesRequest{Claims: request[:2]}); err != nil {
			t.Fatal(err)
		}
	}
	if n := client.times("c0"); n != 2 {
		t.Errorf("a claim of two calls was fetched %d times", n)
	}
	// Between the calls the claim was deleted and another one of its name was made.
	if err := s.client.ResourceV1().ResourceClaims("team").Delete(t.Context(), "c0", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	other := claims[0].DeepCopy()
	other.UID = "uid-other"
	if _, err := s.client.ResourceV1().ResourceClaims("team").Create(t.Context(), other, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	_, err := drapbv1.NewDRAPluginClient(s.conn).NodePrepareResources(t.Context(), &drapbv1.NodePrepareResourcesRequest{Claims: request[:2]})
	if err == nil || !strings.Contains(err.Error(), "claim team/c0 got replaced") {
		t.Errorf("a claim that was replaced: %v", err)
	}
}

func TestAClaimThatCannotBeFetchedFailsItsCall(t *testing.T) {
	claims, request, _ := eightClaims()
	away := errors.New("the API server is away")
	s, client := startAsked(t, func(ctx context.Context, name string) error {
		if name == "c0" {
			return away
		}
		// Nobody waits for the others once the call has failed.
		<-ctx.Done()
		return ctx.Err()
	}, claims...)
	_, err := drapbv1.NewDRAPluginClient(s.conn).NodePrepareResources(t.Context(), &drapbv1.NodePrepareResourcesRequest{Claims: request})
	if err == nil || !strings.Contains(err.Error(), "retrieve claim team/c0: the API server is away") {
		t.Errorf("answer %v", err)
	}
	if n := client.times("c0"); n != 1 {
		t.Errorf("the claim was asked for %d times", n)
	}
	if specs, _ := s.directory.List(); len(specs) != 0 {
		t.Errorf("specs %v", specs)
	}
}

func TestAClaimThatIsGoneIsNotFound(t *testing.T) {
	claims, request, _ := eightClaims()
	s, _ := startAsked(t, func(context.Context, string) error { return nil }, claims[1:]...)
	_, err := drapbv1.NewDRAPluginClient(s.conn).NodePrepareResources(t.Context(), &drapbv1.NodePrepareResourcesRequest{Claims: request})
	if err == nil || !strings.Contains(err.Error(), `retrieve claim team/c0: resourceclaims.resource.k8s.io "c0" not found`) {
		t.Errorf("answer %v", err)
	}
}

func TestACallThatIsCancelledFetchesNoMore(t *testing.T) {
	claims, request, _ := eightClaims()
	everybody, ended := barrier(len(claims)+1), make(chan struct{}, len(claims))
	s, _ := startAsked(t, func(ctx context.Context, name string) error {
		defer func() { ended <- struct{}{} }()
		_ = everybody(ctx, name)
		<-ctx.Done()
		return ctx.Err()
	}, claims...)
	ctx, cancel := context.WithCancel(t.Context())
	answer := make(chan error)
	go func() {
		_, err := drapbv1.NewDRAPluginClient(s.conn).NodePrepareResources(ctx, &drapbv1.NodePrepareResourcesRequest{Claims: request})
		answer <- err
	}()
	_ = everybody(t.Context(), "") // the last one: now all are asking
	cancel()
	if err := <-answer; err == nil {
		t.Error("a call that was cancelled succeeded")
	}
	for range claims {
		<-ended
	}
}

func TestTheClientOfTheLibraryAnswersNothingElseFromACall(t *testing.T) {
	claims, request, _ := eightClaims()
	// The second claim of the call has the name of one in another namespace.
	other := claims[1].DeepCopy()
	other.Namespace, other.UID = "other", "uid-other"
	asked := &askedClient{before: func(context.Context, string) error { return nil }, asked: map[string]int{}}
	s := start(t, append(claims, other)...)
	asked.Interface = s.client
	client := prefetchClient{asked, func(string, string, time.Duration, error) {}}
	_, err := client.intercept(t.Context(), &drapbv1.NodePrepareResourcesRequest{Claims: request[:2]}, nil, func(ctx context.Context, _ any) (any, error) {
		for _, want := range []*resourceapi.ResourceClaim{claims[1], other, claims[2]} {
			got, err := client.ResourceV1().ResourceClaims(want.Namespace).Get(ctx, want.Name, metav1.GetOptions{})
			if err != nil || got.UID != want.UID {
				t.Errorf("claim %s/%s: %v, %v", want.Namespace, want.Name, got, err)
			}
		}
		return nil, nil
	})
	if err != nil {
		t.Error(err)
	}
	if n, m := asked.times("c1"), asked.times("c2"); n != 2 || m != 1 {
		t.Errorf("c1 was asked for %d times in two namespaces, c2 %d times", n, m)
	}
	if !client.IsWatchListSemanticsUnSupported() {
		t.Error("what the client says of itself does not reach the reflectors")
	}
}
