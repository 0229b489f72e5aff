#!/usr/bin/env bash
# What can be found without running anything: formatting, go vet, shell syntax,
# warnings of the C compiler, and golangci-lint with the list in .golangci.yml.
# Every check runs; the exit status says whether one of them found something.
set -uo pipefail
cd "$(dirname "$0")/.."
failed=0
check() {
  local what=$1 start=$SECONDS
  shift
  if "$@"; then
    printf 'ok      %-14s %3d s\n' "$what" "$((SECONDS - start))"
  else
    printf 'FAILED  %-14s %3d s\n' "$what" "$((SECONDS - start))"
    failed=1
  fi
}

tracked() { git ls-files --cached --others --exclude-standard -- "$@" | while read -r f; do [ -f "$f" ] && echo "$f"; done; }

formatted() {
  local files
  files=$(tracked '*.go' | xargs gofmt -l) || return
  [ -z "$files" ] || { echo "not formatted; run gofmt -w on:"; echo "$files"; return 1; }
}

shell_syntax() {
  local file result=0
  while read -r file; do bash -n "$file" || result=1; done < <(tracked '*.sh')
  return $result
}

# Each translation unit as test/nvmlsim/build.go compiles it, without making anything.
c_warnings() {
  local headers file result=0
  local flags=(-fPIC -O2 -std=gnu17 -Wall -Wextra -Werror -Wno-deprecated-declarations -DNVML_NO_UNVERSIONED_FUNC_DEFS)
  headers=$(go list -m -f '{{.Dir}}' github.com/NVIDIA/go-nvml)/pkg/nvml || return
  while read -r file; do
    gcc "${flags[@]}" -I"$headers" -c -o /dev/null "$file" || result=1
  done < <(tracked '*.c')
  return $result
}

check gofmt formatted
check "go vet" go vet ./...
check "shell syntax" shell_syntax
check "C warnings" c_warnings
check golangci-lint go tool -modfile=test/tools/lint/go.mod golangci-lint run
exit $failed
