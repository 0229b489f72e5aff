// Package binaries builds the programs of a test cluster from Go modules and
// keeps them outside the tree. Each folder of test/cluster/tools is a module of
// its own whose `tool` directives name the programs; the cache key is a hash of
// its go.mod, go.sum and build flags, so a program is built again exactly when
// its version changes.
package binaries

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// set is one module of tools and how it is built.
type set struct {
	name    string
	ldflags string
	env     []string
	expect  string
}

// sets are built in this order; the largest first, so that its progress line comes early.
func sets() []set {
	static := []string{"CGO_ENABLED=0"}
	return []set{
		{name: "kubernetes", env: static, expect: "5½ minutes on two cores", ldflags: stamp("1.37.0", "1", "37")},
		{name: "runtime", env: static, ldflags: "-s -w", expect: "a minute"},
		{name: "coredns", env: static, ldflags: "-s -w", expect: "two minutes"},
		{name: "multus", env: static, ldflags: "-s -w", expect: "a minute and a half"},
		{name: "helm", env: static, ldflags: "-s -w", expect: "a minute"},
		// go-nvml opens the driver's library with dlopen, which takes cgo.
		{name: "nvidia", env: []string{"CGO_ENABLED=1"}, ldflags: "-s -w", expect: "half a minute"},
	}
}

// Report is told what is being built, and again with the time it took.
type Report func(what string, took time.Duration)

// Ensure returns a directory that holds every program, building what is missing.
// tree is the root of the source tree; cache is where results are kept, "" for
// hostler/bin in the user's cache directory.
func Ensure(ctx context.Context, tree, cache string, report Report) (string, error) {
	cache, err := cacheOr(cache)
	if err != nil {
		return "", err
	}
	unlock, err := lock(ctx, cache)
	if err != nil {
		return "", err
	}
	defer unlock()
	all := sha256.New()
	var parts []string
	for _, s := range sets() {
		target, err := s.ensure(ctx, filepath.Join(tree, "test", "cluster", "tools", s.name), cache, report)
		if err != nil {
			return "", err
		}
		parts = append(parts, target)
		fmt.Fprintln(all, target)
	}
	return gather(cache, hex.EncodeToString(all.Sum(nil))[:12], parts)
}

// EnsureAPIServer returns the path of a kube-apiserver of another version than
// the cluster's, such as "1.34.4", built from the module in the directory
// source. Cache and report are as in Ensure.
func EnsureAPIServer(ctx context.Context, source, release, cache string, report Report) (string, error) {
	cache, err := cacheOr(cache)
	if err != nil {
		return "", err
	}
	unlock, err := lock(ctx, cache)
	if err != nil {
		return "", err
	}
	defer unlock()
	numbers := strings.SplitN(release, ".", 3)
	if len(numbers) != 3 {
		return "", fmt.Errorf("%q is not a version of Kubernetes of the form 1.34.4", release)
	}
	target, err := set{name: "kube-apiserver-" + release, env: []string{"CGO_ENABLED=0"}, expect: "2½ minutes on two cores",
		ldflags: stamp(release, numbers[0], numbers[1])}.ensure(ctx, source, cache, report)
	return filepath.Join(target, "kube-apiserver"), err
}

// stamp has a Kubernetes program know its version. Unstamped, it calls itself
// v0.0.0, and kubectl and others refuse it.
func stamp(release, major, minor string) string {
	const version = "k8s.io/component-base/version"
	return "-s -w -X " + version + ".gitVersion=v" + release + " -X " + version + ".gitMajor=" + major + " -X " + version + ".gitMinor=" + minor
}

func cacheOr(cache string) (string, error) {
	if cache != "" {
		return cache, nil
	}
	user, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find a cache directory for the cluster's programs (set XDG_CACHE_HOME or HOME): %w", err)
	}
	return filepath.Join(user, "hostler", "bin"), nil
}

// ensure builds the set unless the cache has it, and returns where it is.
func (s set) ensure(ctx context.Context, source, cache string, report Report) (string, error) {
	key, err := s.key(source)
	if err != nil {
		return "", err
	}
	target := filepath.Join(cache, s.name+"-"+key)
	return target, s.build(ctx, source, target, report)
}

// key names this version of the set.
func (s set) key(source string) (string, error) {
	hash := sha256.New()
	for _, file := range []string{"go.mod", "go.sum"} {
		content, err := os.ReadFile(filepath.Join(source, file))
		if err != nil {
			return "", fmt.Errorf("read the versions of the cluster's programs: %w", err)
		}
		hash.Write(content)
	}
	fmt.Fprintln(hash, s.ldflags, s.env)
	return hex.EncodeToString(hash.Sum(nil))[:12], nil
}

// build compiles into a temporary directory and renames it, so a target that exists is complete.
func (s set) build(ctx context.Context, source, target string, report Report) error {
	if _, err := os.Stat(target); err == nil {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
		return fmt.Errorf("make the cache for the cluster's programs: %w", err)
	}
	temporary, err := os.MkdirTemp(filepath.Dir(target), ".build-"+s.name+"-")
	if err != nil {
		return fmt.Errorf("make room to build %s: %w", s.name, err)
	}
	defer os.RemoveAll(temporary)
	report(fmt.Sprintf("building %s (cold: %s)", s.name, s.expect), 0)
	began := time.Now()
	cmd := exec.CommandContext(ctx, "go", "build", "-buildvcs=false", "-ldflags", s.ldflags, "-o", temporary+"/", "tool")
	cmd.Dir, cmd.Env = source, append(os.Environ(), append(s.env, "GOFLAGS=-mod=readonly", "GOWORK=off")...)
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("build %s in %s: %w\n%s", s.name, source, err, strings.TrimSpace(output.String()))
	}
	if err := os.Chmod(temporary, 0o755); err != nil {
		return fmt.Errorf("open %s to its readers: %w", temporary, err)
	}
	if err := os.Rename(temporary, target); err != nil {
		return fmt.Errorf("keep the programs of %s: %w", s.name, err)
	}
	report("built "+s.name, time.Since(began))
	return nil
}

// gather makes one directory of hard links, so that one entry in PATH is enough.
func gather(cache, key string, parts []string) (string, error) {
	target := filepath.Join(cache, key)
	if _, err := os.Stat(target); err == nil {
		return target, nil
	}
	temporary, err := os.MkdirTemp(cache, ".gather-")
	if err != nil {
		return "", fmt.Errorf("gather the cluster's programs: %w", err)
	}
	defer os.RemoveAll(temporary)
	for _, part := range parts {
		programs, err := os.ReadDir(part)
		if err != nil {
			return "", fmt.Errorf("gather the cluster's programs: %w", err)
		}
		for _, program := range programs {
			if err := os.Link(filepath.Join(part, program.Name()), filepath.Join(temporary, program.Name())); err != nil {
				return "", fmt.Errorf("gather the cluster's programs: %w", err)
			}
		}
	}
	if err := os.Chmod(temporary, 0o755); err != nil {
		return "", fmt.Errorf("open %s to its readers: %w", temporary, err)
	}
	if err := os.Rename(temporary, target); err != nil && !os.IsExist(err) {
		return "", fmt.Errorf("keep the cluster's programs: %w", err)
	}
	return target, nil
}

// Tree finds the root of the source tree above the working directory.
func Tree() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("find the source tree: %w", err)
	}
	for ; dir != "/"; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "test", "cluster", "tools", "kubernetes", "go.mod")); err == nil {
			return dir, nil
		}
	}
	return "", fmt.Errorf("the working directory is not inside hostler's source tree; change into it first")
}
