// Package apiserver finds out which optional parts of the resource API an API
// server has, so that the slices of this node hold nothing that it would drop
// or refuse.
//
// It asks instead of comparing versions: a feature gate may be on or off in any
// release, a downgrade or a restart changes it, and a vendor's version says
// little. Small ResourceSlices are created as a server-side dry run, which
// passes authorization, admission, defaulting, the dropping of disabled fields
// and validation like a real one, and stores nothing.
package apiserver

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	resourceapi "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/klog/v2"
	"k8s.io/utils/ptr"

	"github.com/hostler-dev/hostler/driver/publish"
)

// patience is how long a probe may take. A server without its database lets
// each request hang for half a minute.
const patience = 10 * time.Second

// question is about one optional part of the API, which the server has if it
// accepts every slice and the part is still there afterwards.
type question struct {
	part   string
	slices []resourceapi.ResourceSliceSpec
	holds  func(resourceapi.ResourceSliceSpec) bool
	// learn is told the answer, in the order of the questions.
	learn func(f *publish.Features, has bool)
}

// Probe asks the API server for its features, with the rights of the agent of
// that node. A part that comes back dropped, or that validation or a policy of the
// cluster refuses, is a feature that the server lacks. Anything else that goes wrong is an error,
// since it says nothing about features: a server that cannot be reached or is
// failing, one that forbids the agent its own slices, or does not serve resource.k8s.io/v1.
func Probe(ctx context.Context, client kubernetes.Interface, nodeName string) (publish.Features, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, fmt.Errorf("no answer within %s", patience))
	defer cancel()
	// A plain slice first: where not even that is accepted, refusals tell nothing.
	if _, err := dryRun(ctx, client, nodeName, resourceapi.ResourceSliceSpec{Devices: []resourceapi.Device{{Name: "probe"}}}); err != nil {
		return publish.Features{}, explain(err, nodeName)
	}
	var features publish.Features
	for _, q := range questions() {
		has, err := q.ask(ctx, client, nodeName)
		if err != nil {
			return publish.Features{}, explain(err, nodeName)
		}
		q.learn(&features, has)
	}
	return features, nil
}

func (q question) ask(ctx context.Context, client kubernetes.Interface, nodeName string) (has bool, err error) {
	logger := klog.FromContext(ctx)
	for _, spec := range q.slices {
		answer, err := dryRun(ctx, client, nodeName, spec)
		switch {
		case apierrors.IsInvalid(err) && !namesField(err):
			logger.Info("A policy of the cluster refuses a part of ResourceSlices; it is left out, as if the API server did not have it", "part", q.part, "reason", err.Error())
			return false, nil
		case apierrors.IsInvalid(err):
			logger.V(4).Info("The API server refuses a part of ResourceSlices", "part", q.part, "reason", err.Error())
			return false, nil
		case err != nil:
			return false, err
		case !q.holds(answer.Spec):
			logger.V(4).Info("The API server drops a part of ResourceSlices", "part", q.part)
			return false, nil
		}
	}
	return true, nil
}

// namesField tells the API server's validation, which names the field that it does
// not like, from a ValidatingAdmissionPolicy, whose refusal is of the same kind unless the policy
// says otherwise, but names none (k8s.io/apiserver, plugin/policy/validating/dispatcher.go).
func namesField(err error) bool {
	var status apierrors.APIStatus
	if !errors.As(err, &status) || status.Status().Details == nil {
		return false
	}
	return slices.ContainsFunc(status.Status().Details.Causes, func(cause metav1.StatusCause) bool { return cause.Field != "" })
}

// questions, each about one part alone, so that an answer has one meaning.
func questions() []question {
	var five []resourceapi.DeviceTaint
	for i := range 5 {
		five = append(five, resourceapi.DeviceTaint{Key: fmt.Sprintf("%s/probe-%d", publish.DriverName, i), Effect: resourceapi.DeviceTaintEffectNone})
	}
	counters := map[string]resourceapi.Counter{"probe": {Value: resource.MustParse("1")}}
	onlyDevice := func(device resourceapi.Device) []resourceapi.ResourceSliceSpec {
		device.Name = "probe"
		return []resourceapi.ResourceSliceSpec{{Devices: []resourceapi.Device{device}}}
	}
	device := func(holds func(resourceapi.Device) bool) func(resourceapi.ResourceSliceSpec) bool {
		return func(spec resourceapi.ResourceSliceSpec) bool { return len(spec.Devices) == 1 && holds(spec.Devices[0]) }
	}
	return []question{
		{
			part:   "taints",
			slices: onlyDevice(resourceapi.Device{Taints: []resourceapi.DeviceTaint{{Key: publish.DriverName + "/probe", Effect: resourceapi.DeviceTaintEffectNoSchedule}}}),
			holds:  device(func(d resourceapi.Device) bool { return len(d.Taints) == 1 }),
			learn:  func(f *publish.Features, has bool) { f.Taints = has },
		}, {
			// Kubernetes 1.34 takes four taints a device and no such effect.
			part:   "five taints, with the effect None",
			slices: onlyDevice(resourceapi.Device{Taints: five}),
			holds:  device(func(d resourceapi.Device) bool { return len(d.Taints) == len(five) }),
			learn:  func(f *publish.Features, has bool) { f.FewTaints = f.Taints && !has },
		}, {
			part: "shared counters in slices of their own",
			// Kubernetes 1.34 wants a counter set beside the devices that draw on it, 1.35
			// and later want it apart. We publish the later form only, so 1.34's
			// refusal of a set that is not in the same slice is the right answer.
			slices: []resourceapi.ResourceSliceSpec{
				{SharedCounters: []resourceapi.CounterSet{{Name: "probe", Counters: counters}}},
				{Devices: []resourceapi.Device{{Name: "probe", ConsumesCounters: []resourceapi.DeviceCounterConsumption{{CounterSet: "probe", Counters: counters}}}}},
			},
			holds: func(spec resourceapi.ResourceSliceSpec) bool {
				return len(spec.SharedCounters) == 1 || device(func(d resourceapi.Device) bool { return len(d.ConsumesCounters) == 1 })(spec)
			},
			learn: func(f *publish.Features, has bool) { f.Counters = has },
		}, {
			part:   "devices that are allocated more than once",
			slices: onlyDevice(resourceapi.Device{AllowMultipleAllocations: ptr.To(true)}),
			holds:  device(func(d resourceapi.Device) bool { return d.AllowMultipleAllocations != nil }),
			learn:  func(f *publish.Features, has bool) { f.SharedDevices = has },
		}, {
			part: "list attributes",
			// Without the values, the server sees an attribute without any and refuses it.
			slices: onlyDevice(resourceapi.Device{Attributes: map[resourceapi.QualifiedName]resourceapi.DeviceAttribute{
				publish.DriverName + "/probe": {IntValues: []int64{0, 1}},
			}}),
			holds: device(func(d resourceapi.Device) bool { return len(d.Attributes[publish.DriverName+"/probe"].IntValues) == 2 }),
			learn: func(f *publish.Features, has bool) { f.ListAttributes = has },
		},
	}
}

// dryRun has the server go through the motions of creating a slice. It is one of
// this driver and node, because that is what the agent has the right to create.
func dryRun(ctx context.Context, client kubernetes.Interface, nodeName string, spec resourceapi.ResourceSliceSpec) (*resourceapi.ResourceSlice, error) {
	spec.Driver, spec.NodeName = publish.DriverName, ptr.To(nodeName)
	spec.Pool = resourceapi.ResourcePool{Name: nodeName + "/probe", Generation: 1, ResourceSliceCount: 1}
	return client.ResourceV1().ResourceSlices().Create(ctx,
		&resourceapi.ResourceSlice{ObjectMeta: metav1.ObjectMeta{GenerateName: "hostler-probe-"}, Spec: spec},
		// Unknown fields are what is being asked about: no warning about them.
		metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}, FieldValidation: metav1.FieldValidationIgnore})
}

func explain(err error, nodeName string) error {
	const doing = "ask the API server which features of resource.k8s.io/v1 it has"
	switch {
	case apierrors.IsForbidden(err):
		return fmt.Errorf("%s: it forbids the agent to create ResourceSlices of node %s; allow its service account the verb create on resourceslices in resource.k8s.io, as the chart's ClusterRole does, and check admission webhooks and policies: %w", doing, nodeName, err)
	case apierrors.IsInvalid(err):
		return fmt.Errorf("%s: it refuses even a plain ResourceSlice of node %s; if a policy is named here, correct it, or nodeName in the agent's configuration: %w", doing, nodeName, err)
	case apierrors.IsNotFound(err):
		return fmt.Errorf("%s: it does not serve that API; it must be Kubernetes 1.34 or newer, without resource.k8s.io/v1 turned off in --runtime-config: %w", doing, err)
	}
	return fmt.Errorf("%s: %w", doing, err)
}
