// Command demo shows the main job on a simulated DGX H100 in a real one-node
// Kubernetes: topology drawn, devices published, pods with GPU and NIC running,
// an egress scope holding, metrics, a fault and its recovery. `make demo` runs it.
//
// It tells a story in chapters. What it shows is what it ran: each command is
// handed to a shell with the cluster's environment (.run/env), its output is
// printed as it came, and a chapter whose promise does not hold fails the demo.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/hostler-dev/hostler/test/cluster"
)

const usage = `usage: go run ./test/demo up     start the cluster, or use the one that is up, and tell the story
       go run ./test/demo down   remove the cluster and everything it made`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var err error
	switch {
	case len(os.Args) == 2 && os.Args[1] == "up":
		err = up(ctx)
	case len(os.Args) == 2 && os.Args[1] == "down":
		err = down(ctx)
	default:
		fmt.Fprintln(os.Stderr, usage)
		os.Exit(2)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

func up(ctx context.Context) error {
	s := &story{narrator: newNarrator(os.Stdout), fetch: fetcher()}
	err := s.tell(ctx)
	if err != nil && ctx.Err() != nil {
		return fmt.Errorf("interrupted; what runs stays up until: make demo-down")
	}
	if err != nil {
		s.lookCloser()
	}
	return err
}

func down(ctx context.Context) error {
	began := time.Now()
	if err := cluster.Down(ctx, cluster.StateDir(cluster.DefaultName)); err != nil {
		return err
	}
	fmt.Printf("cluster %s is down (%.1fs)\n", cluster.DefaultName, time.Since(began).Seconds())
	return nil
}
