package apiserver

import (
	"errors"
	"strings"
	"testing"

	"github.com/go-logr/logr/funcr"
	resourceapi "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/klog/v2"
)

// An administrator who reads that the API server lacks a feature which it has would
// look in the wrong place.
func TestPolicyThatRefusesAPartIsNamedInTheLog(t *testing.T) {
	byPolicy := apierrors.NewForbidden(resourceapi.Resource("resourceslices"), "", errors.New("ValidatingAdmissionPolicy 'no-counters' denied request"))
	byPolicy.ErrStatus.Reason, byPolicy.ErrStatus.Code = metav1.StatusReasonInvalid, 422
	byPolicy.ErrStatus.Details.Causes = []metav1.StatusCause{{Message: "no counters here"}}
	byValidation := apierrors.NewInvalid(resourceapi.SchemeGroupVersion.WithKind("ResourceSlice").GroupKind(), "", field.ErrorList{field.Required(field.NewPath("spec", "devices"), "")})
	for _, test := range []struct {
		name   string
		answer error
		logged string
	}{
		{"a policy", byPolicy, "no-counters"},
		{"validation", byValidation, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			client := fake.NewClientset()
			client.PrependReactor("create", "resourceslices", func(action clienttesting.Action) (bool, runtime.Object, error) {
				slice := action.(clienttesting.CreateAction).GetObject().(*resourceapi.ResourceSlice)
				if len(slice.Spec.SharedCounters) > 0 {
					return true, nil, test.answer
				}
				return true, slice, nil
			})
			var log []string
			logger := funcr.New(func(_, args string) { log = append(log, args) }, funcr.Options{})
			features, err := Probe(klog.NewContext(t.Context(), logger), client, "node1")
			if err != nil || features.Counters || !features.Taints || !features.ListAttributes {
				t.Errorf("features are %+v, %v; want all but counters", features, err)
			}
			if all := strings.Join(log, "\n"); (all == "") != (test.logged == "") || !strings.Contains(all, test.logged) {
				t.Errorf("the log says %q, want %q", all, test.logged)
			}
		})
	}
}
