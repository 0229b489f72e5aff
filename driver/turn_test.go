package driver

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
)

func held(t *testing.T, lock *StateLock, err error) *StateLock {
	t.Helper()
	if err != nil {
		t.Error(err)
		return &StateLock{}
	}
	return lock
}

func TestTurnsFollowEachOther(t *testing.T) {
	paths := pathsIn(t)
	shared, err := ShareState(t.Context(), paths)
	defer held(t, shared, err).Close()
	synctest.Test(t, func(t *testing.T) {
		first, err := TakeTurn(paths)
		held(t, first, err)
		if _, err := TakeTurn(paths); !errors.Is(err, ErrStateInUse) {
			t.Fatalf("a second turn at the same time: %v", err)
		}

		registered := make(chan struct{})
		turn := make(chan *StateLock)
		go func() {
			lock, err := AwaitTurn(t.Context(), paths, func() error {
				select {
				case <-registered:
					return nil
				default:
					return errors.New("not registered")
				}
			})
			turn <- held(t, lock, err)
		}()
		time.Sleep(time.Minute)
		if waits, err := SuccessorWaits(paths); waits || err != nil {
			t.Fatalf("a successor that is not registered asks for its turn: %v, %v", waits, err)
		}
		close(registered)
		if err := AwaitSuccessor(t.Context(), paths); err != nil {
			t.Fatal(err)
		}

		retired := make(chan *StateLock)
		go func() {
			lock, err := AwaitTurn(t.Context(), paths, nil)
			retired <- held(t, lock, err)
		}()
		time.Sleep(time.Minute)
		select {
		case <-turn:
			t.Fatal("a turn began before the other one ended")
		default:
		}
		must(t, first.Close())
		second := <-turn
		if waits, err := SuccessorWaits(paths); waits || err != nil {
			t.Errorf("the successor asks still, with its turn: %v, %v", waits, err)
		}
		time.Sleep(time.Minute)
		select {
		case <-retired:
			t.Fatal("the retired agent took over beside its successor")
		default:
		}
		must(t, second.Close()) // it died
		must(t, (<-retired).Close())
	})
}

func TestRetiredAgentLetsTheSuccessorGoFirst(t *testing.T) {
	paths := pathsIn(t)
	shared, err := ShareState(t.Context(), paths)
	defer held(t, shared, err).Close()
	synctest.Test(t, func(t *testing.T) {
		asked, err := lockState(paths, nextLock, unix.LOCK_EX)
		held(t, asked, err)
		retired := make(chan *StateLock, 1)
		go func() {
			lock, err := AwaitTurn(t.Context(), paths, nil)
			retired <- held(t, lock, err)
		}()
		time.Sleep(time.Minute)
		if len(retired) != 0 {
			t.Fatal("it took the turn that a successor had asked for")
		}
		must(t, asked.Close()) // the successor died before its turn
		must(t, (<-retired).Close())
	})
}

func TestWaitForATurnEndsWithItsContext(t *testing.T) {
	paths := pathsIn(t)
	shared, err := ShareState(t.Context(), paths)
	defer held(t, shared, err).Close()
	active, err := TakeTurn(paths)
	defer held(t, active, err).Close()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := AwaitTurn(ctx, paths, func() error { return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if waits, err := SuccessorWaits(paths); waits || err != nil {
		t.Errorf("it asks for its turn still: %v, %v", waits, err)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
