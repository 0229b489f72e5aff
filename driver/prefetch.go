// The claims of one call are fetched all at once. The kubelet plugin library
// (getResourceClaims in kubeletplugin/draplugin.go) fetches them one after the
// other, before it calls the driver, so that eight claims wait for eight answers of
// the API server in a row. Here the questions are asked when the call comes in, and
// the library, which asks through a client of ours, finds them answered or under way.
// What it gets is as fresh as before: an answer serves the call that it was asked for
// and no other.

package driver

import (
	"context"
	"sync"
	"time"

	"google.golang.org/grpc"
	resourceapi "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	resourceclient "k8s.io/client-go/kubernetes/typed/resource/v1"
	"k8s.io/client-go/util/watchlist"
	drapbv1 "k8s.io/kubelet/pkg/apis/dra/v1"
	drapbv1beta1 "k8s.io/kubelet/pkg/apis/dra/v1beta1"

	"github.com/hostler-dev/hostler/driver/claim"
)

// prefetchClient is the client for the library: a claim that is being fetched for
// a call is not fetched again by it. All else goes to the API server.
type prefetchClient struct {
	kubernetes.Interface
	// observe takes how long each claim's way from the API server took.
	observe func(step, phase string, duration time.Duration, err error)
}

// IsWatchListSemanticsUnSupported hands on what the client says. Reflectors look for
// this method by its name, and the embedded interface does not have it.
func (c prefetchClient) IsWatchListSemanticsUnSupported() bool {
	return watchlist.DoesClientNotSupportWatchListSemantics(c.Interface)
}

// ResourceV1 implements kubernetes.Interface.
func (c prefetchClient) ResourceV1() resourceclient.ResourceV1Interface {
	return prefetchResources{c.Interface.ResourceV1(), c}
}

// fetch asks the API server.
func (c prefetchClient) fetch(ctx context.Context, namespace, name string, options metav1.GetOptions) (*resourceapi.ResourceClaim, error) {
	begin := time.Now()
	fetched, err := c.Interface.ResourceV1().ResourceClaims(namespace).Get(ctx, name, options)
	c.observe("fetch", claim.PhaseDo, time.Since(begin), err)
	return fetched, err
}

type prefetchResources struct {
	resourceclient.ResourceV1Interface
	client prefetchClient
}

// ResourceClaims implements resourceclient.ResourceV1Interface.
func (r prefetchResources) ResourceClaims(namespace string) resourceclient.ResourceClaimInterface {
	return prefetchClaims{r.ResourceV1Interface.ResourceClaims(namespace), r.client, namespace}
}

type prefetchClaims struct {
	resourceclient.ResourceClaimInterface
	client    prefetchClient
	namespace string
}

// Get implements resourceclient.ResourceClaimInterface.
func (c prefetchClaims) Get(ctx context.Context, name string, options metav1.GetOptions) (*resourceapi.ResourceClaim, error) {
	started, _ := ctx.Value(fetchesKey{}).(fetches)
	if f := started[types.NamespacedName{Namespace: c.namespace, Name: name}]; f != nil {
		// It ends with the call at the latest, whose context it has.
		<-f.done
		return f.claim, f.err
	}
	return c.client.fetch(ctx, c.namespace, name, options)
}

// fetchesKey is the context key of a call's fetches.
type fetchesKey struct{}

type fetches map[types.NamespacedName]*fetch

// fetch is the answer to one question, once done is closed.
type fetch struct {
	done  chan struct{}
	claim *resourceapi.ResourceClaim
	err   error
}

// intercept has a call's claims be fetched. A single one gains nothing by it.
func (c prefetchClient) intercept(ctx context.Context, request any, _ *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
	names := claimsToPrepare(request)
	if len(names) < 2 {
		return handle(ctx, request)
	}
	// The library stops at the first claim that fails. What it does not want any
	// more is not waited for either.
	asking, cancel := context.WithCancel(ctx)
	var all sync.WaitGroup
	defer all.Wait()
	defer cancel()
	started := fetches{}
	for _, name := range names {
		if started[name] != nil {
			continue
		}
		f := &fetch{done: make(chan struct{})}
		started[name] = f
		all.Go(func() {
			defer close(f.done)
			f.claim, f.err = c.fetch(asking, name.Namespace, name.Name, metav1.GetOptions{})
		})
	}
	return handle(context.WithValue(ctx, fetchesKey{}, started), request)
}

// claimsToPrepare are the claims of a prepare request, in either version of the
// kubelet's protocol. Any other request has none: unpreparing reads no claim.
func claimsToPrepare(request any) []types.NamespacedName {
	switch request := request.(type) {
	case *drapbv1.NodePrepareResourcesRequest:
		return namesOf(request.Claims)
	case *drapbv1beta1.NodePrepareResourcesRequest:
		return namesOf(request.Claims)
	}
	return nil
}

func namesOf[C interface {
	GetNamespace() string
	GetName() string
}](claims []C) []types.NamespacedName {
	names := make([]types.NamespacedName, len(claims))
	for i, c := range claims {
		names[i] = types.NamespacedName{Namespace: c.GetNamespace(), Name: c.GetName()}
	}
	return names
}
