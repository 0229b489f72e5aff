#!/usr/bin/env bash
# Builds the agent once more as a later version would be, one whose journal has entries that this
# version does not read: what it calls v2 that one calls v3. Prints the image's archive.
set -euo pipefail
cd "$(dirname "$0")/.."
out=$PWD/bin/later
file=driver/claim/journalconversion.go
mkdir -p "$out"
sed 's/version2 = "v2"/version2 = "v3"/' "$file" >"$out/journalconversion.txt"
if cmp -s "$file" "$out/journalconversion.txt"; then
  echo "later: $file does not name the journal's latest version v2 any more" >&2
  exit 1
fi
printf '{"Replace": {"%s": "%s"}}\n' "$PWD/$file" "$out/journalconversion.txt" >"$out/overlay.json"
GOFLAGS="${GOFLAGS:-} '-overlay=$out/overlay.json'" go run ./deploy/image -race -output "$out/hostler-image.tar" -bin "$out/bin" -tag localhost/hostler-dev/hostler:later -version later >&2
echo "$out/hostler-image.tar"
