// An API server of one release with an etcd of its own. Both listen on loopback
// ports that were free a moment ago, keep everything in the test's temporary
// directory, and die with the test process, however it ends.

package apiserver

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

const adminToken = "administrator-of-a-throwaway-server"

// patience is how long a test waits for what should take a second or two.
const patience = 90 * time.Second

// server is a running API server.
type server struct {
	dir, etcd, address string
	release            string
	etcdProcess        *process
	process            *process
}

// startServer returns when the server is ready. Arguments are added to its
// command line, such as "--feature-gates=DRADeviceTaints=true".
func startServer(t *testing.T, release string, arguments ...string) *server {
	t.Helper()
	s := &server{dir: t.TempDir(), release: release, etcd: "http://" + freeAddress(t), address: freeAddress(t)}
	peer := "http://" + freeAddress(t)
	s.etcdProcess = startProcess(t, s.dir, "etcd", "etcd", "--data-dir="+filepath.Join(s.dir, "etcd"),
		"--listen-client-urls="+s.etcd, "--advertise-client-urls="+s.etcd,
		"--listen-peer-urls="+peer, "--initial-advertise-peer-urls="+peer, "--initial-cluster=default="+peer,
		"--unsafe-no-fsync", "--log-level=warn")
	s.writeKeys(t)
	s.start(t, arguments...)
	return s
}

// start runs the API server, again if it was stopped: with the same state and
// address, but other arguments.
func (s *server) start(t *testing.T, arguments ...string) {
	t.Helper()
	host, port, err := net.SplitHostPort(s.address)
	if err != nil {
		t.Fatal(err)
	}
	s.process = startProcess(t, s.dir, "kube-apiserver", built.apiServers[s.release], append([]string{
		"--etcd-servers=" + s.etcd, "--bind-address=" + host, "--advertise-address=" + host, "--secure-port=" + port,
		"--endpoint-reconciler-type=none", "--cert-dir=" + s.dir, "--service-cluster-ip-range=10.0.0.0/24",
		"--authorization-mode=RBAC", "--token-auth-file=" + filepath.Join(s.dir, "tokens.csv"),
		"--service-account-issuer=https://kubernetes.default.svc",
		"--service-account-key-file=" + filepath.Join(s.dir, "sa.pub"), "--service-account-signing-key-file=" + filepath.Join(s.dir, "sa.key"),
	}, withStreamedListsOff(arguments)...)...)
	client := s.client(t, adminToken)
	eventually(t, s.process, "the API server to be ready", func(ctx context.Context) error {
		return client.Discovery().RESTClient().Get().AbsPath("/readyz").Do(ctx).Error()
	})
}

// withStreamedListsOff adds WatchList=false to the gates: Debian's etcd 3.4 leaves
// streamed lists hanging (docs/decisions/0006-etcd-from-debian.md).
func withStreamedListsOff(arguments []string) []string {
	return append([]string{"--feature-gates=WatchList=false"}, arguments...)
}

func (s *server) writeKeys(t *testing.T) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{
		"sa.key":     pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}),
		"sa.pub":     pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public}),
		"tokens.csv": []byte(adminToken + ",admin,admin,system:masters\n"),
	} {
		if err := os.WriteFile(filepath.Join(s.dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// config has the rights of a token. The server made its certificate itself at
// start; on loopback, and for as long as a test, it needs no trust.
func (s *server) config(token string) *rest.Config {
	return &rest.Config{Host: "https://" + s.address, BearerToken: token, QPS: -1, TLSClientConfig: rest.TLSClientConfig{Insecure: true}}
}

// client speaks JSON, as the agent's does.
func (s *server) client(t *testing.T, token string) *kubernetes.Clientset {
	t.Helper()
	client, err := kubernetes.NewForConfig(s.config(token))
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// process is a program that lives no longer than the test.
type process struct {
	name, log string
	exited    chan struct{}
	kill      func()
}

func startProcess(t *testing.T, dir, name, program string, arguments ...string) *process {
	t.Helper()
	p := &process{name: name, log: filepath.Join(dir, name+".log"), exited: make(chan struct{})}
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command(program, arguments...)
	cmd.Stdout, cmd.Stderr, cmd.Dir = log, log, dir
	// So that nothing is left when the tests are killed or run out of time.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatalf("start %s: %v", name, err)
	}
	go func() {
		defer close(p.exited)
		_ = cmd.Wait() // Killed, as a rule; whoever waits for it to be ready reads its log.
	}()
	p.kill = func() {
		_ = cmd.Process.Kill()
		<-p.exited
	}
	t.Cleanup(p.kill)
	return p
}

// tail is the end of the program's log.
func (p *process) tail() string {
	content, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(content)), "\n")
	return strings.Join(lines[max(0, len(lines)-15):], "\n")
}

// eventually tries until there is no error; it fails the test when that takes
// too long or the process that it depends on ends.
func eventually(t *testing.T, on *process, what string, try func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		last := try(ctx)
		if last == nil {
			return
		}
		select {
		case <-tick.C:
		case <-on.exited:
			t.Fatalf("%s ended while waiting for %s: %v\n%s", on.name, what, last, on.tail())
		case <-ctx.Done():
			t.Fatalf("waited %s for %s: %v\n%s", patience, what, last, on.tail())
		}
	}
}

func freeAddress(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return fmt.Sprint(listener.Addr())
}
