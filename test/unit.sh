#!/usr/bin/env bash
# Unit, property and network namespace tests of every package, with the race
# detector. The real cluster and the emulated machine have stages of their own.
# Without it run those that it makes many times slower and that have nothing for it:
# what is published is worked out without goroutines, for hundreds of machines; and agents
# are killed at each of some thousand moments, of which it sees fewer.
set -euo pipefail
cd "$(dirname "$0")/.."
go vet ./...
sum() { go tool -modfile=test/tools/go.mod gotestsum --format pkgname -- -timeout 15m "$@"; }
pure=./driver/publish
mapfile -t racing < <(go list ./... | grep -vx "$(go list "$pure")")
failed=0
sum -race "${racing[@]}" || failed=1
sum "$pure" || failed=1
sum -run TestKilled ./driver/claim || failed=1
exit $failed
