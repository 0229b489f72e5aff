package e2e

// The product in the suite's cluster, as an administrator installs, configures, upgrades and
// downgrades it. But for the scenario that is about that, a change of the configuration
// ends all agents at once and makes new ones: with surge, one node after the other, it takes five times as long.

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	resourceapi "k8s.io/api/resource/v1"

	"github.com/hostler-dev/hostler/test/cluster"
)

// install loads the image that HOSTLER_IMAGE names and installs the chart.
func install(ctx context.Context) error {
	image := os.Getenv("HOSTLER_IMAGE")
	if image == "" {
		image = filepath.Join(repository(), "bin", "hostler-image.tar")
	}
	return testbed.Deploy(ctx, cluster.DeployOptions{Image: image, Values: values()})
}

// values of the chart: a recovery that comes in seconds, and the log of each claim.
func values(more ...string) []string {
	return append([]string{"config.health.recoveryHoldDown=2s", "config.health.pollInterval=1s", "config.logging.verbosity=2",
		"updateStrategy.rollingUpdate.maxSurge=0", "updateStrategy.rollingUpdate.maxUnavailable=100%", "minReadySeconds=0"}, more...)
}

// surge are the chart's own values for an update, but for an agent being taken for available sooner.
func surge() []string {
	return []string{"updateStrategy.rollingUpdate.maxSurge=1", "updateStrategy.rollingUpdate.maxUnavailable=0", "minReadySeconds=3"}
}

// former is a version of the agent from the project's history, see test/older.sh.
type former struct {
	chart, image string
}

// Its image is named by test/older.sh.
const (
	olderTag   = "older"
	olderImage = "localhost/hostler-dev/hostler:" + olderTag
)

// older is nil where the history is not at hand.
func older() *former {
	dir := os.Getenv("HOSTLER_OLDER")
	if dir == "" {
		return nil
	}
	return &former{chart: filepath.Join(dir, "chart"), image: filepath.Join(dir, "hostler-image.tar")}
}

// publishWith has the scenario's node publish what the chart's value asks for until the end of the test.
func (s *scenario) publishWith(value string) {
	s.Helper()
	before, sinceWhen := s.devices(), cmpopts.IgnoreFields(resourceapi.DeviceTaint{}, "TimeAdded")
	s.Cleanup(func() {
		s.kubectl("delete", "pods", "--all", "--wait=true", "--timeout=120s") // a device that is held stays as it is
		s.deploy()
		s.eventually("slices show what they did before", func() error {
			if diff := cmp.Diff(before, s.devices(), sinceWhen); diff != "" {
				return errors.New("(-before +now) " + diff)
			}
			return nil
		})
	})
	s.deploy(value)
	s.eventually("slices show "+value, func() error {
		if cmp.Equal(before, s.devices(), sinceWhen) {
			return errors.New("the node's devices are as they were")
		}
		return nil
	})
}

// deploy upgrades the release to the suite's values and more.
func (s *scenario) deploy(more ...string) {
	s.Helper()
	s.deployVersion(nil, more...)
}

// deployVersion is deploy with the former version, nil for the one that is tested.
func (s *scenario) deployVersion(version *former, more ...string) {
	s.Helper()
	if races := agentRaces(s.ctx); races != "" { // the logs go with the pods
		s.Errorf("the race detector spoke up in the agent:\n%s", races)
	}
	began := time.Now()
	options := cluster.DeployOptions{Values: values(more...)}
	if version != nil {
		options.Chart = version.chart
		options.Values = append(options.Values, "image.tag="+olderTag)
	}
	must(s.T, testbed.Deploy(s.ctx, options))
	s.Logf("agents deployed in %s", time.Since(began).Round(100*time.Millisecond))
}

// agentRaces returns reports of the race detector in the agents' logs, those of
// killed ones included. Former versions can say what they want.
func agentRaces(ctx context.Context) string {
	pods, err := command(ctx, "", "kubectl", "-n", agentNamespace, "get", "pods", "-o", `jsonpath={range .items[?(@.spec.containers[0].image!="`+olderImage+`")]}{.metadata.name} {end}`)
	if err != nil {
		return err.Error()
	}
	var found []string
	for _, pod := range strings.Fields(pods) {
		for _, previous := range []string{"false", "true"} {
			out, err := command(ctx, "", "kubectl", "-n", agentNamespace, "logs", pod, "--previous="+previous, "--tail=-1")
			if err == nil && strings.Contains(out, "WARNING: DATA RACE") {
				found = append(found, out)
			}
		}
	}
	return strings.Join(found, "\n")
}
