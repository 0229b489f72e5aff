// Command image builds Hostler's container image as a docker archive without a
// container engine: the binaries, the C library that go-nvml's dlopen needs,
// and nothing else. deploy/image/Dockerfile describes the same root file
// system for those who have an engine.
package main

import (
	"archive/tar"
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"sort"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// program is one binary of the image.
type program struct {
	name, pkg string
	// cgo: the agent dlopens the NVML library and so needs a dynamic C library;
	// our hook runs on any host and is static. NVIDIA's hook links go-nvml.
	cgo bool
}

var programs = []program{
	{"hostler", "./cmd/hostler", true},
	{"hostler-gate", "./cmd/hostler-gate", false},
	{"nvidia-cdi-hook", "github.com/NVIDIA/nvidia-container-toolkit/cmd/nvidia-cdi-hook", true},
}

func main() {
	out := flag.String("output", "bin/hostler-image.tar", "where to write the docker archive")
	bin := flag.String("bin", "bin", "where to leave the binaries")
	tag := flag.String("tag", "localhost/hostler-dev/hostler:dev", "the image's name")
	version := flag.String("version", "dev", "version that the binaries report")
	race := flag.Bool("race", false, "build the agent with the race detector, for tests")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := build(ctx, *out, *bin, *tag, *version, *race); err != nil {
		fmt.Fprintln(os.Stderr, "image:", err)
		os.Exit(1)
	}
}

func build(ctx context.Context, out, bin, tag, version string, race bool) error {
	files := map[string]string{} // path in the image → path here
	for _, p := range programs {
		path := filepath.Join(bin, p.name)
		if err := compile(ctx, p, path, version, race); err != nil {
			return err
		}
		files["usr/bin/"+p.name] = path
	}
	libs, err := cLibrary(ctx, filepath.Join(bin, "hostler"))
	if err != nil {
		return err
	}
	for _, lib := range libs {
		files[strings.TrimPrefix(lib, "/")] = lib
	}
	layer, err := layerOf(files)
	if err != nil {
		return err
	}
	return write(layer, out, tag, version)
}

func compile(ctx context.Context, p program, path, version string, race bool) error {
	cgo := "0"
	if p.cgo {
		cgo = "1"
	}
	started := time.Now()
	// grpcnotrace leaves out a debugging page of gRPC's that nobody serves. It is made
	// of html/template, which looks methods up by name, so that the linker would have to
	// keep every method of every type: a third of the agent (grpc's trace_notrace.go).
	args := []string{"build", "-trimpath", "-tags", "grpcnotrace", "-ldflags", "-s -w -X main.version=" + version, "-o", path}
	if race && p.name == "hostler" {
		args = append(args, "-race")
	}
	cmd := exec.CommandContext(ctx, "go", append(args, p.pkg)...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED="+cgo)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("building %s from %s: %w", p.name, p.pkg, err)
	}
	fmt.Printf("built %-16s %5.1f s\n", p.name, time.Since(started).Seconds())
	return nil
}

// cLibrary lists the agent's shared objects and the ones that NVIDIA's
// libraries link against (ldd of libnvidia-ml.so.1: libc, libm, libdl,
// libpthread, librt), which since glibc 2.34 are small files beside libc.
func cLibrary(ctx context.Context, binary string) ([]string, error) {
	ldd, err := exec.CommandContext(ctx, "ldd", binary).Output()
	if err != nil {
		return nil, fmt.Errorf("asking ldd what %s needs: %w", binary, err)
	}
	var libs []string
	for line := range strings.Lines(string(ldd)) {
		for _, field := range strings.Fields(line) {
			if strings.HasPrefix(field, "/") {
				libs = append(libs, field)
			}
		}
	}
	var dir string
	for _, lib := range libs {
		if strings.HasPrefix(filepath.Base(lib), "libc.so") {
			dir = filepath.Dir(lib)
		}
	}
	if dir == "" {
		return nil, fmt.Errorf("%s is not linked against a C library, so it could not load NVML: build it with CGO_ENABLED=1 and gcc installed", binary)
	}
	for _, also := range []string{"libm.so.6", "libdl.so.2", "libpthread.so.0", "librt.so.1"} {
		libs = append(libs, filepath.Join(dir, also))
	}
	sort.Strings(libs)
	return libs, nil
}

// layerOf makes one reproducible layer: sorted entries, no owners, no times.
func layerOf(files map[string]string) (v1.Layer, error) {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	dirs := map[string]bool{}
	paths := make([]string, 0, len(files))
	for path := range files {
		paths = append(paths, path)
		for d := filepath.Dir(path); d != "."; d = filepath.Dir(d) {
			dirs[d] = true
		}
	}
	// Mount points that the chart expects, since the root is read-only.
	for _, d := range []string{"dev", "proc", "sys", "tmp", "etc/hostler", "driver-root", "var/run/cdi", "var/run/nri", "var/run/netns",
		"var/lib/hostler", "run/hostler", "var/lib/kubelet", "opt/cni/bin", "etc", "var", "var/run", "var/lib", "run", "opt", "opt/cni"} {
		dirs[d] = true
	}
	sortedDirs := make([]string, 0, len(dirs))
	for d := range dirs {
		sortedDirs = append(sortedDirs, d)
	}
	sort.Strings(sortedDirs)
	sort.Strings(paths)
	for _, d := range sortedDirs {
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: d + "/", Mode: 0o755}); err != nil {
			return nil, err
		}
	}
	for _, path := range paths {
		content, err := os.ReadFile(files[path])
		if err != nil {
			return nil, fmt.Errorf("adding %s to the image: %w", path, err)
		}
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: path, Mode: 0o755, Size: int64(len(content))}); err != nil {
			return nil, err
		}
		if _, err := w.Write(content); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(buf.Bytes())), nil })
}

func write(layer v1.Layer, out, tag, version string) error {
	img, err := mutate.AppendLayers(empty.Image, layer)
	if err != nil {
		return err
	}
	config, err := img.ConfigFile()
	if err != nil {
		return err
	}
	config = config.DeepCopy()
	config.Architecture, config.OS = runtime.GOARCH, "linux"
	config.Config = v1.Config{
		Entrypoint: []string{"/usr/bin/hostler"},
		Env:        []string{"PATH=/usr/bin"},
		Labels:     map[string]string{"org.opencontainers.image.version": version},
	}
	if img, err = mutate.ConfigFile(img, config); err != nil {
		return err
	}
	ref, err := name.NewTag(tag)
	if err != nil {
		return fmt.Errorf("--tag %q is not an image name: %w", tag, err)
	}
	if err := os.MkdirAll(filepath.Dir(out), 0o755); err != nil {
		return err
	}
	if err := tarball.WriteToFile(out, ref, img); err != nil {
		return fmt.Errorf("writing the image to %s: %w", out, err)
	}
	stat, err := os.Stat(out)
	if err != nil {
		return err
	}
	fmt.Printf("image %s: %s (%d MiB)\n", tag, out, stat.Size()>>20)
	return nil
}
