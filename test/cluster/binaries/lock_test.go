package binaries

import (
	"context"
	"errors"
	"strings"
	"testing"
)

func TestOneProcessAtATimeBuilds(t *testing.T) {
	cache := t.TempDir()
	unlock, err := lock(t.Context(), cache)
	if err != nil {
		t.Fatal(err)
	}
	impatient, end := context.WithCancelCause(t.Context())
	end(errors.New("no more time"))
	if _, err := lock(impatient, cache); err == nil || !strings.Contains(err.Error(), "another process that builds into "+cache) || !strings.Contains(err.Error(), "no more time") {
		t.Errorf("%v; want it refused while the other one builds", err)
	}
	next := make(chan error)
	go func() {
		unlock, err := lock(t.Context(), cache)
		if err == nil {
			unlock()
		}
		next <- err
	}()
	unlock()
	if err := <-next; err != nil {
		t.Error(err)
	}
}
