// The HTTP side: /metrics copies the page, /healthz and /readyz run the checks
// that the agent was wired with and name each one that fails.

package metrics

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"

	"k8s.io/klog/v2"
)

// Check is one condition of liveness or readiness.
type Check struct {
	// Name such as "kubelet-plugin".
	Name string
	// Run returns why the condition is not met. It must return at once.
	Run func() error
}

// ServerConfig is what a Server needs.
type ServerConfig struct {
	// Address to listen on, ":9484".
	Address string
	// Page serves /metrics.
	Page http.Handler
	// Live and Ready are the conditions behind /healthz and /readyz.
	Live, Ready []Check
}

// Server is the agent's HTTP side.
type Server struct {
	listener net.Listener
	http     http.Server
}

// Listen binds the address, so that a port that is taken is known before anything else starts.
func Listen(cfg ServerConfig) (*Server, error) {
	listener, err := net.Listen("tcp", cfg.Address)
	if err != nil {
		return nil, fmt.Errorf("listening for metrics on %q: %w; choose another metrics.address or stop what listens there", cfg.Address, err)
	}
	return &Server{listener: listener, http: http.Server{Handler: Handler(cfg), ReadHeaderTimeout: 5 * time.Second}}, nil
}

// Address that the server listens on.
func (s *Server) Address() net.Addr { return s.listener.Addr() }

// Run serves until ctx ends, then lets requests in flight finish.
func (s *Server) Run(ctx context.Context) error {
	drained := make(chan struct{})
	withdraw := context.AfterFunc(ctx, func() {
		defer close(drained)
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
		defer cancel()
		if err := s.http.Shutdown(grace); err != nil {
			klog.FromContext(ctx).Error(err, "A request to the metrics server outlived the shutdown")
		}
	})
	klog.FromContext(ctx).Info("Serving metrics and health", "address", s.listener.Addr().String())
	err := s.http.Serve(s.listener)
	if !withdraw() {
		<-drained
	}
	if !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serving metrics on %s: %w", s.listener.Addr(), err)
	}
	return nil
}

// Handler routes the three paths.
func Handler(cfg ServerConfig) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", cfg.Page)
	mux.Handle("GET /healthz", checked(cfg.Live))
	mux.Handle("GET /readyz", checked(cfg.Ready))
	return mux
}

// checked answers 200 if every check passes, else 503; the body has a line for
// each, in the manner of the Kubernetes API server.
func checked(checks []Check) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		var body strings.Builder
		status, verdict := http.StatusOK, "passed"
		for _, check := range checks {
			if err := check.Run(); err != nil {
				status, verdict = http.StatusServiceUnavailable, "failed"
				fmt.Fprintf(&body, "[-]%s failed: %v\n", check.Name, err)
				continue
			}
			fmt.Fprintf(&body, "[+]%s ok\n", check.Name)
		}
		fmt.Fprintf(&body, "check %s\n", verdict)
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.WriteHeader(status)
		// A client that went away is no concern of ours.
		_, _ = w.Write([]byte(body.String()))
	})
}

// These are assigned to header maps as they are, so that a scrape allocates nothing.
var (
	exposition = []string{"text/plain; version=0.0.4; charset=utf-8"}
	gzipped    = []string{"gzip"}
	varying    = []string{"Accept-Encoding"}
)

// ServeHTTP copies the newest page.
func (e *Exporter) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	p := e.page.Load()
	header := w.Header()
	header["Content-Type"], header["Vary"] = exposition, varying
	body, length := p.plain, p.plainLength
	if acceptsGzip(request) {
		if p.gzip != nil {
			body, length = p.gzip, p.gzipLength
			header["Content-Encoding"] = gzipped
		} else {
			e.gzipWanted.Store(true)
		}
	}
	header["Content-Length"] = length
	// A scraper that went away is no concern of ours.
	_, _ = w.Write(body)
}

// acceptsGzip reads Accept-Encoding as Prometheus and curl write it; "gzip;q=0" is honoured.
func acceptsGzip(request *http.Request) bool {
	for _, value := range request.Header["Accept-Encoding"] {
		for part := range strings.SplitSeq(value, ",") {
			coding, parameters, _ := strings.Cut(strings.TrimSpace(part), ";")
			if coding == "gzip" && strings.ReplaceAll(parameters, " ", "") != "q=0" {
				return true
			}
		}
	}
	return false
}
