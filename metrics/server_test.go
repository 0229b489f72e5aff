package metrics

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestChecksNameWhatFails(t *testing.T) {
	passes := Check{"kubelet-plugin", func() error { return nil }}
	fails := Check{"slices", func() error { return errors.New("not published yet") }}
	for _, test := range []struct {
		name, path  string
		live, ready []Check
		status      int
		body        string
	}{
		{"ready", "/readyz", nil, []Check{passes}, 200, "[+]kubelet-plugin ok\ncheck passed\n"},
		{"not ready", "/readyz", nil, []Check{passes, fails}, 503, "[+]kubelet-plugin ok\n[-]slices failed: not published yet\ncheck failed\n"},
		{"alive though not ready", "/healthz", []Check{passes}, []Check{fails}, 200, "[+]kubelet-plugin ok\ncheck passed\n"},
		{"a path that is not served", "/debug", nil, nil, 404, "404 page not found\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			handler := Handler(ServerConfig{Page: http.NotFoundHandler(), Live: test.live, Ready: test.ready})
			recorder := httptest.NewRecorder()
			handler.ServeHTTP(recorder, httptest.NewRequest(http.MethodGet, test.path, nil))
			if recorder.Code != test.status || recorder.Body.String() != test.body {
				t.Errorf("%d %q, want %d %q", recorder.Code, recorder.Body, test.status, test.body)
			}
		})
	}
}

func TestServerServesAndStops(t *testing.T) {
	server, err := Listen(ServerConfig{Address: "127.0.0.1:0", Page: newBench(t)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- server.Run(ctx) }()
	response, err := http.Get("http://" + server.Address().String() + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	page, err := io.ReadAll(response.Body)
	if response.Body.Close(); err != nil || !strings.Contains(string(page), "hostler_claims_prepared 0") {
		t.Errorf("over the wire: %v\n%s", err, page)
	}
	if _, err := Listen(ServerConfig{Address: server.Address().String()}); err == nil || !strings.Contains(err.Error(), "metrics.address") {
		t.Errorf("a port that is taken: %v, want advice", err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Run ended with %v", err)
	}
}
