package e2e

// Manifests, written the way a user writes them. A pod is named like its claim
// template, so that a scenario reads as pairs.

import (
	"fmt"
	"strings"
)

const testImage = "localhost/hostler-test/busybox:dev"

// template is a ResourceClaimTemplate with the given body of spec.devices.
func template(name, devices string) string {
	return fmt.Sprintf(`apiVersion: resource.k8s.io/v1
kind: ResourceClaimTemplate
metadata: {name: %s}
spec:
  spec:
    devices:
%s`, name, indent(devices, 6))
}

// claim is a ResourceClaim that several pods can use.
func claim(name, devices string) string {
	return fmt.Sprintf("apiVersion: resource.k8s.io/v1\nkind: ResourceClaim\nmetadata: {name: %s}\nspec:\n  devices:\n%s", name, indent(devices, 4))
}

// request asks for one device of a class; selectors are CEL expressions.
func request(name, class string, selectors ...string) string {
	text := fmt.Sprintf("- name: %s\n  exactly:\n    deviceClassName: %s\n", name, class)
	if len(selectors) > 0 {
		text += "    selectors:\n"
		for _, selector := range selectors {
			text += fmt.Sprintf("    - cel: {expression: %q}\n", selector)
		}
	}
	return text
}

func requests(list ...string) string { return "requests:\n" + strings.Join(list, "") }

// config attaches an opaque config, given as YAML, to a request.
func config(request, parameters string) string {
	return fmt.Sprintf("config:\n- requests: [%s]\n  opaque:\n    driver: hostler.dev\n    parameters:\n%s", request, indent(parameters, 6))
}

const samePCIeRoot = "constraints:\n- requests: [gpu, nic]\n  matchAttribute: resource.kubernetes.io/pcieRoot\n"

// nicConfig gives the pod's interface a name and an address.
func nicConfig(name, address string, more ...string) string {
	return fmt.Sprintf("apiVersion: hostler.dev/v1alpha1\nkind: NICConfig\ninterfaceName: %s\naddresses: [%s]\n%s", name, address, strings.Join(more, "\n"))
}

// pod runs script (default: sleep) and holds one claim made from the template
// of the same name, or none.
func pod(name, claimTemplate, script string) string {
	if claimTemplate == "" {
		return podWith(name, "", script)
	}
	return podWith(name, "resourceClaimTemplateName: "+claimTemplate, script)
}

// podWith takes the source of the claim as the pod's manifest has it, "resourceClaimName: shared".
func podWith(name, claimSource, script string) string {
	if script == "" {
		script = "exec sleep 1000000"
	}
	claims, use := "", ""
	if claimSource != "" {
		claims = fmt.Sprintf("  resourceClaims: [{name: claim, %s}]\n", claimSource)
		use = "    resources: {claims: [{name: claim}]}\n"
	}
	return fmt.Sprintf(`apiVersion: v1
kind: Pod
metadata: {name: %s}
spec:
  restartPolicy: Always
  terminationGracePeriodSeconds: 0
%s  containers:
  - name: main
    image: %s
    imagePullPolicy: Never
    command: [sh, -c, %q]
%s`, name, claims, testImage, script, use)
}

func indent(text string, by int) string {
	pad := strings.Repeat(" ", by)
	var b strings.Builder
	for line := range strings.Lines(strings.TrimRight(text, "\n")) {
		b.WriteString(pad + line)
	}
	return b.String() + "\n"
}
