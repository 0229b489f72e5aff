#!/usr/bin/env bash
# Every test, stage by stage, with one summary at the end. A failing stage does
# not hide the next one's result.
set -uo pipefail
cd "$(dirname "$0")/.."
stages=(test-unit test-e2e test-apiserver test-vm)
declare -A took result
failed=0
for stage in "${stages[@]}"; do
  echo; echo "=== make $stage"
  start=$SECONDS
  if make --no-print-directory "$stage"; then result[$stage]=passed; else result[$stage]=FAILED; failed=$((failed + 1)); fi
  took[$stage]=$((SECONDS - start))
done
echo; echo "=== summary"
for stage in "${stages[@]}"; do printf '%-14s %-7s %5d s\n' "$stage" "${result[$stage]}" "${took[$stage]}"; done
printf '%-14s %-7s %5d s\n' total "" "$SECONDS"
[ "$failed" -eq 0 ] || { echo "$failed of ${#stages[@]} stages failed; repeat one with the make command above"; exit 1; }
