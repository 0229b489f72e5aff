#!/bin/busybox sh
# Process 1 of the emulated machine. Loads the modules, gives every PF two VFs
# and the PFs and one VF a soft RoCE device, runs the program that the host
# packed, reports its exit status on ttyS2 and powers off. A failing step of the
# set-up is said on the console; the program then finds what is missing.
/bin/busybox --install -s /bin
# Busybox prefers its own ip applet to one in PATH, so the real one is called by its path.
export PATH=/opt:/bin HOME=/ TMPDIR=/tmp
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /tmp
mkdir -p /run/netns /sys/fs/cgroup
mount -t cgroup2 cgroup2 /sys/fs/cgroup
ln -s /proc/self/fd /dev/fd

# Serial lines that carry bytes as they are.
stty -F /dev/ttyS1 raw
stty -F /dev/ttyS2 raw
stty -F /dev/ttyS3 raw -echo

while read -r module arguments; do
	insmod "/modules/$module" $arguments || echo "init: module $module was not loaded"
done </modules/order

/opt/ip link set lo up
# igbvf finds its PF in reset, and has no carrier later, unless the PF is up first.
for device in /sys/class/net/*/device/sriov_totalvfs; do
	[ -e "$device" ] || continue
	function=${device%/sriov_totalvfs}
	netdev=${function#/sys/class/net/}
	/opt/ip link set "${netdev%%/*}" up
	echo 2 >"$function/sriov_numvfs" || echo "init: $function got no VFs"
done

# A VF is there before its driver has made the netdev; wait for those, 5 s at most.
for try in $(seq 50); do
	missing=0
	for vf in /sys/bus/pci/devices/*/physfn; do
		[ -n "$(ls "${vf%/physfn}/net" 2>/dev/null)" ] || missing=1
	done
	[ $missing = 0 ] && break
	sleep 0.1
done

soft_roce() { # soft_roce NETDEV
	/opt/ip link set "$1" up
	/opt/rdma link add "rxe_$1" type rxe netdev "$1" || echo "init: $1 got no rxe device"
}
for device in /sys/class/net/*/device/sriov_totalvfs; do
	netdev=${device#/sys/class/net/}
	soft_roce "${netdev%%/*}"
done
for vf in /sys/bus/pci/devices/*/physfn; do
	soft_roce "$(ls "${vf%/physfn}/net")"
	break
done

echo started >/dev/ttyS2
/bin/sh /guest/run >/dev/ttyS1 2>&1 </dev/null
echo "exit $?" >/dev/ttyS2
sync
poweroff -f
