#!/usr/bin/env bash
# Unit, property and network namespace tests of every package, with the race
# detector. The real cluster and the emulated machine have stages of their own.
set -euo pipefail
cd "$(dirname "$0")/.."
go vet ./...
exec go tool -modfile=test/tools/go.mod gotestsum --format pkgname -- -race -timeout 15m ./...
