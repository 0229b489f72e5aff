#!/usr/bin/env bash
# Every test, stage by stage, with one summary at the end. A failing stage does
# not hide the next one's result. In the cluster's scenarios pods are mostly waited for, and
# the emulated machine keeps one processor busy, so these run one after the other beside the
# other stages, which take what they leave; what they print is shown after the others.
set -uo pipefail
cd "$(dirname "$0")/.."
stages=(test-unit test-apiserver test-e2e test-vm)
notes=$(mktemp -d)
trap 'rm -rf "$notes"' EXIT

# stage runs one and notes how it went. Usage: stage NAME [COMMAND THAT RUNS COMMANDS]
stage() {
  local name=$1 start=$SECONDS result=passed
  shift
  "$@" make --no-print-directory "$name" || result=FAILED
  echo "$result $((SECONDS - start))" >"$notes/$name"
}

beside=(test-e2e test-vm)
for name in "${beside[@]}"; do stage "$name" >"$notes/$name.log" 2>&1; done &
job=$!
for name in test-unit test-apiserver; do echo; echo "=== make $name, beside make ${beside[*]}"; stage "$name" nice; done
wait "$job"
for name in "${beside[@]}"; do echo; echo "=== make $name"; cat "$notes/$name.log"; done

echo; echo "=== summary"
failed=0
for name in "${stages[@]}"; do
  read -r result took <"$notes/$name"
  [ "$result" = passed ] || failed=$((failed + 1))
  printf '%-14s %-7s %5d s\n' "$name" "$result" "$took"
done
printf '%-14s %-7s %5d s\n' total "" "$SECONDS"
[ "$failed" -eq 0 ] || { echo "$failed of ${#stages[@]} stages failed; repeat one with the make command above"; exit 1; }
