// Package test holds tests of the scripts beside it.
package test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"
)

// Two runs of `make test-e2e` in one checkout both need the former version. Its git and its
// compiler are scripts here: the first to compile waits until both have seen that
// nothing is built yet.
func TestFormerVersionIsBuiltOnceForAllWhoNeedIt(t *testing.T) {
	if _, err := exec.LookPath("flock"); err != nil {
		t.Skip("this machine has no flock(1), which util-linux has")
	}
	checkout, programs := t.TempDir(), t.TempDir()
	script, err := os.ReadFile("older.sh")
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(checkout, "test", "older.sh"), string(script))
	write(t, filepath.Join(checkout, "deploy", "chart", "Chart.yaml"), "name: hostler\n")
	seen, built := filepath.Join(checkout, "seen"), filepath.Join(checkout, "built")
	write(t, filepath.Join(programs, "git"), `#!/bin/sh
case $1 in
cat-file) echo one >>`+seen+` ;;
archive) exec tar -c -C `+checkout+` deploy ;;
esac
`)
	write(t, filepath.Join(programs, "go"), `#!/bin/sh
until [ "$(wc -l <`+seen+`)" = 2 ]; do sleep 0.01; done
echo one >>`+built+`
while [ "$1" != -output ]; do shift; done
echo image >"$2"
`)
	var both errgroup.Group
	said := make([]string, 2)
	for i := range said {
		both.Go(func() error {
			command := exec.Command(filepath.Join(checkout, "test", "older.sh"))
			command.Env = append(os.Environ(), "PATH="+programs+":"+os.Getenv("PATH"))
			command.Stderr = os.Stderr
			out, err := command.Output()
			said[i] = strings.TrimSpace(string(out))
			return err
		})
	}
	if err := both.Wait(); err != nil {
		t.Fatal(err)
	}
	if times, err := os.ReadFile(built); err != nil || string(times) != "one\n" {
		t.Errorf("it was built %d times (%v), want once", strings.Count(string(times), "one"), err)
	}
	for _, directory := range said {
		for _, file := range []string{"hostler-image.tar", "chart/Chart.yaml"} {
			if _, err := os.Stat(filepath.Join(directory, file)); err != nil || directory == "" {
				t.Errorf("where it is said to be, in %q: %v", directory, err)
			}
		}
	}
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o755); err != nil {
		t.Fatal(err)
	}
}
