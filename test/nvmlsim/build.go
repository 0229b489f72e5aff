// Package nvmlsim is a driver for GPUs that do not exist: a libnvidia-ml.so.1 in
// C (src/) that any NVML program loads like NVIDIA's, and whose GPUs are a
// folder of small text files. This package compiles it (Build) and writes those
// files for tests (Control); README.md has the recipes for a shell.
package nvmlsim

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strings"
)

//go:embed src
var sources embed.FS

// headerModule brings the nvml.h that the simulator implements.
const headerModule = "github.com/NVIDIA/go-nvml"

var compile = []string{
	"-shared", "-fPIC", "-O2", "-std=gnu17", "-Wall", "-Wextra", "-Werror", "-Wno-deprecated-declarations",
	"-fvisibility=hidden", "-DNVML_NO_UNVERSIONED_FUNC_DEFS",
}

// Build compiles the simulator into dir, unless it is there already, and
// returns the library's path. An empty dir is a folder in the user's cache.
// Install the library as <root>/usr/lib64/libnvidia-ml.so.1: it is steered by
// the files in <root>/nvmlsim.
func Build(dir string) (string, error) {
	return build(dir, "libnvidia-ml", "-Wl,-soname,libnvidia-ml.so.1")
}

// BuildOldDriver compiles a library like that of an old driver, which lacks
// the NVML calls, event types and fields that came late (see NewerSymbols).
func BuildOldDriver(dir string) (string, error) {
	return build(dir, "libnvidia-ml-old", "-Wl,-soname,libnvidia-ml.so.1", "-DNVMLSIM_OLD_DRIVER")
}

// NewerSymbols are the symbols that BuildOldDriver's library does not have.
func NewerSymbols() []string {
	return []string{
		"nvmlDeviceGetAddressingMode", "nvmlDeviceGetPciInfoExt", "nvmlDeviceGetTemperatureV",
		"nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetGpuFabricInfoV",
		"nvmlDeviceGetGpuInstanceProfileInfoV", "nvmlDeviceGetGpuInstanceProfileInfoByIdV", "nvmlGpuInstanceGetComputeInstanceProfileInfoV",
		"nvmlGpuInstanceCreateComputeInstanceWithPlacement", "nvmlGpuInstanceGetComputeInstancePossiblePlacements",
	}
}

// BuildCUDA compiles an empty shared object to stand for libcuda.so.
func BuildCUDA(dir string) (string, error) {
	return build(dir, "libcuda", "-Wl,-soname,libcuda.so.1", "-DNVMLSIM_CUDA")
}

// build compiles once per content: the name of the file is the hash of all that goes into it.
func build(dir, name string, flags ...string) (string, error) {
	dir, err := cacheFolder(dir)
	if err != nil {
		return "", err
	}
	flags = append(append([]string{}, compile...), flags...)
	key, err := contentHash(flags)
	if err != nil {
		return "", err
	}
	library := filepath.Join(dir, name+"-"+key+".so")
	if _, err := os.Stat(library); err == nil {
		return library, nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("look for the NVML simulator: %w", err)
	}
	if err := compileTo(library, name == "libcuda", flags); err != nil {
		return "", err
	}
	return library, nil
}

func cacheFolder(dir string) (string, error) {
	if dir == "" {
		cache, err := os.UserCacheDir()
		if err != nil {
			return "", fmt.Errorf("find a folder for the NVML simulator: %w", err)
		}
		dir = filepath.Join(cache, "hostler", "nvmlsim")
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("make a folder for the NVML simulator: %w", err)
	}
	return dir, nil
}

func contentHash(flags []string) (string, error) {
	hash := sha256.New()
	fmt.Fprintln(hash, flags)
	// The header's version, where the binary knows it.
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, m := range info.Deps {
			if m.Path == headerModule {
				fmt.Fprintln(hash, m.Version)
			}
		}
	}
	err := fs.WalkDir(sources, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		content, err := sources.ReadFile(path)
		fmt.Fprintln(hash, path, len(content))
		hash.Write(content)
		return err
	})
	if err != nil {
		return "", fmt.Errorf("hash the NVML simulator's sources: %w", err)
	}
	return hex.EncodeToString(hash.Sum(nil))[:16], nil
}

// compileTo writes the library under another name first, so that test
// processes that build at the same time do not see half a file.
func compileTo(library string, stub bool, flags []string) error {
	work, err := os.MkdirTemp(filepath.Dir(library), "build-")
	if err != nil {
		return fmt.Errorf("build the NVML simulator: %w", err)
	}
	defer os.RemoveAll(work)
	var files []string
	if stub {
		files = []string{filepath.Join(work, "stub.c")}
		err = os.WriteFile(files[0], []byte("int cuInit(unsigned int flags) { (void)flags; return 100; /* CUDA_ERROR_NO_DEVICE */ }\n"), 0o644)
		flags = append(flags, "-fvisibility=default")
	} else {
		files, err = unpack(work)
	}
	if err != nil {
		return fmt.Errorf("build the NVML simulator: %w", err)
	}
	if !stub {
		include, err := headerFolder()
		if err != nil {
			return err
		}
		flags = append(flags, "-I"+include)
	}
	output := filepath.Join(work, "library.so")
	args := append(append(flags, "-o", output), files...)
	if said, err := exec.Command("gcc", append(args, "-ldl", "-lpthread")...).CombinedOutput(); err != nil {
		return fmt.Errorf("compile the NVML simulator with gcc (Debian package gcc): %w\n%s", err, said)
	}
	if err := os.Rename(output, library); err != nil {
		return fmt.Errorf("build the NVML simulator: %w", err)
	}
	return nil
}

func unpack(work string) (files []string, err error) {
	entries, err := sources.ReadDir("src")
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		content, err := sources.ReadFile("src/" + e.Name())
		if err != nil {
			return nil, err
		}
		path := filepath.Join(work, e.Name())
		if err := os.WriteFile(path, content, 0o644); err != nil {
			return nil, err
		}
		if strings.HasSuffix(path, ".c") {
			files = append(files, path)
		}
	}
	return files, nil
}

// headerFolder asks the go command, since the module cache's place is its business.
func headerFolder() (string, error) {
	said, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", headerModule).Output()
	if err != nil {
		return "", fmt.Errorf("find nvml.h: go list -m %s, from a folder of this module: %w", headerModule, err)
	}
	folder := filepath.Join(strings.TrimSpace(string(said)), "pkg", "nvml")
	if _, err := os.Stat(filepath.Join(folder, "nvml.h")); err != nil {
		return "", fmt.Errorf("find nvml.h (try go mod download %s): %w", headerModule, err)
	}
	return folder, nil
}
