package attach

// A claim's network that is to be its pod's default. What had been is on record before
// it is replaced, and is put back when the claim leaves a pod that lives on.

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/hostler-dev/hostler/netattach"
	"github.com/hostler-dev/hostler/netattach/link"
)

// setDefaultRoutes comes after the chains, which may have made the interfaces.
func (r *run) setDefaultRoutes(context.Context) error {
	for _, intent := range r.intents {
		for _, device := range intent.Devices {
			for _, network := range device.Networks {
				if len(network.DefaultRoute) == 0 {
					continue
				}
				name := cmp.Or(network.Interface, device.PodName)
				former, err := link.OtherDefaultRoutes(r.namespace.descriptor, name, network.DefaultRoute)
				if err != nil {
					return err
				}
				if err := r.recordFormer(intent, former); err != nil {
					return err
				}
				if err := link.SetDefaultRoute(r.namespace.descriptor, name, network.DefaultRoute); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// recordFormer adds to what is on record. To what an earlier attempt has replaced there
// is nothing to add when this one looks.
func (r *run) recordFormer(intent netattach.Intent, routes [][]byte) error {
	record, found, err := r.attacher.records.read(intent.ClaimUID, r.sandbox.Pod.UID)
	if err != nil {
		return err
	}
	if !found {
		return fmt.Errorf("the record of claim %s/%s was removed while it was attached; that is tried again", intent.ClaimNamespace, intent.ClaimName)
	}
	before := len(record.FormerRoutes)
	for _, route := range routes {
		if !slices.ContainsFunc(record.FormerRoutes, func(known []byte) bool { return bytes.Equal(known, route) }) {
			record.FormerRoutes = append(record.FormerRoutes, route)
		}
	}
	r.former[intent.ClaimUID] = record.FormerRoutes
	if len(record.FormerRoutes) == before {
		return nil
	}
	return r.attacher.records.write(record)
}

// restoreDefaultRoutes gives the pod's default route back to whom the claim took it from.
func restoreDefaultRoutes(ctx context.Context, record Record, in namespace) error {
	for _, device := range record.Intent.Devices {
		for _, network := range device.Networks {
			if len(network.DefaultRoute) == 0 || len(record.FormerRoutes) == 0 {
				continue
			}
			if err := link.RestoreDefaultRoutes(ctx, in.descriptor, cmp.Or(network.Interface, device.PodName), network.DefaultRoute, record.FormerRoutes); err != nil {
				return err
			}
		}
	}
	return nil
}
