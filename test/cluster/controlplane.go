package cluster

// The control plane: etcd, kube-apiserver, kube-controller-manager and
// kube-scheduler as processes of the machine itself, the API server listening
// on the machine's link to the nodes and nowhere else.

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

func (p Plan) etcd() component {
	return component{plan: p, name: "etcd", argv: []string{"etcd",
		"--data-dir=" + p.path("etcd"),
		"--listen-client-urls=" + p.etcdURL(), "--advertise-client-urls=" + p.etcdURL(),
		"--listen-peer-urls=" + p.etcdPeerURL(), "--initial-advertise-peer-urls=" + p.etcdPeerURL(),
		"--initial-cluster=default=" + p.etcdPeerURL(),
		"--unsafe-no-fsync", "--log-level=warn"}}
}

func (p Plan) apiServer() component {
	pki := func(file string) string { return p.path("pki", file) }
	return component{plan: p, name: "kube-apiserver", argv: []string{filepath.Join(p.Binaries, "kube-apiserver"),
		"--etcd-servers=" + p.etcdURL(),
		"--bind-address=" + p.serverAddress(), "--advertise-address=" + p.serverAddress(), "--secure-port=6443",
		"--tls-cert-file=" + pki("apiserver.crt"), "--tls-private-key-file=" + pki("apiserver.key"),
		"--client-ca-file=" + pki("ca.crt"),
		"--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction", "--allow-privileged=true",
		"--service-account-issuer=https://kubernetes.default.svc.cluster.local",
		"--service-account-key-file=" + pki("sa.pub"), "--service-account-signing-key-file=" + pki("sa.key"),
		"--service-cluster-ip-range=" + p.serviceSubnets(),
		// Debian's etcd 3.4.23 cannot be asked for watch progress (3.4.31 could), so a
		// streamed list of a resource that nobody writes to may hang for five minutes.
		"--feature-gates=WatchList=false",
		"--kubelet-preferred-address-types=InternalIP", "--kubelet-certificate-authority=" + pki("ca.crt"),
		"--kubelet-client-certificate=" + pki("admin.crt"), "--kubelet-client-key=" + pki("admin.key"),
		"--cert-dir=" + p.path("pki")}}
}

func (p Plan) controllerManager() component {
	return component{plan: p, name: "kube-controller-manager", argv: []string{filepath.Join(p.Binaries, "kube-controller-manager"),
		"--kubeconfig=" + p.kubeconfig("controller-manager"),
		"--root-ca-file=" + p.path("pki", "ca.crt"), "--service-account-private-key-file=" + p.path("pki", "sa.key"),
		"--cluster-signing-cert-file=" + p.path("pki", "ca.crt"), "--cluster-signing-key-file=" + p.path("pki", "ca.key"),
		"--use-service-account-credentials=true", "--leader-elect=false", "--secure-port=0",
		// Hundreds of pods at once are to be held up by the node, not by the default of 20 calls a second.
		"--kube-api-qps=200", "--kube-api-burst=400"}}
}

func (p Plan) scheduler() component {
	return component{plan: p, name: "kube-scheduler", argv: []string{filepath.Join(p.Binaries, "kube-scheduler"),
		"--kubeconfig=" + p.kubeconfig("scheduler"), "--leader-elect=false", "--secure-port=0",
		"--kube-api-qps=200", "--kube-api-burst=400"}}
}

// world serves a page on port 80 of every outside address, so that there is something to be allowed to reach.
func (p Plan) world() component {
	return component{plan: p, name: "world", argv: []string{"nsenter", "--net=" + p.netNSPath("world"),
		"busybox", "httpd", "-f", "-p", "[::]:80", "-h", p.path("world")}}
}

// startControlPlane returns when the API server answers; the controllers start meanwhile.
func (p Plan) startControlPlane(ctx context.Context) error {
	if err := os.MkdirAll(p.path("world"), 0o755); err != nil {
		return fmt.Errorf("make the outside world's page: %w", err)
	}
	page := "This is the outside world of cluster " + p.Name + ".\n"
	if err := os.WriteFile(p.path("world", "index.html"), []byte(page), 0o644); err != nil {
		return fmt.Errorf("write the outside world's page: %w", err)
	}
	if _, err := p.world().start(); err != nil {
		return err
	}
	etcd, err := p.etcd().start()
	if err != nil {
		return err
	}
	server, err := p.apiServer().start()
	if err != nil {
		return err
	}
	client, err := p.client()
	if err != nil {
		return err
	}
	ready := func(ctx context.Context) error {
		return client.Discovery().RESTClient().Get().AbsPath("/readyz").Do(ctx).Error()
	}
	// Without etcd the API server would only try for long, and its log would not say why.
	waiting, stop := context.WithCancel(ctx)
	defer stop()
	go func() {
		select {
		case <-etcd.exited:
			stop()
		case <-waiting.Done():
		}
	}()
	if err := server.await(waiting, time.Minute, ready); err != nil {
		if _, alive := p.etcd().running(); !alive {
			return p.etcd().failure(errors.New("ended, so the API server cannot start"))
		}
		return err
	}
	for _, c := range []component{p.controllerManager(), p.scheduler()} {
		if _, err := c.start(); err != nil {
			return err
		}
	}
	return nil
}

func (p Plan) restConfig() (*rest.Config, error) {
	config, err := clientcmd.BuildConfigFromFlags("", p.kubeconfig("admin"))
	if err != nil {
		return nil, fmt.Errorf("read the administrator's kubeconfig: %w", err)
	}
	config.QPS, config.Burst = -1, -1
	return config, nil
}

func (p Plan) client() (*kubernetes.Clientset, error) {
	config, err := p.restConfig()
	if err != nil {
		return nil, err
	}
	return kubernetes.NewForConfig(config)
}
