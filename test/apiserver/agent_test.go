// The agent as the API server knows it: the chart's service account with the
// chart's ClusterRole and admission policy, and a token bound to a pod on the
// node, which is how the kubelet mounts it.

package apiserver

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/hostler-dev/hostler/driver/apiserver"
)

const (
	nodeName  = "node1"
	otherNode = "node2"
	// agentName is the chart's release and so the service account, agentNamespace where it is installed.
	agentName      = "hostler"
	agentNamespace = "hostler-system"
)

// renderRights is what `helm template` makes of the chart's files on rights.
func renderRights(ctx context.Context, chart string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, filepath.Join(built.tools, "helm"), "template", agentName, chart, "--namespace", agentNamespace, "--kube-version", "1.37.0",
		"--show-only", "templates/rbac.yaml", "--show-only", "templates/admissionpolicy.yaml")
	var failure bytes.Buffer
	cmd.Stderr = &failure
	rendered, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("render the chart's rights: %w: %s", err, failure.String())
	}
	return rendered, nil
}

// installAgent makes the server ready for an agent of node1 and returns the agent's client.
func installAgent(t *testing.T, s *server) *kubernetes.Clientset {
	t.Helper()
	ctx, admin := t.Context(), s.client(t, adminToken)
	for _, name := range []string{agentNamespace, metav1.NamespaceSystem} {
		_, err := admin.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
		if err != nil && !apierrors.IsAlreadyExists(err) {
			t.Fatal(err)
		}
	}
	for _, name := range []string{nodeName, otherNode} {
		if _, err := admin.CoreV1().Nodes().Create(ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	create := exec.CommandContext(ctx, filepath.Join(built.tools, "kubectl"), "--server=https://"+s.address, "--insecure-skip-tls-verify",
		"--token="+adminToken, "--kubeconfig=/dev/null", "--cache-dir="+filepath.Join(s.dir, "kubectl"), "create", "--validate=false", "-f", "-")
	create.Stdin = bytes.NewReader(built.chart)
	if output, err := create.CombinedOutput(); err != nil {
		t.Fatalf("install the chart's rights: %v\n%s", err, output)
	}
	pod, err := admin.CoreV1().Pods(agentNamespace).Create(ctx, &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "agent"},
		Spec:       corev1.PodSpec{ServiceAccountName: agentName, NodeName: nodeName, Containers: []corev1.Container{{Name: "agent", Image: "agent"}}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	agent := s.client(t, token(t, admin, agentNamespace, agentName, pod))
	eventually(t, s.process, "the chart's rights to be in force", func(ctx context.Context) error {
		if _, err := apiserver.Probe(ctx, agent, nodeName); err != nil {
			return err
		}
		if _, err := apiserver.Probe(ctx, agent, otherNode); err == nil {
			return errors.New("the agent may still create slices of another node")
		}
		return nil
	})
	return agent
}

// token of a service account, bound to a pod if one is given.
func token(t *testing.T, admin kubernetes.Interface, namespace, account string, pod *corev1.Pod) string {
	t.Helper()
	var request authenticationv1.TokenRequest
	if pod != nil {
		request.Spec.BoundObjectRef = &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: pod.Name, UID: pod.UID}
	}
	answer, err := admin.CoreV1().ServiceAccounts(namespace).CreateToken(t.Context(), account, &request, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return answer.Status.Token
}
