// Package multus runs the CNI chains of NetworkAttachmentDefinitions for a
// claimed network device, as Multus would, and writes what a Multus reads that
// does it itself.
//
// Resolve happens while a claim is prepared and talks to the API server; it
// yields a plain NetworkIntent with the device ID in it, if the pod gets the device
// itself and not a child of it. Chain runs it when the sandbox is there, by libcni: ADD
// once the device is up in the pod, or in the place of its move where the chain
// takes the device from the host itself (Brings); DEL when the pod goes, on every
// failure, and from what is kept on disk after a restart.
package multus

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/containernetworking/cni/libcni"
	nadv1 "github.com/k8snetworkplumbingwg/network-attachment-definition-client/pkg/apis/k8s.cni.cncf.io/v1"

	"github.com/hostler-dev/hostler/netattach"
)

// Definitions gets NetworkAttachmentDefinitions, from the API server or a cache.
type Definitions interface {
	Get(ctx context.Context, namespace, name string) (*nadv1.NetworkAttachmentDefinition, error)
}

// mostBytes of a spec.config. Chains have some hundred bytes; a claim's are kept in the
// agent's journal and in its memory.
const mostBytes = 64 << 10

// Resolve completes what is wanted of a definition with its configuration, which
// Chain runs. deviceID, a PCI address, is put into every plugin of the chain, as
// Multus does, because each may ask for it (sriov, rdma, tuning). With "" they are told of none.
func Resolve(ctx context.Context, definitions Definitions, wanted netattach.NetworkIntent, deviceID string) (netattach.NetworkIntent, error) {
	namespace, name := wanted.Namespace, wanted.Name
	definition, err := definitions.Get(ctx, namespace, name)
	if err != nil {
		return wanted, fmt.Errorf("cannot get NetworkAttachmentDefinition %s/%s: %w; check that it exists in that namespace", namespace, name, err)
	}
	if definition.Spec.Config == "" {
		return wanted, fmt.Errorf("NetworkAttachmentDefinition %s/%s has no spec.config; a chain that lies in a file of the node is not supported, put it into spec.config", namespace, name)
	}
	if size := len(definition.Spec.Config); size > mostBytes {
		return wanted, fmt.Errorf("NetworkAttachmentDefinition %s/%s: spec.config has %d bytes, more than the %d that a chain can have here; shorten it, or split it into several definitions", namespace, name, size, mostBytes)
	}
	if wanted.Config, err = withDevice([]byte(definition.Spec.Config), name, deviceID); err != nil {
		return wanted, fmt.Errorf("NetworkAttachmentDefinition %s/%s: spec.config is not a CNI configuration: %w", namespace, name, err)
	}
	if err := checkOrder(wanted); err != nil {
		return wanted, err
	}
	return wanted, checkWishes(wanted)
}

// withDevice makes a list of a single plugin's configuration, names it and
// gives each plugin the device ID, if there is one, under both names that plugins know.
func withDevice(config []byte, name, deviceID string) ([]byte, error) {
	var list map[string]any
	if err := json.Unmarshal(config, &list); err != nil {
		return nil, err
	}
	if list == nil {
		return nil, fmt.Errorf("it is null")
	}
	if list["name"] == nil || list["name"] == "" {
		list["name"] = name
	}
	if _, isList := list["plugins"]; !isList {
		single := list
		list = map[string]any{"name": single["name"], "plugins": []any{single}}
		for _, field := range []string{"cniVersion", "cniVersions"} {
			if single[field] != nil {
				list[field] = single[field]
			}
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
		if deviceID != "" {
			fields["deviceID"], fields["pciBusID"] = deviceID, deviceID
		}
	}
	written, err := json.Marshal(list)
	if err != nil {
		return nil, err
	}
	_, err = libcni.NetworkConfFromBytes(written)
	return written, err
}

// checkOrder refuses a plugin that takes the device once others ran: whether a chain
// takes it the agent tells by the first.
func checkOrder(network netattach.NetworkIntent) error {
	list, err := libcni.NetworkConfFromBytes(network.Config)
	if err != nil {
		return err
	}
	for i, plugin := range list.Plugins {
		if i > 0 && moves(plugin) {
			return fmt.Errorf("NetworkAttachmentDefinition %s/%s has plugin %s at position %d of its chain, where it would move the device without the agent knowing of it; a plugin that takes the device into the pod must be the first of spec.config", network.Namespace, network.Name, plugin.Network.Type, i+1)
		}
	}
	return nil
}

// checkWishes refuses what the chain would not heed. libcni hands a wish to the
// plugins that declare the capability, and where none does to nobody (CNI
// conventions, "Dynamic Plugin specific fields"), without a word.
func checkWishes(network netattach.NetworkIntent) error {
	list, err := libcni.NetworkConfFromBytes(network.Config)
	if err != nil {
		return err
	}
	for _, wish := range []struct {
		capability string
		made       bool
	}{{"ips", len(network.IPs) > 0}, {"mac", network.MAC != ""}} {
		declares := func(plugin *libcni.PluginConfig) bool { return plugin.Network.Capabilities[wish.capability] }
		if wish.made && !slices.ContainsFunc(list.Plugins, declares) {
			return fmt.Errorf("NetworkAttachmentDefinition %s/%s has no plugin with the capability %q, so the chain would not heed the %s that the NICConfig asks for; add \"capabilities\": {%q: true} to the plugin in spec.config that assigns it, or leave it out of the NICConfig", network.Namespace, network.Name, wish.capability, wish.capability, wish.capability)
		}
	}
	if Brings(network) && network.Interface != "" {
		return fmt.Errorf("NetworkAttachmentDefinition %s/%s begins with plugin %s, which takes the device itself into the pod; name the interface by interfaceName of the NICConfig, not of the network", network.Namespace, network.Name, list.Plugins[0].Network.Type)
	}
	return nil
}

// Brings reports whether the chain takes the device from the host itself, rather
// than work upon it in the pod.
func Brings(network netattach.NetworkIntent) bool {
	list, err := libcni.NetworkConfFromBytes(network.Config)
	if err != nil || len(list.Plugins) == 0 {
		return false // what is wrong is said when it is run
	}
	return moves(list.Plugins[0])
}

// Takes names the chain's first plugin, at any position, that takes the device, or its
// RDMA device, from the host; "" if there is none.
func Takes(network netattach.NetworkIntent) string {
	list, err := libcni.NetworkConfFromBytes(network.Config)
	if err != nil {
		return "" // what is wrong is said when it is run
	}
	for _, plugin := range list.Plugins {
		if moves(plugin) || plugin.Network.Type == "rdma" {
			return plugin.Network.Type
		}
	}
	return ""
}

// moves names the plugins that move the device of which they are told the ID.
func moves(plugin *libcni.PluginConfig) bool {
	return slices.Contains([]string{"host-device", "sriov", "ib-sriov", "accelerated-bridge"}, plugin.Network.Type)
}

// NetworkName is the name by which the chain's plugins know the network.
func NetworkName(network netattach.NetworkIntent) string {
	list, err := libcni.NetworkConfFromBytes(network.Config)
	if err != nil {
		return network.Name
	}
	return list.Name
}
