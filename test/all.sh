#!/usr/bin/env bash
# Every test, stage by stage, with one summary at the end. A failing stage does
# not hide the next one's result. Unit tests keep all processors busy. Pods and API
# servers mostly wait, and the emulated machine keeps one processor busy, so the cluster's
# scenarios run beside the other two; what these print is shown after them.
set -uo pipefail
cd "$(dirname "$0")/.."
stages=(test-unit test-e2e test-vm test-apiserver)
notes=$(mktemp -d)
trap 'rm -rf "$notes"' EXIT

# stage runs one and notes how it went. Usage: stage NAME
stage() {
  local start=$SECONDS result=passed
  make --no-print-directory "$1" || result=FAILED
  echo "$result $((SECONDS - start))" >"$notes/$1"
}

echo "=== make test-unit"; stage test-unit
echo; echo "=== make test-e2e, and beside it make test-vm and make test-apiserver"
for name in test-vm test-apiserver; do stage "$name" >"$notes/$name.log" 2>&1; done &
beside=$!
stage test-e2e
wait "$beside"
for name in test-vm test-apiserver; do echo; echo "=== make $name"; cat "$notes/$name.log"; done

echo; echo "=== summary"
failed=0
for name in "${stages[@]}"; do
  read -r result took <"$notes/$name"
  [ "$result" = passed ] || failed=$((failed + 1))
  printf '%-14s %-7s %5d s\n' "$name" "$result" "$took"
done
printf '%-14s %-7s %5d s\n' total "" "$SECONDS"
[ "$failed" -eq 0 ] || { echo "$failed of ${#stages[@]} stages failed; repeat one with the make command above"; exit 1; }
