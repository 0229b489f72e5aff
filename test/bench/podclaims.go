package main

// The claims of pods whose start is measured, as templates: a GPU, a NIC with an address
// on the fabric and an egress scope, all in one claim and fewer of them.

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	resourceapi "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/utils/ptr"
)

func templateFor(kinds []string) string { return strings.Join(kinds, "-") }

// claimTemplates makes one with all kinds of devices and those with fewer.
func (b *bed) claimTemplates(ctx context.Context) (remove func(context.Context) error, err error) {
	api := b.client.ResourceV1().ResourceClaimTemplates(namespace)
	var made []string
	remove = func(ctx context.Context) error {
		var faults []error
		for _, name := range made {
			faults = append(faults, api.Delete(ctx, name, metav1.DeleteOptions{}))
		}
		return errors.Join(faults...)
	}
	for _, kinds := range append(claimsOfFewer(), allKinds()) {
		template := claimTemplate(kinds)
		if _, err := api.Create(ctx, template, metav1.CreateOptions{}); err != nil {
			return nil, errors.Join(fmt.Errorf("make the claim template %s: %w", template.Name, err), remove(ctx))
		}
		made = append(made, template.Name)
	}
	return remove, nil
}

func claimTemplate(kinds []string) *resourceapi.ResourceClaimTemplate {
	var devices resourceapi.DeviceClaim
	for _, kind := range kinds {
		devices.Requests = append(devices.Requests, resourceapi.DeviceRequest{Name: kind, Exactly: &resourceapi.ExactDeviceRequest{DeviceClassName: kind + "." + driverName}})
		if parameters := map[string]string{
			"nic": `{"apiVersion": "hostler.dev/v1alpha1", "kind": "NICConfig", "interfaceName": "rdma0", "addresses": ["10.1.0.5/24"]}`,
			"egress": `{"apiVersion": "hostler.dev/v1alpha1", "kind": "EgressConfig", "kernelBypass": "Allow",
				"allow": [{"name": "api", "to": [{"cidr": {"cidr": "203.0.113.0/24"}}], "ports": [{"port": 443}]}]}`,
		}[kind]; parameters != "" {
			devices.Config = append(devices.Config, resourceapi.DeviceClaimConfiguration{Requests: []string{kind}, DeviceConfiguration: resourceapi.DeviceConfiguration{
				Opaque: &resourceapi.OpaqueDeviceConfiguration{Driver: driverName, Parameters: runtime.RawExtension{Raw: []byte(parameters)}},
			}})
		}
	}
	if slices.Contains(kinds, "gpu") && slices.Contains(kinds, "nic") {
		devices.Constraints = []resourceapi.DeviceConstraint{{Requests: []string{"gpu", "nic"}, MatchAttribute: ptr.To(resourceapi.FullyQualifiedName("resource.kubernetes.io/pcieRoot"))}}
	}
	return &resourceapi.ResourceClaimTemplate{
		ObjectMeta: metav1.ObjectMeta{Name: templateFor(kinds)},
		Spec:       resourceapi.ResourceClaimTemplateSpec{Spec: resourceapi.ResourceClaimSpec{Devices: devices}},
	}
}
