#!/usr/bin/env bash
# Unit, property and network namespace tests of every package, with the race
# detector. The real cluster and the emulated machine have stages of their own.
# Killing agents at each of some thousand moments is too slow under the race detector,
# which sees the same code at fewer of them.
set -euo pipefail
cd "$(dirname "$0")/.."
go vet ./...
sum() { go tool -modfile=test/tools/go.mod gotestsum --format pkgname -- -timeout 15m "$@"; }
failed=0
sum -race ./... || failed=1
sum -run TestKilledAtEveryMoment ./driver/claim || failed=1
exit $failed
