#!/usr/bin/env bash
# Installs the Debian packages that building and testing need, if any is missing.
# Everything else (Kubernetes, containerd, CNI plugins, Helm) is built from Go modules.
set -euo pipefail
packages=(gcc libc6-dev etcd-server runc nftables iproute2 busybox-static conntrack kmod procps util-linux)
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
if ! { apt-get update -q && apt-get install -y -q --no-install-recommends "${missing[@]}"; } >"$log" 2>&1; then
  tail -n 20 "$log" >&2
  echo "deps: apt-get failed; its whole output is in $log" >&2
  exit 1
fi
rm -f "$log"
# Debian starts some services at once; the testbed runs its own.
for s in etcd prometheus; do systemctl disable --now "$s" >/dev/null 2>&1 || true; done
