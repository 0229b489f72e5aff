package multus

// What is remembered of chains on disk. libcni writes an attachment into its cache when
// ADD has succeeded. The same is written there before ADD, marked as begun: a chain that
// a kill or a power failure cuts short, or one whose undoing fails, is found by it, and
// its DEL is run as often as it takes, by the next agent and after a reboot too. So
// nothing that an IPAM plugin gave away is forgotten.

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/utils"
	apitypes "k8s.io/apimachinery/pkg/types"
)

// begunArgument is the CNI argument of an attachment whose ADD is not known to have
// succeeded. Plugins are not told.
const begunArgument = "HOSTLER_BEGUN"

// begunPrefix is of files that are not complete, beside libcni's directory.
const begunPrefix = ".begun-"

// cacheFile is the form of libcni's files (libcni, cachedInfo).
type cacheFile struct {
	Kind           string         `json:"kind"`
	ContainerID    string         `json:"containerId"`
	Config         []byte         `json:"config"`
	IfName         string         `json:"ifName"`
	NetworkName    string         `json:"networkName"`
	NetNS          string         `json:"netns,omitempty"`
	CniArgs        [][2]string    `json:"cniArgs,omitempty"`
	CapabilityArgs map[string]any `json:"capabilityArgs,omitempty"`
}

func (c *Chain) results() string { return filepath.Join(c.cache, "results") }

// begin writes the attachment down as begun.
func (c *Chain) begin(list *libcni.NetworkConfigList, a Attachment) error {
	runtime := a.runtime()
	// As libcni does before it makes a file's name of these.
	for _, invalid := range []*types.Error{
		utils.ValidateContainerID(runtime.ContainerID), utils.ValidateNetworkName(list.Name), utils.ValidateInterfaceName(runtime.IfName),
	} {
		if invalid != nil {
			return fmt.Errorf("%s: %w", a, invalid)
		}
	}
	raw, err := json.Marshal(cacheFile{
		Kind: libcni.CNICacheV1, ContainerID: runtime.ContainerID, Config: list.Bytes, IfName: runtime.IfName, NetworkName: list.Name, NetNS: runtime.NetNS,
		CniArgs: append(slices.Clone(runtime.Args), [2]string{begunArgument, "1"}), CapabilityArgs: runtime.CapabilityArgs,
	})
	if err != nil {
		return fmt.Errorf("%s: %w", a, err)
	}
	name := fmt.Sprintf("%s-%s-%s", list.Name, runtime.ContainerID, runtime.IfName)
	if err := c.writeDurably(name, raw); err != nil {
		return fmt.Errorf("cannot write down that the CNI chain of %s is begun: %w; check paths.cniCache", a, err)
	}
	return nil
}

// writeDurably has the file there, whole, before anything is done that it tells of.
func (c *Chain) writeDurably(name string, content []byte) error {
	if err := os.MkdirAll(c.results(), 0o700); err != nil {
		return err
	}
	file, err := os.CreateTemp(c.cache, begunPrefix+"*")
	if err != nil {
		return err
	}
	_, err = file.Write(content)
	if err = errors.Join(err, file.Sync(), file.Close()); err == nil {
		err = os.Rename(file.Name(), filepath.Join(c.results(), name))
	}
	if err != nil {
		return errors.Join(err, os.Remove(file.Name()))
	}
	directory, err := os.Open(c.results())
	if err != nil {
		return err
	}
	return errors.Join(directory.Sync(), directory.Close())
}

// attachments are those of a sandbox, or all.
func (c *Chain) attachments(sandboxID string) ([]*libcni.NetworkAttachment, error) {
	attachments, err := c.cni.GetCachedAttachments(sandboxID)
	if err != nil {
		return nil, fmt.Errorf("cannot read the CNI cache: %w; check paths.cniCache", err)
	}
	return attachments, nil
}

// cached is what is remembered of an ADD, of whomever, nil if nothing.
func (c *Chain) cached(sandboxID, network, iface string) (*libcni.NetworkAttachment, error) {
	attachments, err := c.attachments(sandboxID)
	if err != nil {
		return nil, err
	}
	at := slices.IndexFunc(attachments, func(known *libcni.NetworkAttachment) bool { return known.Network == network && known.IfName == iface })
	if at < 0 {
		return nil, nil
	}
	return attachments[at], nil
}

// argument is the value of a CNI argument, "" if there is none.
func argument(known *libcni.NetworkAttachment, name string) string {
	for _, argument := range known.CniArgs {
		if argument[0] == name {
			return argument[1]
		}
	}
	return ""
}

// isBegun says that nobody knows how far ADD came.
func isBegun(known *libcni.NetworkAttachment) bool { return argument(known, begunArgument) != "" }

func podOf(known *libcni.NetworkAttachment) apitypes.UID {
	return apitypes.UID(argument(known, "K8S_POD_UID"))
}

// grace is how long a file may be incomplete because somebody is writing it.
const grace = time.Minute

// damaged names files of the cache that cannot be read, and so attachments that nobody
// can undo any more but by their records. It removes what writers left that were killed.
func (c *Chain) damaged() error {
	var faults []error
	for _, directory := range []string{c.cache, c.results()} {
		entries, err := os.ReadDir(directory)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			faults = append(faults, fmt.Errorf("cannot read the CNI cache: %w; check paths.cniCache", err))
		}
		for _, entry := range entries {
			stat, err := entry.Info()
			if err != nil || !stat.Mode().IsRegular() || time.Since(stat.ModTime()) < grace {
				continue
			}
			path := filepath.Join(directory, entry.Name())
			if directory == c.cache {
				if strings.HasPrefix(entry.Name(), begunPrefix) {
					faults = append(faults, os.Remove(path))
				}
				continue
			}
			if raw, err := os.ReadFile(path); err == nil && !isCacheFile(raw) {
				faults = append(faults, fmt.Errorf("CNI cache file %s is damaged: its name says of which network, sandbox and interface it is; once that sandbox is gone, see that nothing of it is left (addresses that IPAM plugins keep, interfaces on the node), and delete the file", path))
			}
		}
	}
	return errors.Join(faults...)
}

// isCacheFile is libcni's own condition.
func isCacheFile(raw []byte) bool {
	var file cacheFile
	return json.Unmarshal(raw, &file) == nil && file.Kind == libcni.CNICacheV1
}
