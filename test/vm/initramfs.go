package vm

// The machine's root file system, in two archives that the kernel unpacks one
// after the other: a base with busybox, iproute2, the kernel's modules and init,
// made once and kept in the cache under a hash of what it is made from; and a
// small one per run with the program, its files and how to start it.

import (
	"bytes"
	"context"
	"crypto/sha256"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

//go:embed init.sh
var initScript []byte

// modules that init loads, besides what they depend on, with arguments for insmod.
var modules = []struct{ name, arguments string }{
	{"igb", ""}, {"igbvf", ""},
	// rdma_rxe looks crc32 up by name at run time, so its dependencies do not list it.
	{"crc32_generic", ""}, {"rdma_rxe", ""}, {"ib_uverbs", ""}, {"ib_umad", ""}, {"rdma_ucm", ""},
	{"vfio_iommu_type1", ""}, {"vfio-pci", ""},
	// Both would make a first device when they are loaded.
	{"bonding", "max_bonds=0"}, {"dummy", "numdummies=0"},
	{"8021q", ""}, {"bridge", ""}, {"macvlan", ""}, {"ipvlan", ""}, {"veth", ""}, {"vrf", ""},
	{"ifb", "numifbs=0"}, {"sch_tbf", ""}, {"sch_ingress", ""}, {"cls_u32", ""}, {"act_mirred", ""},
	{"nf_tables", ""}, {"nft_ct", ""}, {"nft_limit", ""}, {"nft_log", ""}, {"nft_reject_inet", ""}, {"nfnetlink_log", ""},
}

// module is a file to load, in the order in which to load it.
type module struct{ path, arguments string }

// buildInitramfs returns the base archive for a kernel, made if the cache has none of this content.
func buildInitramfs(ctx context.Context, k kernel) (string, error) {
	files, err := loadOrder(ctx, k)
	if err != nil {
		return "", err
	}
	binaries, err := toolFiles(ctx)
	if err != nil {
		return "", err
	}
	identity := sha256.New()
	identity.Write(initScript)
	fmt.Fprintln(identity, k.release, files)
	for _, target := range slices.Sorted(maps.Keys(binaries)) {
		info, err := os.Stat(binaries[target])
		if err != nil {
			return "", fmt.Errorf("reading a tool for the machine: %w", err)
		}
		fmt.Fprintln(identity, target, info.Size(), info.ModTime().UnixNano())
	}
	path := filepath.Join(k.dir, fmt.Sprintf("initramfs-%x.cpio", identity.Sum(nil)[:8]))
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	if err := removeOld(k.dir); err != nil {
		return "", err
	}
	return path, writeWhole(path, func(w io.Writer) error { return writeBase(ctx, w, files, binaries) })
}

// removeOld removes the base archives of earlier content.
func removeOld(dir string) error {
	old, err := filepath.Glob(filepath.Join(dir, "initramfs-*.cpio"))
	if err != nil {
		return err
	}
	for _, path := range old {
		if err := os.Remove(path); err != nil {
			return fmt.Errorf("removing an outdated initramfs: %w", err)
		}
	}
	return nil
}

// writeBase writes the base archive. It is not compressed: emulated, gunzip costs more than reading.
func writeBase(ctx context.Context, w io.Writer, files []module, binaries map[string]string) error {
	a := newArchive(w)
	a.add("init", modeProgram, initScript)
	for _, dir := range []string{"proc", "sys", "dev", "run", "tmp", "root", "etc"} {
		a.directory(dir)
	}
	for _, target := range slices.Sorted(maps.Keys(binaries)) {
		content, err := os.ReadFile(binaries[target])
		if err != nil {
			return fmt.Errorf("reading a tool for the machine: %w", err)
		}
		a.add(target, modeProgram, content)
	}
	var order strings.Builder
	for _, m := range files {
		content, err := readModule(ctx, m.path)
		if err != nil {
			return err
		}
		name := strings.TrimSuffix(filepath.Base(m.path), ".xz")
		a.add("modules/"+name, modeFile, content)
		fmt.Fprintln(&order, strings.TrimSpace(name+" "+m.arguments))
	}
	a.add("modules/order", modeFile, []byte(order.String()))
	return a.close()
}

// loadOrder lists the module files, each after those it depends on.
func loadOrder(ctx context.Context, k kernel) ([]module, error) {
	var files []module
	for _, wanted := range modules {
		shown, err := output(exec.CommandContext(ctx, "modprobe", "-d", k.dir, "-S", k.release, "-C", "/dev/null", "--show-depends", wanted.name))
		if err != nil {
			return nil, fmt.Errorf("kernel %s has no module %s: %w", k.release, wanted.name, err)
		}
		for line := range strings.Lines(string(shown)) {
			fields := strings.Fields(line) // "insmod <path>" or "builtin <name>"
			if len(fields) < 2 || fields[0] != "insmod" {
				continue
			}
			if slices.ContainsFunc(files, func(m module) bool { return m.path == fields[1] }) {
				continue
			}
			files = append(files, module{path: fields[1]})
			if name, _, _ := strings.Cut(filepath.Base(fields[1]), "."); name == wanted.name {
				files[len(files)-1].arguments = wanted.arguments
			}
		}
	}
	return files, nil
}

func readModule(ctx context.Context, path string) ([]byte, error) {
	if filepath.Ext(path) == ".xz" {
		content, err := output(exec.CommandContext(ctx, "xz", "-dc", path))
		if err != nil {
			return nil, fmt.Errorf("unpacking a module: %w", err)
		}
		return content, nil
	}
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading a module: %w", err)
	}
	return content, nil
}

// toolFiles maps paths in the machine to this machine's files: busybox, ip, rdma and
// a verbs program with the libraries that the dynamic linker would load for them.
func toolFiles(ctx context.Context) (map[string]string, error) {
	files := map[string]string{}
	wanted := map[string]string{strings.TrimPrefix(verbsProviderFile, "/"): verbsProviderFile}
	for tool, target := range map[string]string{"busybox": "bin/busybox", "ip": "opt/ip", "rdma": "opt/rdma", "ibv_rc_pingpong": "opt/ibv_rc_pingpong"} {
		path, err := exec.LookPath(tool)
		if err != nil {
			return nil, fmt.Errorf("looking for %s: %w", tool, err)
		}
		wanted[target] = path
	}
	providers, err := filepath.Glob(verbsProvider)
	if err != nil {
		return nil, err
	}
	for _, path := range providers {
		wanted[strings.TrimPrefix(path, "/")] = path
	}
	for target, path := range wanted {
		files[target] = path
		// ldd fails on a static binary and on text, which need nothing.
		listed, err := exec.CommandContext(ctx, "ldd", path).Output()
		if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
			return nil, fmt.Errorf("listing the libraries of %s: %w", path, err)
		}
		for line := range strings.Lines(string(listed)) {
			for _, field := range strings.Fields(line) {
				if strings.HasPrefix(field, "/") {
					files[strings.TrimPrefix(field, "/")] = field
				}
			}
		}
	}
	return files, nil
}

// writeInitrd concatenates the base archive and that of one run.
func writeInitrd(path, base string, opts Options) error {
	return writeWhole(path, func(w io.Writer) error {
		f, err := os.Open(base)
		if err != nil {
			return err
		}
		defer f.Close()
		if _, err := io.Copy(w, f); err != nil {
			return err
		}
		return writeRun(w, opts)
	})
}

// writeRun writes the archive of one run.
func writeRun(w io.Writer, opts Options) error {
	a := newArchive(w)
	program := "program"
	files := map[string]string{program: opts.TestBinary}
	for target, path := range opts.Files {
		if !filepath.IsLocal(target) || target == program || target == "run" {
			return fmt.Errorf("%q is no path for a file beside the program", target)
		}
		files[target] = path
	}
	for _, target := range slices.Sorted(maps.Keys(files)) {
		content, err := os.ReadFile(files[target])
		if err != nil {
			return err
		}
		mode := modeFile
		if info, err := os.Stat(files[target]); err == nil && (info.Mode()&0o111 != 0 || target == program) {
			mode = modeProgram
		}
		a.add(guestDir+"/"+target, mode, content)
	}
	a.add(guestDir+"/run", modeProgram, runScript(program, opts))
	return a.close()
}

// runScript is what init starts: the program with its environment and arguments.
func runScript(program string, opts Options) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "cd %s\n", guestDir)
	for _, entry := range append([]string{GuestEnv + "=1"}, opts.Env...) {
		fmt.Fprintf(&b, "export %s\n", quote(entry))
	}
	fmt.Fprintf(&b, "exec ./%s", program)
	for _, arg := range opts.Args {
		fmt.Fprintf(&b, " %s", quote(arg))
	}
	b.WriteString("\n")
	return b.Bytes()
}

// quote makes one word of a shell command of any text.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// writeWhole writes a file that is there with all its content or not at all.
func writeWhole(path string, write func(io.Writer) error) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".writing-")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	if err := write(f); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
