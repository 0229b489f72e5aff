// Package multus runs the CNI chain of a NetworkAttachmentDefinition for a
// claimed network device.
//
// Resolve happens while a claim is prepared and talks to the API server; it
// yields a plain NetworkIntent with the device ID in it. Chain runs it when the
// sandbox is there, by libcni: ADD after the device was moved in, DEL when the
// pod goes, on every failure, and from libcni's cache after a restart.
package multus

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/containernetworking/cni/libcni"
	nadv1 "github.com/k8snetworkplumbingwg/network-attachment-definition-client/pkg/apis/k8s.cni.cncf.io/v1"

	"github.com/hostler-dev/hostler/netattach"
)

// Definitions gets NetworkAttachmentDefinitions, from the API server or a cache.
type Definitions interface {
	Get(ctx context.Context, namespace, name string) (*nadv1.NetworkAttachmentDefinition, error)
}

// Resolve turns a definition into what Chain runs. deviceID, a PCI address, is
// put into every plugin of the chain, as Multus does, because each may ask for
// it (sriov, rdma, tuning).
func Resolve(ctx context.Context, definitions Definitions, namespace, name, deviceID string) (netattach.NetworkIntent, error) {
	definition, err := definitions.Get(ctx, namespace, name)
	if err != nil {
		return netattach.NetworkIntent{}, fmt.Errorf("cannot get NetworkAttachmentDefinition %s/%s: %w; check that it exists in that namespace", namespace, name, err)
	}
	if definition.Spec.Config == "" {
		return netattach.NetworkIntent{}, fmt.Errorf("NetworkAttachmentDefinition %s/%s has no spec.config; a chain that lies in a file of the node is not supported, put it into spec.config", namespace, name)
	}
	config, err := withDevice([]byte(definition.Spec.Config), name, deviceID)
	if err != nil {
		return netattach.NetworkIntent{}, fmt.Errorf("NetworkAttachmentDefinition %s/%s: spec.config is not a CNI configuration: %w", namespace, name, err)
	}
	return netattach.NetworkIntent{Namespace: namespace, Name: name, Config: config}, nil
}

// withDevice makes a list of a single plugin's configuration, names it and
// gives each plugin the device ID.
func withDevice(config []byte, name, deviceID string) ([]byte, error) {
	var list map[string]any
	if err := json.Unmarshal(config, &list); err != nil {
		return nil, err
	}
	if list == nil {
		return nil, fmt.Errorf("it is null")
	}
	if list["name"] == nil {
		list["name"] = name
	}
	if _, isList := list["plugins"]; !isList {
		list = map[string]any{"name": list["name"], "cniVersion": list["cniVersion"], "plugins": []any{list}}
		if list["cniVersion"] == nil {
			delete(list, "cniVersion")
		}
	}
	plugins, ok := list["plugins"].([]any)
	if !ok {
		return nil, fmt.Errorf("plugins is not a list")
	}
	for i, plugin := range plugins {
		fields, ok := plugin.(map[string]any)
		if !ok {
			return nil, fmt.Errorf("plugins[%d] is not an object", i)
		}
		fields["deviceID"] = deviceID
	}
	written, err := json.Marshal(list)
	if err != nil {
		return nil, err
	}
	_, err = libcni.NetworkConfFromBytes(written)
	return written, err
}
