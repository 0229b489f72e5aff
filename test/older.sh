#!/usr/bin/env bash
# Builds a former version of the agent from the project's own history, for the scenario that
# goes back to it and forth again, and prints the directory that holds its image and its chart.
# Where the history is not at hand (a shallow clone, an unpacked archive) it prints nothing,
# and says so on standard error.
#
# The version is the last one before the journal got its slots (journal.recent). It knows nothing
# either of what attachments' records, claims' status and the chart's rights have said since; but it
# can be gone back to: it takes turns with another agent, and has versions of the journal.
set -euo pipefail
cd "$(dirname "$0")/.."
commit=70795ecf3ec6ef4df6cf98822e9fdb92cff121f8
out=$PWD/bin/older/$commit
if [ ! -e "$out/hostler-image.tar" ]; then
  if [ -e .git ] && ! git rev-parse --git-dir >/dev/null; then
    echo "older: git does not read this checkout, see above" >&2
    exit 1
  fi
  if ! git cat-file -e "$commit^{commit}" 2>/dev/null; then
    echo "older: commit $commit is not in this checkout; in the rolling update the agent is replaced by its own version" >&2
    exit 0
  fi
  # One at a time, and who has waited finds it built. The lock ends with its holder.
  mkdir -p "${out%/*}"
  exec 9>"${out%/*}/lock"
  flock 9
fi
if [ ! -e "$out/hostler-image.tar" ]; then
  echo "older: building the agent of commit $commit" >&2
  source=$(mktemp -d)
  trap 'rm -rf "$source"' EXIT
  git archive "$commit" go.mod go.sum api cmd deploy driver health metrics netattach topology | tar -x -C "$source"
  rm -rf "$out"
  mkdir -p "$out"
  cp -r "$source/deploy/chart" "$out/chart"
  # With the race detector, as the version that is tested: what both need is compiled once.
  (cd "$source" && go run ./deploy/image -race -output "$out/image.tmp" -bin "$source/bin" -tag localhost/hostler-dev/hostler:older -version "$commit") >&2
  mv "$out/image.tmp" "$out/hostler-image.tar"
fi
echo "$out"
