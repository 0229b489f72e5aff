#!/usr/bin/env bash
# Every test, stage by stage, with one summary at the end. A failing stage does
# not hide the next one's result. In the cluster's scenarios pods are often waited for, so
# these run beside all other stages, which take what they leave of the processors; what they
# print is shown after the others.
set -uo pipefail
cd "$(dirname "$0")/.."
stages=(test-unit test-vm test-apiserver test-e2e)
notes=$(mktemp -d)
trap 'rm -rf "$notes"' EXIT

# stage runs one and notes how it went. Usage: stage NAME [COMMAND THAT RUNS COMMANDS]
stage() {
  local name=$1 start=$SECONDS result=passed
  shift
  "$@" make --no-print-directory "$name" || result=FAILED
  echo "$result $((SECONDS - start))" >"$notes/$name"
}

stage test-e2e >"$notes/e2e.log" 2>&1 &
beside=$!
for name in test-unit test-vm test-apiserver; do echo; echo "=== make $name, beside make test-e2e"; stage "$name" nice; done
echo; echo "=== make test-e2e"
wait "$beside"
cat "$notes/e2e.log"

echo; echo "=== summary"
failed=0
for name in "${stages[@]}"; do
  result=FAILED took=0 # of a stage that did not live to say how it went
  read -r result took <"$notes/$name"
  [ "$result" = passed ] || failed=$((failed + 1))
  printf '%-14s %-7s %5d s\n' "$name" "$result" "$took"
done
printf '%-14s %-7s %5d s\n' total "" "$SECONDS"
[ "$failed" -eq 0 ] || { echo "$failed of ${#stages[@]} stages failed; repeat one with the make command above"; exit 1; }
