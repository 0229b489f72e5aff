package main

// The agent's side of the API server: how to reach it, what it knows of this
// node and of the cluster's resolver. An API server that is away at start is a
// state that readiness shows; pods that run are served meanwhile.

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"sync"
	"time"

	nadv1 "github.com/k8snetworkplumbingwg/network-attachment-definition-client/pkg/apis/k8s.cni.cncf.io/v1"
	nadclient "github.com/k8snetworkplumbingwg/network-attachment-definition-client/pkg/client/clientset/versioned"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	resourceclient "k8s.io/client-go/kubernetes/typed/resource/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"

	"github.com/hostler-dev/hostler/netattach"
	"github.com/hostler-dev/hostler/netattach/multus"
)

// clusterConfig reads the kubeconfig, or takes the pod's service account.
func clusterConfig(kubeconfig string) (*rest.Config, error) {
	var config *rest.Config
	var err error
	if kubeconfig != "" {
		if config, err = clientcmd.BuildConfigFromFlags("", kubeconfig); err != nil {
			return nil, fmt.Errorf("kubeconfig %s cannot be used: %w; correct the file or --kubeconfig", kubeconfig, err)
		}
	} else if config, err = rest.InClusterConfig(); err != nil {
		return nil, fmt.Errorf("no --kubeconfig is given and this is no pod with a service account (%w); `hostler topology` works without a cluster", err)
	}
	config.UserAgent = "hostler/" + version
	// One agent prepares many claims at once; the server has its own fairness.
	config.QPS, config.Burst = 100, 200
	return config, nil
}

// newClient makes the client for what Kubernetes itself defines. These objects come
// and go in protobuf, which costs both sides a fraction of JSON.
func newClient(config *rest.Config) (kubernetes.Interface, error) {
	config = rest.CopyConfig(config)
	config.ContentType = runtime.ContentTypeProtobuf
	config.AcceptContentTypes = runtime.ContentTypeProtobuf + "," + runtime.ContentTypeJSON
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("making a client for the API server: %w", err)
	}
	return client, nil
}

// newStatusClient makes the client that writes claims' status. What the agent is
// limited to is its own here, so that no prepare waits until statuses are written.
func newStatusClient(config *rest.Config) (resourceclient.ResourceClaimsGetter, error) {
	config = rest.CopyConfig(config)
	config.QPS, config.Burst = 20, 50
	client, err := resourceclient.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("making a client for claims' status: %w", err)
	}
	return client, nil
}

// nodeWatch keeps what the API server knows of this node and its resolver.
type nodeWatch struct {
	client kubernetes.Interface
	server string
	name   string
	// changed, if set, is called when the node's addresses are others than before.
	changed func()

	mu       sync.Mutex
	nodeIPs  []netip.Addr
	servers  []netip.Addr
	lastFail error
	// dns is nil until the API server has answered for the first time.
	dns     []netip.Addr
	dnsFail error
}

func newNodeWatch(client kubernetes.Interface, server, name string) *nodeWatch {
	return &nodeWatch{client: client, server: server, name: name, changed: func() {},
		lastFail: errors.New("the API server has not answered yet")}
}

// run asks until it is answered, and then again at a slow pace, since a node's
// addresses and the resolver's may change.
func (w *nodeWatch) run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait.Jitter(w.pause(), 0.1)):
			w.ask(ctx)
		}
	}
}

// pause before the next question. A cluster without a resolver may get one soon.
func (w *nodeWatch) pause() time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.lastFail != nil, w.dnsFail != nil:
		return 2 * time.Second
	case len(w.dns) == 0:
		return 30 * time.Second
	}
	return 5 * time.Minute
}

func (w *nodeWatch) ask(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	node, err := w.client.CoreV1().Nodes().Get(ctx, w.name, metav1.GetOptions{})
	var resolvers []netip.Addr
	var dnsErr error
	var servers []netip.Addr
	if err != nil {
		err = explainNode(err, w.server, w.name)
	} else {
		resolvers, dnsErr = w.clusterResolvers(ctx)
		servers = w.serverAddresses(ctx)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if changed := fmt.Sprint(err) != fmt.Sprint(w.lastFail); changed && err != nil {
		klog.FromContext(ctx).Error(err, "Nothing can be published yet; trying again")
	}
	w.lastFail = err
	if err != nil {
		return
	}
	if addresses := addressesOf(node); !slices.Equal(addresses, w.nodeIPs) || !slices.Equal(servers, w.servers) {
		w.nodeIPs, w.servers = addresses, servers
		w.changed()
	}
	if dnsErr != nil && fmt.Sprint(dnsErr) != fmt.Sprint(w.dnsFail) {
		klog.FromContext(ctx).Error(dnsErr, "The cluster's resolver is not known, or not anew; trying again", "known", w.dns)
	}
	if w.dnsFail = dnsErr; dnsErr == nil {
		w.dns = resolvers
	}
}

func explainNode(err error, server, node string) error {
	switch {
	case apierrors.IsNotFound(err):
		return fmt.Errorf("the cluster has no node %q; set nodeName or the environment variable NODE_NAME to this node's name", node)
	case apierrors.IsForbidden(err) || apierrors.IsUnauthorized(err):
		return fmt.Errorf("the API server does not let this agent read its node: %w; install the chart's RBAC", err)
	}
	return fmt.Errorf("the API server %s does not answer: %w; check the network and the kubeconfig", server, err)
}

func addressesOf(node *corev1.Node) []netip.Addr {
	var addresses []netip.Addr
	for _, a := range node.Status.Addresses {
		if ip, err := netip.ParseAddr(a.Address); err == nil { // host names are not addresses
			addresses = append(addresses, ip)
		}
	}
	return addresses
}

// clusterResolvers are the addresses of the kube-dns service, the name under
// which every distribution runs its resolver. A cluster without it has none,
// which is an answer too, and not nil.
func (w *nodeWatch) clusterResolvers(ctx context.Context) ([]netip.Addr, error) {
	addresses := []netip.Addr{}
	service, err := w.client.CoreV1().Services("kube-system").Get(ctx, "kube-dns", metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return addresses, nil
	case err != nil:
		return nil, fmt.Errorf("reading service kube-system/kube-dns: %w", err)
	}
	for _, text := range service.Spec.ClusterIPs {
		if ip, err := netip.ParseAddr(text); err == nil { // "None" is not an address
			addresses = append(addresses, ip)
		}
	}
	return addresses, nil
}

// serverAddresses are those by which the node reaches the API servers: the one
// that this agent was given and, since that is mostly the service's, the ones behind
// it. They only add to what is an uplink, so a cluster that does not tell loses nothing.
func (w *nodeWatch) serverAddresses(ctx context.Context) []netip.Addr {
	var addresses []netip.Addr
	add := func(text string) {
		if ip, err := netip.ParseAddr(text); err == nil && !slices.Contains(addresses, ip) {
			addresses = append(addresses, ip)
		}
	}
	if server, err := url.Parse(w.server); err == nil {
		add(server.Hostname())
	}
	endpoints, err := w.client.DiscoveryV1().EndpointSlices(metav1.NamespaceDefault).Get(ctx, "kubernetes", metav1.GetOptions{})
	if err != nil {
		if !apierrors.IsForbidden(err) && !apierrors.IsNotFound(err) {
			addresses = append(addresses, w.apiServers()...) // what was true a moment ago
			slices.SortFunc(addresses, netip.Addr.Compare)
			return slices.Compact(addresses)
		}
		klog.FromContext(ctx).V(2).Info("The addresses of the API servers are not known; the NIC that leads there is an uplink only if it is one for another reason", "err", err)
		return addresses
	}
	for _, endpoint := range endpoints.Endpoints {
		for _, address := range endpoint.Addresses {
			add(address)
		}
	}
	slices.SortFunc(addresses, netip.Addr.Compare)
	return addresses
}

func (w *nodeWatch) addresses() []netip.Addr {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.nodeIPs
}

func (w *nodeWatch) apiServers() []netip.Addr {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.servers
}

// resolvers are those of the last answer, nil if there was none yet.
func (w *nodeWatch) resolvers() []netip.Addr {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.dns
}

// failure is why the API server's last answer was no answer.
func (w *nodeWatch) failure() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.lastFail
}

// definitions reads NetworkAttachmentDefinitions.
type definitions struct{ client nadclient.Interface }

func newDefinitions(config *rest.Config) (definitions, error) {
	client, err := nadclient.NewForConfig(config)
	if err != nil {
		return definitions{}, fmt.Errorf("making a client for NetworkAttachmentDefinitions: %w", err)
	}
	return definitions{client}, nil
}

func (d definitions) Get(ctx context.Context, namespace, name string) (*nadv1.NetworkAttachmentDefinition, error) {
	return d.client.K8sCniCncfIoV1().NetworkAttachmentDefinitions(namespace).Get(ctx, name, metav1.GetOptions{})
}

// networks resolves them for the driver.
type networks struct{ definitions definitions }

func (n networks) Resolve(ctx context.Context, wanted netattach.NetworkIntent, deviceID string) (netattach.NetworkIntent, error) {
	return multus.Resolve(ctx, n.definitions, wanted, deviceID)
}
