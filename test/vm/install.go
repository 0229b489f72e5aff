package vm

// What must be on the machine before anything boots: QEMU 10 or newer and the
// small tools that make an initramfs are installed with apt; a kernel is
// downloaded and unpacked into the cache, never installed, so that the machine's
// own boot is not touched. Apt gets a folder of its own for sources
// and lists. With everything in place apt is not called at all.

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"k8s.io/klog/v2"
)

const (
	qemuBinary     = "qemu-system-x86_64"
	qemuPackage    = "qemu-system-x86"
	oldestQEMU     = 10
	kernelPackage  = "linux-image-amd64" // names the newest generic kernel; the cloud kernel has no igb
	unpackedMarker = ".complete"
)

// tools are the binaries that an initramfs is made with or of, and their packages.
var tools = map[string]string{
	"busybox": "busybox-static", "ip": "iproute2", "rdma": "iproute2",
	"modprobe": "kmod", "depmod": "kmod", "xz": "xz-utils", "dpkg": "dpkg",
	"ibv_rc_pingpong": "ibverbs-utils",
}

// verbsProvider is how libibverbs drives rdma_rxe: a library that it loads by name and a
// file that tells it to.
const (
	verbsProvider        = "/usr/lib/*/libibverbs/librxe-*.so"
	verbsProviderFile    = "/etc/libibverbs.d/rxe.driver"
	verbsProviderPackage = "ibverbs-providers"
)

// kernel is an unpacked kernel package.
type kernel struct {
	release string // "6.12.57+deb12-amd64"
	dir     string // holds boot and lib (or usr/lib)
	image   string // boot/vmlinuz-<release>
}

// cacheDir is the folder of what is kept between runs.
func cacheDir() (string, error) {
	base, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("finding a folder for the kernel (set XDG_CACHE_HOME or HOME): %w", err)
	}
	dir := filepath.Join(base, "hostler", "vm")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("making the cache folder: %w", err)
	}
	return dir, nil
}

// lock takes a file lock that other test processes respect, and returns what releases it.
func lock(ctx context.Context, path string) (func(), error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("opening the cache's lock: %w", err)
	}
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { f.Close() }, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			f.Close()
			return nil, fmt.Errorf("locking %s: %w", path, err)
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, fmt.Errorf("waiting for another process that holds %s: %w", path, ctx.Err())
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// install returns the kernel and QEMU's path, getting what is missing.
func install(ctx context.Context, cache string) (kernel, string, error) {
	var packages []string
	for tool, pkg := range tools {
		if _, err := exec.LookPath(tool); err != nil {
			packages = append(packages, pkg)
		}
	}
	if found, err := filepath.Glob(verbsProvider); err != nil || len(found) == 0 {
		packages = append(packages, verbsProviderPackage)
	}
	qemu, err := findQEMU(ctx)
	if err != nil {
		packages = append(packages, qemuPackage)
	}
	slices.Sort(packages)
	packages = slices.Compact(packages)
	found, ok := newestKernel(cache)
	if ok && len(packages) == 0 {
		return found, qemu, nil
	}

	apt, err := newApt(ctx)
	if err != nil {
		return kernel{}, "", fmt.Errorf("this machine lacks %s: %w", missing(packages, ok), err)
	}
	defer apt.close()
	logger := klog.FromContext(ctx)
	if len(packages) > 0 {
		logger.Info("Installing packages for the emulated machine", "packages", packages)
		if err := apt.install(ctx, packages); err != nil {
			return kernel{}, "", err
		}
		if qemu, err = findQEMU(ctx); err != nil {
			return kernel{}, "", err
		}
	}
	if !ok {
		logger.Info("Downloading a kernel for the emulated machine", "cache", cache)
		if found, err = unpackKernel(ctx, apt, cache); err != nil {
			return kernel{}, "", err
		}
	}
	return found, qemu, nil
}

func missing(packages []string, haveKernel bool) string {
	if !haveKernel {
		packages = append(packages, kernelPackage)
	}
	return strings.Join(packages, ", ")
}

var qemuVersion = regexp.MustCompile(`version (\d+)\.`)

// findQEMU returns the path of a QEMU that is new enough.
func findQEMU(ctx context.Context) (string, error) {
	path, err := exec.LookPath(qemuBinary)
	if err != nil {
		return "", fmt.Errorf("looking for QEMU: %w", err)
	}
	out, err := exec.CommandContext(ctx, path, "--version").Output()
	if err != nil {
		return "", fmt.Errorf("asking %s for its version: %w", path, err)
	}
	match := qemuVersion.FindSubmatch(out)
	if match == nil {
		return "", fmt.Errorf("%s --version says no version: %q", path, out)
	}
	if major, err := strconv.Atoi(string(match[1])); err != nil || major < oldestQEMU {
		return "", fmt.Errorf("%s is version %s; %d or newer is needed", path, match[1], oldestQEMU)
	}
	return path, nil
}

// newestKernel finds an unpacked kernel in the cache.
func newestKernel(cache string) (kernel, bool) {
	complete, err := filepath.Glob(filepath.Join(cache, "*", unpackedMarker))
	if err != nil || len(complete) == 0 {
		return kernel{}, false
	}
	newest := filepath.Dir(complete[0])
	for _, c := range complete[1:] {
		if info, err := os.Stat(c); err == nil {
			if best, err := os.Stat(filepath.Join(newest, unpackedMarker)); err == nil && info.ModTime().After(best.ModTime()) {
				newest = filepath.Dir(c)
			}
		}
	}
	release := filepath.Base(newest)
	return kernel{release: release, dir: newest, image: filepath.Join(newest, "boot", "vmlinuz-"+release)}, true
}

// unpackKernel downloads the newest kernel package and unpacks it beside the others.
func unpackKernel(ctx context.Context, apt *apt, cache string) (kernel, error) {
	pkg, err := apt.download(ctx, kernelPackage, "linux-image-")
	if err != nil {
		return kernel{}, err
	}
	staging, err := os.MkdirTemp(cache, "unpacking-")
	if err != nil {
		return kernel{}, fmt.Errorf("making a folder for the kernel: %w", err)
	}
	defer os.RemoveAll(staging)
	if err := os.Chmod(staging, 0o755); err != nil {
		return kernel{}, err
	}
	if _, err := output(exec.CommandContext(ctx, "dpkg", "-x", pkg, staging)); err != nil {
		return kernel{}, fmt.Errorf("unpacking the kernel: %w", err)
	}
	images, err := filepath.Glob(filepath.Join(staging, "boot", "vmlinuz-*"))
	if err != nil || len(images) != 1 {
		return kernel{}, fmt.Errorf("%s holds %d kernel images, one was expected", filepath.Base(pkg), len(images))
	}
	release := strings.TrimPrefix(filepath.Base(images[0]), "vmlinuz-")
	if _, err := output(exec.CommandContext(ctx, "depmod", "-b", staging, release)); err != nil {
		return kernel{}, fmt.Errorf("indexing the modules of kernel %s: %w", release, err)
	}
	if err := os.WriteFile(filepath.Join(staging, unpackedMarker), nil, 0o644); err != nil {
		return kernel{}, fmt.Errorf("marking kernel %s as unpacked: %w", release, err)
	}
	dir := filepath.Join(cache, release)
	if err := os.RemoveAll(dir); err != nil {
		return kernel{}, fmt.Errorf("removing an incomplete kernel: %w", err)
	}
	if err := os.Rename(staging, dir); err != nil {
		return kernel{}, fmt.Errorf("keeping kernel %s: %w", release, err)
	}
	return kernel{release: release, dir: dir, image: filepath.Join(dir, "boot", "vmlinuz-"+release)}, nil
}

// output runs a command; its error carries what the command wrote to stderr.
func output(cmd *exec.Cmd) ([]byte, error) {
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, bytes.TrimSpace(stderr.Bytes()))
	}
	return out, nil
}
