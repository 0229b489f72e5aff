package e2e

// Many pods and few GPUs: there are always more than can run, the scheduler queues them, and
// each runs for a moment on what another has just let go. In the second round the agent
// dies and the runtime restarts meanwhile. After each round, with the pods still there
// and only ended, nobody may hold anything: not the agent, not the kubelet, not the hardware.
//
// A pod costs two cores almost half a second, most of it without any claim. So there are no more
// containers, networks and pods that wait than show something.

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// churnPods is how many pods a round has: HOSTLER_E2E_CHURN, or so many.
func churnPods(t *testing.T, otherwise int) int {
	t.Helper()
	text := os.Getenv("HOSTLER_E2E_CHURN")
	if text == "" {
		return otherwise
	}
	pods, err := strconv.Atoi(text)
	if err != nil || pods <= 0 || pods%churnUnit != 0 {
		t.Fatalf("HOSTLER_E2E_CHURN=%q is not a multiple of %d", text, churnUnit)
	}
	return pods
}

// churnUnit is the least number of pods of which every kind's share is a whole one. So many are
// created together, and the next ones when no more than that are left.
const churnUnit = 25

// churning is one kind of pod: what its claim asks for and what it must see. Those
// without a NIC are partly on the host's network, which costs a fifth less.
type churning struct {
	name string
	// share of the pods, in percent.
	share int
	// pod returns the manifest of the number-th pod of its kind.
	pod func(kind, name string, number int) string
}

// Each pod fails, and is tried again until the test's time is up, if it sees another number of GPUs than it was given.
const (
	seesOneGPU    = `[ "$(ls /dev | grep -cE '^nvidia[0-9]+$')" = 1 ]`
	seesGPUAndNIC = seesOneGPU + ` && ip link show fabric0`
)

func churnKinds() []churning {
	return []churning{
		{"gpu", 40, func(kind, name string, _ int) string {
			return brief(name, "resourceClaimTemplateName: "+kind, true, briefly("main", seesOneGPU, useClaim))
		}},
		{"gpu-nic", 20, func(kind, name string, _ int) string {
			return brief(name, "resourceClaimTemplateName: "+kind, false, briefly("main", seesGPUAndNIC, useClaim))
		}},
		{"limits", 16, func(_, name string, _ int) string {
			return brief(name, "", true, briefly("main", seesOneGPU, "limits: {hostler.dev/gpu: 1}"))
		}},
		// Two or three pods share a claim, in one of them two containers.
		{"shared", 24, func(kind, name string, number int) string {
			containers := []string{briefly("one", seesOneGPU, useClaim)}
			if number%5 == 0 || number%5 == 3 {
				containers = append(containers, briefly("two", seesOneGPU, useClaim))
			}
			return brief(name, fmt.Sprintf("resourceClaimName: %s-%d", kind, sharedClaim(number)), number%2 == 0, containers...)
		}},
	}
}

// sharedClaim spreads five pods over two claims: three on the first, two on the second.
func sharedClaim(number int) int { return number/5*2 + number%5/3 }

const useClaim = "claims: [{name: claim}]"

// brief is a pod that ends by itself.
func brief(name, claimSource string, hostNetwork bool, containers ...string) string {
	claims := ""
	if claimSource != "" {
		claims = fmt.Sprintf("  resourceClaims: [{name: claim, %s}]\n", claimSource)
	}
	return fmt.Sprintf("apiVersion: v1\nkind: Pod\nmetadata: {name: %s}\nspec:\n  restartPolicy: OnFailure\n  terminationGracePeriodSeconds: 0\n  automountServiceAccountToken: false\n  hostNetwork: %t\n%s  containers:\n%s",
		name, hostNetwork, claims, strings.Join(containers, ""))
}

func briefly(name, script, resources string) string {
	return fmt.Sprintf("  - {name: %s, image: %q, imagePullPolicy: Never, command: [sh, -c, %q], resources: {%s}}\n", name, testImage, script, resources)
}

func TestManyPodsThroughEightGPUs(t *testing.T) {
	s := newScenario(t)
	pods := churnPods(t, 200)
	before := s.node.snapshot(t)
	s.apply(template("gpu", requests(request("gpu", oneGPU))),
		template("gpu-nic", requests(request("gpu", oneGPU), request("nic", anyNIC))+samePCIeRoot+
			"config:\n- requests: [nic]\n  opaque: {driver: hostler.dev, parameters: {apiVersion: hostler.dev/v1alpha1, kind: NICConfig, interfaceName: fabric0}}\n"))
	for i := range sharedClaim(pods*24/100-1) + 1 {
		s.apply(claim(fmt.Sprintf("shared-%d", i), requests(request("gpu", oneGPU))))
	}

	s.churn("calm", pods, churnKinds(), before, nil)
	s.churn("rough", pods, churnKinds(), before, map[int]func(){
		pods * 1 / 8: s.killAgent, pods * 3 / 8: s.killAgent, pods * 5 / 8: s.killAgent,
		pods * 7 / 8: func() { must(t, testbed.RestartRuntime(s.ctx, s.node.Name)) },
	})
	s.awaitAgent()
}

// churn creates the pods of a round and returns when all have succeeded and nobody
// holds more than before. A fault strikes once as many pods have ended as its key says.
func (s *scenario) churn(round string, pods int, kinds []churning, before snapshot, faults map[int]func()) {
	s.Helper()
	began := time.Now()
	created, most, progress := 0, -1, time.Now()
	for most < pods {
		if created < pods && created-max(most, 0) <= churnUnit {
			created += s.createUnit(round, kinds, created/churnUnit)
		}
		time.Sleep(2 * time.Second) // polling pace: each look costs as much as a pod
		running := len(strings.Fields(s.kubectl("get", "pods", "--field-selector=status.phase!=Succeeded", "-o", "name")))
		if ended := created - running; ended > most {
			most, progress = ended, time.Now()
		}
		for after, fault := range faults {
			if most >= after {
				fault()
				delete(faults, after)
				progress = time.Now() // the fault may have had to wait for an agent to strike
			}
		}
		if time.Since(progress) > patience {
			s.Fatalf("round %s: %d of %d pods have succeeded, and none more in %s", round, most, pods, patience)
		}
	}
	if len(faults) > 0 {
		s.Errorf("round %s: %d faults never struck", round, len(faults))
	}
	took := time.Since(began)
	s.eventually("nothing is held once all pods have ended", func() error { return s.holdsNothing(before) })
	// One call: a pod that has ended needs nobody's leave to go.
	s.kubectl("delete", "--raw", "/api/v1/namespaces/"+s.namespace+"/pods?gracePeriodSeconds=0")
	s.Logf("round %s: %d pods ended after %s", round, pods, took.Round(100*time.Millisecond))
}

// createUnit creates the number-th churnUnit of pods, of all kinds, and returns how many they are.
func (s *scenario) createUnit(round string, kinds []churning, number int) int {
	s.Helper()
	var manifests []string
	for _, kind := range kinds {
		each := churnUnit * kind.share / 100
		for i := number * each; i < (number+1)*each; i++ {
			manifests = append(manifests, kind.pod(kind.name, fmt.Sprintf("%s-%s-%d", round, kind.name, i), i))
		}
	}
	if len(manifests) != churnUnit {
		s.Fatalf("the kinds make %d pods, want %d", len(manifests), churnUnit)
	}
	if _, err := command(s.ctx, strings.Join(manifests, "\n---\n"), "kubectl", "-n", s.namespace, "create", "-f", "-"); err != nil {
		s.Fatal(err)
	}
	return churnUnit
}

// holdsNothing is nil if neither agent nor kubelet nor hardware knows of a claim any more.
func (s *scenario) holdsNothing(before snapshot) error {
	if err := s.node.leftovers(before); err != nil {
		return err
	}
	if err := s.node.kubeletForgot(s.namespace); err != nil {
		return err
	}
	return s.node.metricsSay("hostler_claims_prepared 0", "hostler_devices_prepared 0")
}

// kubeletForgot is nil if the kubelet believes no claim of the namespace prepared.
func (b *bed) kubeletForgot(namespace string) error {
	raw, err := os.ReadFile(filepath.Join(b.KubeletRoot, "dra_manager_state"))
	if err != nil {
		return err
	}
	var checkpoint struct{ Data string }
	if err := json.Unmarshal(raw, &checkpoint); err != nil {
		return fmt.Errorf("reading the kubelet's dra_manager_state: %w", err)
	}
	if strings.Contains(checkpoint.Data, fmt.Sprintf("%q", namespace)) {
		return fmt.Errorf("the kubelet believes claims of %s prepared: %s", namespace, checkpoint.Data)
	}
	return nil
}

// metricsSay is nil if the agent's metrics have each of the lines.
func (b *bed) metricsSay(lines ...string) error {
	response, err := http.Get("http://" + net.JoinHostPort(b.IP, "9484") + "/metrics")
	if err != nil {
		return err
	}
	defer response.Body.Close()
	page, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	for _, line := range lines {
		if !strings.Contains("\n"+string(page), "\n"+line+"\n") {
			return fmt.Errorf("the agent's metrics lack the line %q", line)
		}
	}
	return nil
}
