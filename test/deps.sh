#!/usr/bin/env bash
# Installs the Debian packages that building and testing need, if any is missing.
# Everything else (Kubernetes, containerd, CNI plugins, Helm) is built from Go modules.
# `deps.sh test` also installs what only tests need.
set -euo pipefail
packages=(gcc libc6-dev etcd-server runc nftables iproute2 busybox-static conntrack kmod procps util-linux)
[ "${1:-}" != test ] || packages+=(prometheus xz-utils)
missing=()
for p in "${packages[@]}"; do
  [ "$(dpkg-query -W -f '${db:Status-Status}' "$p" 2>/dev/null)" = installed ] || missing+=("$p")
done
[ ${#missing[@]} -eq 0 ] && exit 0
[ "$(id -u)" = 0 ] || { echo "deps: not root, and these packages are missing: ${missing[*]}. Run as root, or install them." >&2; exit 1; }
command -v apt-get >/dev/null || { echo "deps: no apt-get here, and these packages are missing: ${missing[*]}. Install them." >&2; exit 1; }
echo "deps: installing ${missing[*]}"
log=$(mktemp)
export DEBIAN_FRONTEND=noninteractive
# Debian starts services as it installs them; the testbed runs its own.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
  printf '#!/bin/sh\nexit 101\n' >"$policy"
  chmod +x "$policy"
  trap 'rm -f "$policy"' EXIT
fi
if ! { apt-get update -q && apt-get install -y -q --no-install-recommends "${missing[@]}"; } >"$log" 2>&1; then
  tail -n 20 "$log" >&2
  echo "deps: apt-get failed; its whole output is in $log" >&2
  exit 1
fi
rm -f "$log"
