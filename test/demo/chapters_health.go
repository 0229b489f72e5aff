package main

// Chapters about health: a GPU falls off the bus, everybody concerned is told,
// new pods avoid it, and when it is well again all of that is taken back.

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/hostler-dev/hostler/test/cluster"
)

const (
	ofNode = "kubectl get events --field-selector involvedObject.kind=Node,reason="
	// Two faults are raised and cleared: the event, and what the probe finds.
	lastTwo    = " --sort-by=.lastTimestamp | tail -n 2"
	faulty     = "AcceleratorFault"
	recovered  = "AcceleratorRecovered"
	podsHealth = "kubectl -n " + namespace + ` get pod trainer-0 \
  -o jsonpath='{range .status.containerStatuses[0].allocatedResourcesStatus[0].resources[*]}{.health}  {.resourceID}
  {.message}
{end}'`
)

func (s *story) gpuBreaks(ctx context.Context) error {
	s.chapter("A GPU breaks", fmt.Sprintf(`The driver reports XID 79, "GPU has fallen off the bus", and the GPU of trainer-0
		stops answering. The agent taints %s in its ResourceSlice, so that the scheduler avoids it, and
		tells the node and the pod.`, s.gpu))
	w, err := s.watchSlices(ctx)
	if err != nil {
		return err
	}
	defer w.events.Stop()
	began := time.Now()
	if _, err := s.run(ctx, fmt.Sprintf(`echo 1 > "$NVML_CONTROL/gpu%d/lost"; echo "xid gpu%d 79" >> "$NVML_CONTROL/events"`, s.index, s.index)); err != nil {
		return err
	}
	at, err := s.awaitTaint(ctx, w, true)
	if err != nil {
		return err
	}
	s.held("The taint is in the API server %d ms after the command began.", at.Sub(began).Milliseconds())
	if err := s.shown(ctx, faulty, began); err != nil {
		return err
	}
	s.line("")
	s.say("The pod that holds the GPU is told in its status (KEP-4680); its NIC is fine:")
	if err := eventually(ctx, "the pod's status says that its GPU is unhealthy", func() error {
		out, err := s.shell(ctx, podsHealth)
		if err == nil && !strings.Contains(out, "Unhealthy") {
			err = errors.New("the status is: " + strings.TrimSpace(out))
		}
		return err
	}); err != nil {
		return err
	}
	if _, err := s.run(ctx, podsHealth); err != nil {
		return err
	}
	return s.replacementAvoids(ctx)
}

// replacementAvoids deletes the pod on the broken GPU, which makes that GPU the
// first free one again, and starts it anew.
func (s *story) replacementAvoids(ctx context.Context) error {
	s.line("")
	s.say("Delete the pod and start it again from the same manifest. Its old GPU is free now, but tainted:")
	for _, command := range []string{
		"kubectl -n " + namespace + " delete pod trainer-0",
		"kubectl -n " + namespace + " apply -f " + filepath.Join(manifests, "trainers.yaml"), podsReady,
		"kubectl -n " + namespace + ` get resourceclaims \
  -o custom-columns='POD:.status.reservedFor[*].name,DEVICES:.status.allocation.devices.results[*].device'`,
	} {
		if _, err := s.run(ctx, command); err != nil {
			return err
		}
	}
	replacement, _, err := s.gpuOf(ctx, "trainer-0")
	if err != nil {
		return err
	}
	if replacement == s.gpu {
		return fmt.Errorf("the new trainer-0 was given the broken %s", s.gpu)
	}
	if err := s.neighbours(ctx, "trainer-0"); err != nil {
		return err
	}
	s.held("The new trainer-0 runs on %s, with that GPU's own neighbour as its NIC.", replacement)
	return nil
}

func (s *story) gpuHeals(ctx context.Context) error {
	s.chapter("The GPU is well again", `Say that somebody has reset it. The agent probes the GPU every 5 seconds; once it has been
		well for 10 seconds on end (health.recoveryHoldDown), and the driver asks for no further action, the taint goes.`)
	w, err := s.watchSlices(ctx)
	if err != nil {
		return err
	}
	defer w.events.Stop()
	began := time.Now()
	if _, err := s.run(ctx, fmt.Sprintf(`rm "$NVML_CONTROL/gpu%d/lost"`, s.index)); err != nil {
		return err
	}
	s.aside("(waiting until the agent is sure)")
	at, err := s.awaitTaint(ctx, w, false)
	if err != nil {
		return err
	}
	s.held("The taint is gone after %.1f s.", at.Sub(began).Seconds())
	if err := s.shown(ctx, recovered, began); err != nil {
		return err
	}
	out, err := s.run(ctx, "kubectl get node "+nodeName+` -o jsonpath='{range .status.conditions[?(@.type=="AcceleratorsHealthy")]}{.type}={.status}: {.message}{"\n"}{end}'`)
	if err != nil {
		return err
	}
	return expect(out, "AcceleratorsHealthy=True", "the node's condition says that all is well")
}

// awaitTaint waits until the story's GPU is tainted, or no longer.
func (s *story) awaitTaint(ctx context.Context, w *sliceWatch, want bool) (time.Time, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	what := s.gpu + " is tainted"
	if !want {
		what = s.gpu + " is free of taints"
	}
	return w.await(ctx, what, func(p published) bool { return (p.taints(s.gpu) != "") == want })
}

// shown prints the node's newest events of a reason, once there is one of our GPU since then.
func (s *story) shown(ctx context.Context, reason string, since time.Time) error {
	since = since.Truncate(time.Second) // as events count
	if err := eventually(ctx, "the node has an event "+reason, func() error {
		list, err := s.client.CoreV1().Events(metav1.NamespaceDefault).List(ctx, metav1.ListOptions{FieldSelector: "involvedObject.kind=Node,reason=" + reason})
		if err != nil {
			return fmt.Errorf("list events: %w", err)
		}
		found := 0
		for _, event := range list.Items {
			if strings.Contains(event.Message, s.gpu) && !event.LastTimestamp.Time.Before(since) {
				found++
			}
		}
		if found < 2 {
			return fmt.Errorf("%d of 2 events are there", found)
		}
		return nil
	}); err != nil {
		return err
	}
	for _, command := range []string{
		`kubectl get resourceslices --sort-by=.spec.pool.name \
  -o go-template-file=` + deviceList + " | grep " + s.gpu,
		ofNode + reason + ` \
 ` + lastTwo,
	} {
		if _, err := s.run(ctx, command); err != nil {
			return err
		}
	}
	return nil
}

func (s *story) whatNext() {
	s.chapter("Your turn", "The cluster stays up. Some things to try:")
	s.line("")
	s.output(fmt.Sprintf(`. %[1]s                                     # for kubectl, $NVML_CONTROL, $HOSTLER_METRICS
ls deploy/samples %[2]s         # claims to start from
kubectl -n %[3]s exec -it agent -- sh            # try to get out
kubectl -n %[4]s logs ds/hostler -f    # what the agent says
%[5]shostler topology -o tree
%[5]shostler topology -o svg > %[6]s

echo "xid gpu3 94" >> "$NVML_CONTROL/events"     # other faults: test/nvmlsim/README.md
echo dead > "$NVML_CONTROL/driver"               # the driver dies, and the node is tainted
echo alive > "$NVML_CONTROL/driver"

make demo                                        # tell it again
make demo-down                                   # remove everything`,
		envFile, manifests, namespace, cluster.AgentNamespace, inAgent, drawing))
	s.line("")
	s.aside("Told in %.0f s, set-up included.", time.Since(s.began).Seconds())
}
