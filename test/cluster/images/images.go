// Package images makes the few container images that a test cluster needs, as
// docker archives without a container engine or a registry: busybox (from
// Debian's busybox-static) as the payload of test pods and as the sandbox's own
// image, and CoreDNS from the binary that the harness built. Archives are
// reproducible: the same inputs give the same bytes.
package images

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// The images' names. None has a registry behind it: pods must not pull.
const (
	Busybox = "localhost/hostler-test/busybox:dev"
	Pause   = "localhost/hostler-test/pause:dev"
	CoreDNS = "localhost/hostler-test/coredns:dev"
)

// WriteBusybox writes an archive of Busybox and Pause: every applet as a link, and a writable /tmp.
func WriteBusybox(archive, busybox string) error {
	applets, err := exec.Command(busybox, "--list").Output()
	if err != nil {
		return fmt.Errorf("ask %s for its applets: %w", busybox, err)
	}
	layer := newLayer()
	layer.directory("tmp", 0o1777)
	layer.directory("bin", 0o755)
	layer.directory("etc", 0o755)
	layer.file("etc/passwd", 0o644, []byte("root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n"))
	if err := layer.copy("bin/busybox", 0o755, busybox); err != nil {
		return err
	}
	for applet := range strings.FieldsSeq(string(applets)) {
		if applet != "busybox" {
			layer.link("bin/"+applet, "busybox")
		}
	}
	// As the first process in its PID namespace a shell ignores SIGTERM, and the kubelet would wait two seconds
	// before it kills the container, whatever the pod says (minimumGracePeriodInSeconds in pkg/kubelet/kuberuntime).
	config := v1.Config{Env: []string{"PATH=/bin"}, Cmd: []string{"/bin/sleep", "1000000000"}, StopSignal: "SIGKILL"}
	return layer.write(archive, config, Busybox, Pause)
}

// WriteCoreDNS writes an archive with the program as its only file.
func WriteCoreDNS(archive, program string) error {
	layer := newLayer()
	if err := layer.copy("coredns", 0o755, program); err != nil {
		return err
	}
	return layer.write(archive, v1.Config{Entrypoint: []string{"/coredns"}}, CoreDNS)
}

// layer collects one tar; the first error is kept and reported by write.
type layer struct {
	buffer bytes.Buffer
	tar    *tar.Writer
	err    error
}

func newLayer() *layer {
	l := &layer{}
	l.tar = tar.NewWriter(&l.buffer)
	return l
}

func (l *layer) add(header *tar.Header, content io.Reader) {
	if l.err != nil {
		return
	}
	if l.err = l.tar.WriteHeader(header); l.err == nil && content != nil {
		_, l.err = io.Copy(l.tar, content)
	}
}

func (l *layer) directory(path string, mode int64) {
	l.add(&tar.Header{Typeflag: tar.TypeDir, Name: path + "/", Mode: mode}, nil)
}

func (l *layer) file(path string, mode int64, content []byte) {
	l.add(&tar.Header{Typeflag: tar.TypeReg, Name: path, Mode: mode, Size: int64(len(content))}, bytes.NewReader(content))
}

func (l *layer) link(path, target string) {
	l.add(&tar.Header{Typeflag: tar.TypeSymlink, Name: path, Linkname: target, Mode: 0o777}, nil)
}

func (l *layer) copy(path string, mode int64, from string) error {
	content, err := os.ReadFile(from)
	if err != nil {
		return fmt.Errorf("read %s for an image: %w", from, err)
	}
	l.file(path, mode, content)
	return nil
}

func (l *layer) write(archive string, config v1.Config, names ...string) error {
	if err := l.tar.Close(); l.err == nil {
		l.err = err
	}
	if l.err != nil {
		return fmt.Errorf("write the layer of %s: %w", names[0], l.err)
	}
	open := func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(l.buffer.Bytes())), nil }
	// No compression: the archive is read once, on this machine.
	content, err := tarball.LayerFromOpener(open, tarball.WithCompressionLevel(0))
	if err != nil {
		return fmt.Errorf("make the layer of %s: %w", names[0], err)
	}
	image, err := mutate.AppendLayers(empty.Image, content)
	if err != nil {
		return fmt.Errorf("make the image %s: %w", names[0], err)
	}
	file, err := image.ConfigFile()
	if err != nil {
		return fmt.Errorf("read the config of %s: %w", names[0], err)
	}
	file = file.DeepCopy()
	file.OS, file.Architecture, file.Config = "linux", runtime.GOARCH, config
	if image, err = mutate.ConfigFile(image, file); err != nil {
		return fmt.Errorf("set the config of %s: %w", names[0], err)
	}
	return writeArchive(archive, image, names)
}

// writeArchive replaces the archive in one step, so that a reader never sees half of one.
func writeArchive(archive string, image v1.Image, names []string) error {
	refs := map[name.Reference]v1.Image{}
	for _, n := range names {
		tag, err := name.NewTag(n)
		if err != nil {
			return fmt.Errorf("image name %s: %w", n, err)
		}
		refs[tag] = image
	}
	temporary := filepath.Join(filepath.Dir(archive), "."+filepath.Base(archive))
	if err := tarball.MultiRefWriteToFile(temporary, refs); err != nil {
		return fmt.Errorf("write the image archive %s: %w", archive, err)
	}
	return os.Rename(temporary, archive)
}
