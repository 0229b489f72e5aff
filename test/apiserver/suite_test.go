// Package apiserver holds what the agent publishes against real API servers:
// each Kubernetes release that Hostler supports, with the feature gates that
// matter to ResourceSlices off and on. A fake client accepts anything; only a
// real server drops fields, refuses slices and enforces the chart's RBAC and
// admission policy.
//
// Each server is a kube-apiserver with an etcd of its own, on loopback, without
// any other component. Those of older releases are built from the modules in
// build/, 1.37 is the test cluster's. The tests run with HOSTLER_APISERVER=1
// (make test-apiserver).
package apiserver

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/hostler-dev/hostler/test/cluster/binaries"
)

// older maps releases to the versions that the modules in build/ require.
var older = map[string]string{"1.34": "1.34.4", "1.35": "1.35.4", "1.36": "1.36.3"}

// built are the programs of this run.
var built struct {
	// apiServers by release.
	apiServers map[string]string
	// tools holds helm and kubectl.
	tools string
	// chart is the rendered part of the chart that says what an agent may do.
	chart []byte
}

func TestMain(m *testing.M) {
	if os.Getenv("HOSTLER_APISERVER") == "" {
		fmt.Println("skipping the tests with real API servers: run them with `make test-apiserver`")
		os.Exit(0)
	}
	if err := prepare(); err != nil {
		fmt.Fprintln(os.Stderr, "apiserver:", err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func prepare() error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Minute)
	defer cancel()
	tree, err := binaries.Tree()
	if err != nil {
		return err
	}
	report := func(what string, took time.Duration) {
		if took > 0 {
			what = fmt.Sprintf("%s in %.0f s", what, took.Seconds())
		}
		fmt.Println(what)
	}
	if built.tools, err = binaries.Ensure(ctx, tree, "", report); err != nil {
		return err
	}
	built.apiServers = map[string]string{"1.37": filepath.Join(built.tools, "kube-apiserver")}
	for release, version := range older {
		source := filepath.Join(tree, "test", "apiserver", "build", release)
		if built.apiServers[release], err = binaries.EnsureAPIServer(ctx, source, version, "", report); err != nil {
			return err
		}
	}
	built.chart, err = renderRights(ctx, filepath.Join(tree, "deploy", "chart"))
	return err
}
