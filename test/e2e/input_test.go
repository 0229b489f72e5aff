package e2e

// Bad input is answered in the pod's events: the field, the value, the remedy.

import (
	"fmt"
	"strings"
	"testing"
)

func TestBadClaimsAreExplained(t *testing.T) {
	for _, bad := range []struct{ name, class, parameters, want string }{
		{"unknown-kind", oneGPU, "apiVersion: hostler.dev/v1alpha1\nkind: GPUConfiguration", "GPUConfiguration"},
		{"unknown-field", "egress.hostler.dev", "apiVersion: hostler.dev/v1alpha1\nkind: EgressConfig\nalow: []", "alow"},
		{"wrong-prefix", "egress.hostler.dev", "apiVersion: hostler.dev/v1alpha1\nkind: EgressConfig\nallow: [{name: a, to: [{cidr: {cidr: 10.0.0.0/33}}], ports: [{port: 80}]}]", "10.0.0.0/33"},
		{"wrong-kind-for-device", oneGPU, "apiVersion: hostler.dev/v1alpha1\nkind: NICConfig", "NICConfig"},
	} {
		t.Run(bad.name, func(t *testing.T) {
			s := newScenario(t)
			s.apply(template("bad", requests(request("device", bad.class))+config("device", bad.parameters)), pod("bad", "bad", ""))
			s.eventually("the pod's events name what is wrong", func() error { return s.eventsContain("bad", bad.want) })
		})
	}
}

// eventsContain is nil once the object's events say want.
func (s *scenario) eventsContain(object, want string) error {
	if events := s.events(object); !strings.Contains(events, want) {
		return fmt.Errorf("no event of %s says %q:\n%s", object, want, events)
	}
	return nil
}
