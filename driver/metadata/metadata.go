// Package metadata writes, for each request of a prepared claim, the file from
// which the programs of a pod learn what they were given: names, attributes and
// addresses of their devices (KEP-5304).
//
// The file has the form that k8s.io/dynamic-resource-allocation documents in
// api/metadata and appears in containers under the path that is given there, so
// that its reader (devicemetadata) finds and understands it. Why the library's
// own writer does not write it: docs/decisions/0009.
package metadata

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/dynamic-resource-allocation/api/metadata"
	"k8s.io/dynamic-resource-allocation/api/metadata/install"
	"k8s.io/dynamic-resource-allocation/api/metadata/v1alpha1"
	"k8s.io/dynamic-resource-allocation/api/metadata/v1beta1"
	"k8s.io/dynamic-resource-allocation/devicemetadata"
	"k8s.io/dynamic-resource-allocation/resourceclaim"
)

// Content of one file: the claim, and one request of it with its devices. The
// generation is not the caller's business.
type Content = metadata.DeviceMetadata

// Directory holds the files, <claim UID>_<request>.json. The library goes by the
// claim's name instead, under which a new claim may come before the old one is
// undone, and makes directories, each of which costs a prepare as much as the file.
type Directory struct {
	path     string
	encoders []runtime.Encoder
}

// Neither UIDs nor the names of requests contain the separator.
const separator, suffix = "_", ".json"

// New makes nothing on disk. Path must be the same for the container runtime.
func New(path string) (*Directory, error) {
	codecs := serializer.NewCodecFactory(install.NewScheme())
	info, ok := runtime.SerializerInfoForMediaType(codecs.SupportedMediaTypes(), runtime.ContentTypeJSON)
	if !ok {
		return nil, errors.New("the API machinery has no serializer for JSON")
	}
	// Newest first: a reader takes the first version that it knows.
	return &Directory{path: path, encoders: []runtime.Encoder{
		codecs.EncoderForVersion(info.PrettySerializer, v1beta1.SchemeGroupVersion),
		codecs.EncoderForVersion(info.PrettySerializer, v1alpha1.SchemeGroupVersion),
	}}, nil
}

// File is the path of a request's file on the host. Of a subrequest it is the
// request that counts.
func (d *Directory) File(claim types.UID, request string) string {
	return filepath.Join(d.path, string(claim)+separator+resourceclaim.BaseRequestRef(request)+suffix)
}

// ContainerFile is its path in containers of a claim that was made from the
// template podClaim, the pod's own name for it, or is named claim itself if that is "".
func ContainerFile(driver, podClaim, claim, request string) string {
	request = resourceclaim.BaseRequestRef(request)
	if podClaim != "" {
		return metadata.ResourceClaimTemplateFilePath(driver, podClaim, request)
	}
	return metadata.ResourceClaimFilePath(driver, claim, request)
}

// Document is the content of a request's file in the form that is written.
type Document struct {
	directory *Directory
	content   *Content
	// first is that of generation 1.
	first []byte
}

// Encode makes the document. The content must not be changed after that.
func (d *Directory) Encode(content *Content) (*Document, error) {
	first, err := d.encode(content, 1)
	return &Document{d, content, first}, err
}

// in is the document in a generation, of which there is none before the first.
func (o *Document) in(generation int64) ([]byte, error) {
	if generation <= 1 {
		return o.first, nil
	}
	return o.directory.encode(o.content, generation)
}

// Ensure makes the request's file say what the document says. It reports whether it
// had to write; then the generation is one more than before.
func (o *Document) Ensure() (written bool, err error) {
	file := o.directory.file(o.content)
	have, generation := o.directory.read(file)
	want, err := o.in(generation)
	if err != nil {
		return false, err
	}
	if bytes.Equal(have, want) {
		return false, nil
	}
	if generation > 0 {
		if want, err = o.in(generation + 1); err != nil {
			return false, err
		}
	}
	if err := write(file, want, have == nil); err != nil {
		return false, fmt.Errorf("write the metadata of request %s: %w; check free space and permissions of %s", o.content.Requests[0].Name, err, o.directory.path)
	}
	return true, nil
}

// Verify fails unless the request's file says what the document says, in any generation.
func (o *Document) Verify() error {
	file := o.directory.file(o.content)
	if raw, err := os.ReadFile(file); err == nil && bytes.Equal(raw, o.first) {
		return nil // as most are, and need not be decoded to see it
	}
	have, generation := o.directory.read(file)
	want, err := o.in(generation)
	if err != nil {
		return err
	}
	if !bytes.Equal(have, want) {
		return fmt.Errorf("the metadata file %s differs from what was written; something else writes to this directory", file)
	}
	return nil
}

// Ensure is as of the content's document.
func (d *Directory) Ensure(content *Content) (written bool, err error) {
	document, err := d.Encode(content)
	if err != nil {
		return false, err
	}
	return document.Ensure()
}

// Verify is as of the content's document.
func (d *Directory) Verify(content *Content) error {
	document, err := d.Encode(content)
	if err != nil {
		return err
	}
	return document.Verify()
}

// Read decodes a request's file.
func (d *Directory) Read(claim types.UID, request string) (*Content, error) {
	raw, err := os.ReadFile(d.File(claim, request))
	if err != nil {
		return nil, fmt.Errorf("read the metadata of request %s: %w", request, err)
	}
	content := &Content{}
	if err := devicemetadata.DecodeMetadataFromStream(json.NewDecoder(bytes.NewReader(raw)), content); err != nil {
		return nil, fmt.Errorf("the metadata file %s is damaged: %w", d.File(claim, request), err)
	}
	return content, nil
}

// Remove deletes the claim's files. It is no error if there are none.
func (d *Directory) Remove(claim types.UID) error {
	names, err := d.names()
	if err != nil {
		return err
	}
	for _, name := range names {
		if of, _, _ := strings.Cut(strings.TrimPrefix(name, "."), separator); of != string(claim) {
			continue
		}
		if err := os.Remove(filepath.Join(d.path, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove the metadata of claim %s: %w", claim, err)
		}
	}
	return nil
}

// List returns the claims that have files, sorted.
func (d *Directory) List() ([]types.UID, error) {
	names, err := d.names()
	if err != nil {
		return nil, err
	}
	var claims []types.UID
	for _, name := range names {
		claim, _, ours := strings.Cut(name, separator)
		if ours && !strings.HasPrefix(name, ".") {
			claims = append(claims, types.UID(claim))
		}
	}
	return slices.Compact(claims), nil
}

// names of all files, sorted; none if there is no directory that could hold one.
func (d *Directory) names() ([]string, error) {
	files, err := os.ReadDir(d.path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENOTDIR) {
		return nil, fmt.Errorf("list the metadata of claims: %w", err)
	}
	var names []string
	for _, file := range files {
		names = append(names, file.Name())
	}
	return names, nil
}

func (d *Directory) file(content *Content) string {
	return d.File(content.UID, content.Requests[0].Name)
}

// read returns nil for a file that is missing, and the generation 0 for that and one that is damaged.
func (d *Directory) read(file string) (raw []byte, generation int64) {
	raw, err := os.ReadFile(file)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, 0
		}
		return []byte{}, 0 // what cannot be read is written anew, and that error tells why not
	}
	var first struct {
		Metadata struct {
			Generation int64 `json:"generation"`
		} `json:"metadata"`
	}
	if err := json.NewDecoder(bytes.NewReader(raw)).Decode(&first); err != nil {
		return raw, 0
	}
	return raw, first.Metadata.Generation
}

// encode makes the stream: one object for each version.
func (d *Directory) encode(content *Content, generation int64) ([]byte, error) {
	object := *content
	object.Generation = generation
	var stream bytes.Buffer
	for _, encoder := range d.encoders {
		if err := encoder.Encode(&object, &stream); err != nil {
			return nil, fmt.Errorf("encode the metadata of request %s: %w", content.Requests[0].Name, err)
		}
		stream.WriteByte('\n')
	}
	return stream.Bytes(), nil
}

// write puts data in place of whatever file says: a reader sees the old file or
// the new one. Containers that run keep the one that was mounted into them. One
// that is not there yet has no readers, as no CDI spec leads to it before it was
// read back. Neither is synced to disk: what is lost there is written anew.
func write(file string, data []byte, isNew bool) error {
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	if isNew {
		return os.WriteFile(file, data, 0o644)
	}
	temporary := filepath.Join(filepath.Dir(file), "."+filepath.Base(file)+".tmp")
	if err := os.WriteFile(temporary, data, 0o644); err != nil {
		return errors.Join(err, os.RemoveAll(temporary))
	}
	return os.Rename(temporary, file)
}
