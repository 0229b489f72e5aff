// The Recorder counts what the agent does: requests and their durations, by
// result. It implements the small observer interfaces that the driver and the
// attachment rooms declare. Each histogram's _count is the request counter.

package metrics

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// Recorder holds the agent's self-metrics. It is safe for concurrent use.
type Recorder struct {
	registry  *prometheus.Registry
	prepare   *prometheus.HistogramVec
	unprepare *prometheus.HistogramVec
	step      *prometheus.HistogramVec
	hook      *prometheus.HistogramVec
	publish   *prometheus.HistogramVec
	reconcile *prometheus.HistogramVec
	drift     *prometheus.GaugeVec
	mended    *prometheus.CounterVec
	xids      *prometheus.CounterVec
}

// NewRecorder makes a recorder with a registry of its own.
func NewRecorder() *Recorder {
	buckets := []float64{0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30}
	// Steps are many and mostly short.
	stepBuckets := []float64{0.0001, 0.0005, 0.001, 0.005, 0.02, 0.1, 0.5, 2, 10, 60}
	durations := func(buckets []float64, name, help string, labels ...string) *prometheus.HistogramVec {
		return prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: name, Help: help, Buckets: buckets,
		}, labels)
	}
	r := &Recorder{
		registry:  prometheus.NewRegistry(),
		prepare:   durations(buckets, "hostler_prepare_duration_seconds", "How long preparing one claim took, by result.", "result"),
		unprepare: durations(buckets, "hostler_unprepare_duration_seconds", "How long unpreparing one claim took, by result.", "result"),
		step:      durations(stepBuckets, "hostler_claim_step_duration_seconds", "How long one part of preparing (do, verify) or unpreparing (undo) a claim took, by step, phase and result. fetch is the claim's way from the API server, journal the disk's, status the way of what became of it to the API server, which nobody waits for.", "step", "phase", "result"),
		hook:      durations(buckets, "hostler_hook_duration_seconds", "How long a hook of the container runtime (NRI, gate) took, by hook and result.", "hook", "result"),
		publish:   durations(buckets, "hostler_publish_duration_seconds", "How long handing the node's resource slices over for publishing took, by result.", "result"),
		reconcile: durations(buckets, "hostler_reconcile_duration_seconds", "How long a reconciliation took, by what was reconciled and result.", "what", "result"),
		drift: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "hostler_reconcile_drift", Help: "What the last reconciliation of claims found not to be as it should and could not put right, by kind.",
		}, []string{"what"}),
		mended: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "hostler_reconcile_drift_total", Help: "What was not as the journal says and was put right, by reconciliation or a repeated prepare, by kind.",
		}, []string{"what"}),
		xids: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "hostler_xid_errors_total", Help: "XID errors that the driver reported, by device and number.",
		}, []string{"device", "xid"}),
	}
	r.registry.MustRegister(r.prepare, r.unprepare, r.step, r.hook, r.publish, r.reconcile, r.drift, r.mended, r.xids,
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), collectors.NewGoCollector())
	return r
}

// Register adds a collector of another room. Its error names the clashing metric.
func (r *Recorder) Register(c prometheus.Collector) error { return r.registry.Register(c) }

// ObservePrepare counts one prepared claim. Result is "ok" or a short word for the failure.
func (r *Recorder) ObservePrepare(result string, d time.Duration) {
	r.prepare.WithLabelValues(result).Observe(d.Seconds())
}

// ObserveUnprepare counts one unprepared claim.
func (r *Recorder) ObserveUnprepare(result string, d time.Duration) {
	r.unprepare.WithLabelValues(result).Observe(d.Seconds())
}

// ObserveStep counts one part of a claim's work.
func (r *Recorder) ObserveStep(step, phase, result string, d time.Duration) {
	r.step.WithLabelValues(step, phase, result).Observe(d.Seconds())
}

// ObserveHook counts one call of a runtime hook, such as "RunPodSandbox" or "gate".
func (r *Recorder) ObserveHook(hook, result string, d time.Duration) {
	r.hook.WithLabelValues(hook, result).Observe(d.Seconds())
}

// ObservePublish counts one hand-over of slices.
func (r *Recorder) ObservePublish(result string, d time.Duration) {
	r.publish.WithLabelValues(result).Observe(d.Seconds())
}

// ObserveReconcile counts one reconciliation.
func (r *Recorder) ObserveReconcile(what, result string, d time.Duration) {
	r.reconcile.WithLabelValues(what, result).Observe(d.Seconds())
}

// SetDrift says how much of one kind the last reconciliation could not put right.
// That kind's counter is there from then on, too.
func (r *Recorder) SetDrift(what string, found int) {
	r.drift.WithLabelValues(what).Set(float64(found))
	r.mended.WithLabelValues(what)
}

// CountDrift counts one difference that was put right.
func (r *Recorder) CountDrift(what string) { r.mended.WithLabelValues(what).Inc() }

// ObserveXID counts one XID error.
func (r *Recorder) ObserveXID(device string, code uint64) {
	r.xids.WithLabelValues(device, strconv.FormatUint(code, 10)).Inc()
}
