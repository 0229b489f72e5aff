// The kubelet waits for an answer for 45 seconds (draClientTimeout in its plugin
// client) and throws away what comes later, for all claims of the call. So the
// driver answers before that: what is done is answered as done, and of the rest it
// says that the work goes on, which the kubelet's next call then waits for.

package driver

import (
	"context"
	"errors"
	"time"
)

// callLimit is how long a call takes at most where the caller has set no limit itself.
const callLimit = 40 * time.Second

// answerTime is what is left of a caller's time for the answer's way back.
const answerTime = 5 * time.Second

var errCallLimit = errors.New("the kubelet waits no longer for an answer")

// limited ends before the caller stops to wait.
func limited(ctx context.Context) (context.Context, context.CancelFunc) {
	limit := callLimit
	if deadline, ok := ctx.Deadline(); ok {
		left := time.Until(deadline)
		limit = min(limit, left-min(answerTime, left/8))
	}
	return context.WithTimeoutCause(ctx, limit, errCallLimit)
}
