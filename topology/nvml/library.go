// Finding and mapping libnvidia-ml.so.1. The library is opened by path under
// the driver root, so that the driver of the host (or of a driver container) is
// used and not whatever the agent's image might hold. It is pinned for the life of
// the process: go-nvml's calls bind lazily, once, to the addresses of the first
// mapping, and would jump into nothing if the library were unmapped and mapped anew.

package nvml

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/NVIDIA/go-nvml/pkg/dl"
)

const libraryName = "libnvidia-ml.so.1"

// requiredSymbols are what a Session calls without asking. All exist since
// driver 450 (2020); anything younger or rarer is optional.
var requiredSymbols = []string{
	"nvmlInit_v2", "nvmlShutdown", "nvmlErrorString", "nvmlSystemGetDriverVersion",
	"nvmlDeviceGetCount_v2", "nvmlDeviceGetHandleByIndex_v2", "nvmlDeviceGetPciInfo_v3", "nvmlDeviceGetUUID",
}

// libraryFolders are searched in this order: Red Hat and SUSE, Debian and
// Ubuntu, the rest, then the folders of GKE's and the GPU operator's driver containers.
func libraryFolders() []string {
	triplet := map[string]string{"amd64": "x86_64-linux-gnu", "arm64": "aarch64-linux-gnu"}[runtime.GOARCH]
	return []string{
		"usr/lib64", filepath.Join("usr/lib", triplet), "usr/lib", "lib64", filepath.Join("lib", triplet), "lib",
		"usr/local/nvidia/lib64", "usr/local/lib", "usr/lib/wsl/lib",
	}
}

// findLibrary returns the library's path: cfg.LibraryPath if given, else the
// first hit under cfg.DriverRoot, with symbolic links resolved inside that root.
func findLibrary(cfg Config) (string, error) {
	if cfg.LibraryPath != "" {
		if _, err := os.Stat(cfg.LibraryPath); err != nil {
			return "", libraryAbsent(err, cfg.LibraryPath)
		}
		return cfg.LibraryPath, nil
	}
	cfg.DriverRoot = cmp.Or(cfg.DriverRoot, "/")
	folders := libraryFolders()
	for _, folder := range folders {
		path, err := resolveInRoot(cfg.DriverRoot, filepath.Join(folder, libraryName))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return "", fmt.Errorf("look for NVML under driver root %s: %w; check the agent's permissions on it", cfg.DriverRoot, err)
		}
		return path, nil
	}
	return "", fmt.Errorf("%w: %s is in none of the folders %s under driver root %s; install the NVIDIA driver or set the driver root",
		ErrLibraryMissing, libraryName, strings.Join(folders, ", "), cfg.DriverRoot)
}

// installedLibrary identifies the library file of the moment without opening
// it, so that a driver that is installed or replaced is noticed by looking.
func installedLibrary(cfg Config) string {
	path, err := findLibrary(cfg)
	if err != nil {
		return ""
	}
	file, err := os.Stat(path)
	if err != nil {
		return ""
	}
	return fmt.Sprintf("%s %d %s", path, file.Size(), file.ModTime())
}

func libraryAbsent(err error, path string) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %s does not exist; install the NVIDIA driver or correct the library path", ErrLibraryMissing, path)
	}
	return fmt.Errorf("open the NVML library: %w; check the agent's permissions on it", err)
}

// resolveInRoot follows the file's symbolic links with absolute targets taken
// relative to root: Debian's alternatives link to /etc/alternatives/..., which inside
// the agent's container is another file than under the host's root.
func resolveInRoot(root, path string) (string, error) {
	for range 8 {
		full := filepath.Join(root, path)
		target, err := os.Readlink(full)
		if errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
		if err != nil { // not a link: EINVAL
			_, err = os.Stat(full)
			return full, err
		}
		if filepath.IsAbs(target) {
			path = target
		} else {
			path = filepath.Join(filepath.Dir(path), target)
		}
	}
	return "", fmt.Errorf("%s has too many levels of symbolic links", filepath.Join(root, path))
}

// pinned is the one NVML library of this process. It is a package variable
// because the thing it describes, the dynamic linker's table, is one per process too.
var pinned struct {
	sync.Mutex
	library *dl.DynamicLibrary
	file    os.FileInfo
	path    string
	// system is the lane of calls that concern the whole library. It outlives
	// sessions: while one nvmlInit hangs, no second one is sent after it.
	system *lane
}

// pinLibrary maps the library at path, or confirms that it is the one already
// mapped, and returns a lookup of its symbols and the lane of its system calls.
func pinLibrary(path string, timeout time.Duration) (has func(symbol string) bool, system *lane, err error) {
	pinned.Lock()
	defer pinned.Unlock()
	file, err := os.Stat(path)
	if err != nil {
		return nil, nil, libraryAbsent(err, path)
	}
	if pinned.library != nil && !sameLibrary(path, file) {
		return nil, nil, fmt.Errorf("%w: %s is mapped, the driver now installed has %s; restart the agent to use it", ErrLibraryReplaced, pinned.path, path)
	}
	library := pinned.library
	if library == nil {
		library = dl.New(path, dl.RTLD_LAZY|dl.RTLD_GLOBAL|dl.RTLD_NODELETE)
		if err := library.Open(); err != nil {
			return nil, nil, fmt.Errorf("load the NVML library %s: %w", path, err)
		}
		pinned.library, pinned.file, pinned.path, pinned.system = library, file, path, newLane("NVML", timeout)
	}
	has = func(symbol string) bool { return library.Lookup(symbol) == nil }
	for _, symbol := range requiredSymbols {
		if !has(symbol) {
			return nil, nil, fmt.Errorf("%w: %s lacks the function %s; Hostler needs NVIDIA driver 450 or newer", ErrLibraryTooOld, path, symbol)
		}
	}
	return has, pinned.system, nil
}

// sameLibrary: a driver container that restarts installs the same version anew,
// as another file of the same versioned name and size; the mapping serves it as well.
func sameLibrary(path string, file os.FileInfo) bool {
	if os.SameFile(pinned.file, file) {
		return true
	}
	name := filepath.Base(path)
	return name != libraryName && name == filepath.Base(pinned.path) && file.Size() == pinned.file.Size()
}
