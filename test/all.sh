#!/usr/bin/env bash
# Every test, stage by stage, with one summary at the end. A failing stage does
# not hide the next one's result. The emulated machine keeps one processor busy and
# the API servers mostly wait, so these two run side by side; what the machine
# prints is shown after them.
set -uo pipefail
cd "$(dirname "$0")/.."
stages=(test-unit test-e2e test-apiserver test-vm)
declare -A took result
failed=0

# stage runs one and notes how it went. Usage: stage NAME
stage() {
  local start=$SECONDS
  if make --no-print-directory "$1"; then result[$1]=passed; else result[$1]=FAILED; failed=$((failed + 1)); fi
  took[$1]=$((SECONDS - start))
}

for name in test-unit test-e2e; do echo; echo "=== make $name"; stage "$name"; done

aside=$(mktemp)
trap 'rm -f "$aside"' EXIT
echo; echo "=== make test-apiserver, and beside it make test-vm"
begin=$SECONDS
make --no-print-directory test-vm >"$aside" 2>&1 &
vm=$!
stage test-apiserver
if wait "$vm"; then result[test-vm]=passed; else result[test-vm]=FAILED; failed=$((failed + 1)); fi
took[test-vm]=$((SECONDS - begin))
echo; echo "=== make test-vm"; cat "$aside"

echo; echo "=== summary"
for name in "${stages[@]}"; do printf '%-14s %-7s %5d s\n' "$name" "${result[$name]}" "${took[$name]}"; done
printf '%-14s %-7s %5d s\n' total "" "$SECONDS"
[ "$failed" -eq 0 ] || { echo "$failed of ${#stages[@]} stages failed; repeat one with the make command above"; exit 1; }
