package vm

// Apt with sources and lists of its own, in a temporary folder: the machine's
// release and its backports, nothing else. What apt installs goes to the machine
// as usual; its configuration and lists stay as the administrator left them.

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
)

type apt struct {
	dir     string
	options []string
}

// newApt needs root and Debian; it reads the lists of the release and its backports.
func newApt(ctx context.Context) (*apt, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("installing packages needs root; run this once as root, or install them from Debian's backports")
	}
	osRelease, err := os.ReadFile("/etc/os-release")
	if err != nil {
		return nil, fmt.Errorf("reading which Debian this is: %w", err)
	}
	codename, err := debianCodename(string(osRelease))
	if err != nil {
		return nil, err
	}
	sources, err := readSources("/etc/apt")
	if err != nil {
		return nil, err
	}
	sources, err = withBackports(sources, codename)
	if err != nil {
		return nil, err
	}
	a := &apt{}
	if a.dir, err = os.MkdirTemp("", "hostler-apt-"); err != nil {
		return nil, fmt.Errorf("making a folder for apt: %w", err)
	}
	if err := a.setUp(ctx, sources, codename); err != nil {
		a.close()
		return nil, err
	}
	return a, nil
}

func (a *apt) setUp(ctx context.Context, sources []source, codename string) error {
	// Apt downloads as the user _apt, who must be able to enter the folder.
	if err := os.Chmod(a.dir, 0o755); err != nil {
		return err
	}
	for _, sub := range []string{"sources", "lists/partial"} {
		if err := os.MkdirAll(filepath.Join(a.dir, sub), 0o755); err != nil {
			return fmt.Errorf("making a folder for apt: %w", err)
		}
	}
	if err := os.WriteFile(filepath.Join(a.dir, "sources", "debian.sources"), []byte(format(sources)), 0o644); err != nil {
		return fmt.Errorf("writing apt's sources: %w", err)
	}
	for _, option := range []string{
		"Dir::Etc::SourceList=/dev/null",
		"Dir::Etc::SourceParts=" + filepath.Join(a.dir, "sources"),
		"Dir::State::Lists=" + filepath.Join(a.dir, "lists"),
		"Dir::Cache::pkgcache=", "Dir::Cache::srcpkgcache=",
		"APT::Default-Release=" + codename + "-backports",
		"Acquire::Languages=none",
		"Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false",
		"DPkg::Lock::Timeout=300",
	} {
		a.options = append(a.options, "-o", option)
	}
	if err := a.get(ctx, "update"); err != nil {
		return fmt.Errorf("reading the package lists of %s-backports: %w", codename, err)
	}
	return nil
}

func (a *apt) close() { os.RemoveAll(a.dir) }

func (a *apt) get(ctx context.Context, args ...string) error {
	cmd := exec.CommandContext(ctx, "apt-get", append(append([]string{"-q", "-y"}, a.options...), args...)...)
	cmd.Dir = a.dir
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
	_, err := output(cmd)
	return err
}

func (a *apt) install(ctx context.Context, packages []string) error {
	if err := a.get(ctx, append([]string{"install", "--no-install-recommends"}, packages...)...); err != nil {
		return fmt.Errorf("installing %s: %w", strings.Join(packages, ", "), err)
	}
	return nil
}

// download fetches the package that the given metapackage depends on and
// returns the path of its .deb file, which lives as long as a does.
func (a *apt) download(ctx context.Context, metapackage, prefix string) (string, error) {
	shown, err := output(exec.CommandContext(ctx, "apt-cache", append(append([]string{}, a.options...), "show", "--no-all-versions", metapackage)...))
	if err != nil {
		return "", fmt.Errorf("looking up %s: %w", metapackage, err)
	}
	match := regexp.MustCompile(`(?m)^Depends:.*?(` + prefix + `[^\s,(]+)`).FindSubmatch(shown)
	if match == nil {
		return "", fmt.Errorf("%s depends on no package called %s…: %s", metapackage, prefix, shown)
	}
	if err := a.get(ctx, "download", string(match[1])); err != nil {
		return "", fmt.Errorf("downloading %s: %w", match[1], err)
	}
	files, err := filepath.Glob(filepath.Join(a.dir, string(match[1])+"_*.deb"))
	if err != nil || len(files) != 1 {
		return "", fmt.Errorf("apt-get download %s left %d files, one was expected", match[1], len(files))
	}
	return files[0], nil
}

// readSources reads every enabled source for binary packages under etc.
func readSources(etc string) ([]source, error) {
	var all []source
	files := []string{filepath.Join(etc, "sources.list")}
	for _, pattern := range []string{"*.list", "*.sources"} {
		found, err := filepath.Glob(filepath.Join(etc, "sources.list.d", pattern))
		if err != nil {
			return nil, err
		}
		files = append(files, found...)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("reading apt's sources: %w", err)
		}
		if filepath.Ext(file) == ".sources" {
			all = append(all, parseStanzas(string(text))...)
		} else {
			all = append(all, parseLines(string(text))...)
		}
	}
	return all, nil
}

// debianCodename reads os-release(5).
func debianCodename(osRelease string) (string, error) {
	fields := map[string]string{}
	for line := range strings.Lines(osRelease) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok {
			fields[name] = strings.Trim(value, `"'`)
		}
	}
	if fields["ID"] != "debian" || fields["VERSION_CODENAME"] == "" {
		return "", fmt.Errorf("this machine runs %q, and the packages are known by their names in a Debian release", fields["PRETTY_NAME"])
	}
	return fields["VERSION_CODENAME"], nil
}
