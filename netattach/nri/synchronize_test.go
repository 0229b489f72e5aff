package nri

import (
	"context"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/nri/pkg/adaptation"
	"github.com/containerd/nri/pkg/api"

	"github.com/hostler-dev/hostler/netattach/attach"
)

// A hook has two seconds; what was begun for a sandbox of the list may take more.
func TestHookDoesNotWaitForASandboxOfTheList(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "nri.sock")
	runtime := startRuntime(t, socket, named("a"), named("b"))
	r := &recorder{calls: make(chan string, 16), hold: make(chan struct{})} // which nobody closes
	awaitHooks(t, startPlugin(t, socket, r), runtime)
	if got := next(t, r.calls); got != "reconcile" {
		t.Fatalf("called %q", got)
	}
	if err := runtime.StopPodSandbox(context.Background(), &adaptation.StopPodSandboxRequest{Pod: named("a")}); err != nil {
		t.Fatal(err)
	}
	// If its attachment had begun, its end is told, too, before or after.
	got := []string{next(t, r.calls)}
	if err := runtime.StopPodSandbox(context.Background(), &adaptation.StopPodSandboxRequest{Pod: named("b")}); err != nil {
		t.Fatal(err)
	}
	for len(got) < 2 || !slices.ContainsFunc(got, func(call string) bool { return strings.HasPrefix(call, "detach b") }) {
		got = append(got, next(t, r.calls))
	}
	if !slices.Contains(got, "detach a pod-of-a") {
		t.Errorf("calls: %q", got)
	}
}

// Word of an older sandbox's end comes late: its pod lives in another one.
func TestEndOfAnOlderSandboxLeavesTheListedOne(t *testing.T) {
	for name, test := range map[string]struct {
		tell func(*missed)
		left bool
	}{
		"nothing happens":                     {func(*missed) {}, true},
		"an older sandbox of the pod ends":    {func(m *missed) { m.supersede("pod-1", "sandbox-0", false) }, true},
		"the sandbox ends":                    {func(m *missed) { m.supersede("pod-1", "sandbox-1", false) }, false},
		"another sandbox of the pod begins":   {func(m *missed) { m.supersede("pod-1", "sandbox-2", true) }, false},
		"a sandbox of another pod begins":     {func(m *missed) { m.supersede("pod-2", "sandbox-3", true) }, true},
		"an older one ends, then it does too": {func(m *missed) { m.supersede("pod-1", "sandbox-0", false); m.supersede("pod-1", "sandbox-1", false) }, false},
	} {
		t.Run(name, func(t *testing.T) {
			var m missed
			listed := m.list([]*api.PodSandbox{pod()}, nil)
			test.tell(&m)
			attached := false
			if err := listed[0].unlessSuperseded(t.Context(), func(context.Context) error { attached = true; return nil }); err != nil || attached != test.left {
				t.Errorf("%v; attached: %t, want %t", err, attached, test.left)
			}
		})
	}
}

// Of a pod whose sandbox was replaced the runtime lists both until it has removed the
// old one. The pod that lives is not to be without its rules for that.
func TestPodsWithTwoSandboxes(t *testing.T) {
	for name, test := range map[string]struct {
		listed, running, want []string
	}{
		"one, of which nothing is known":   {[]string{"a"}, nil, []string{"a"}},
		"the later one runs":               {[]string{"a", "b"}, []string{"b"}, []string{"b"}},
		"the first one runs":               {[]string{"a", "b"}, []string{"a"}, []string{"a"}},
		"the last of three runs":           {[]string{"a", "b", "c"}, []string{"c"}, []string{"c"}},
		"the first of three runs":          {[]string{"a", "b", "c"}, []string{"a"}, []string{"a"}},
		"both run":                         {[]string{"a", "b"}, []string{"a", "b"}, nil},
		"neither is known to run":          {[]string{"a", "b"}, nil, nil},
		"two of three run, the last ones":  {[]string{"a", "b", "c"}, []string{"b", "c"}, nil},
		"two of three run, the outer ones": {[]string{"a", "b", "c"}, []string{"a", "c"}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			var pods []*api.PodSandbox
			for _, id := range test.listed {
				p := pod()
				p.Id = id
				pods = append(pods, p)
			}
			var running []attach.Sandbox
			for _, id := range test.running {
				running = append(running, attach.Sandbox{ID: id})
			}
			var m missed
			var got []string
			for _, s := range m.list(pods, running) {
				if err := s.unlessSuperseded(t.Context(), func(context.Context) error { got = append(got, s.ID); return nil }); err != nil {
					t.Fatal(err)
				}
			}
			if !slices.Equal(got, test.want) {
				t.Errorf("attached %v, want %v", got, test.want)
			}
		})
	}
}
