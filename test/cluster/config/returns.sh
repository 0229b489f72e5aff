# Stands in for the kernel on the node $2: a physical netdev survives the network
# namespace that it was in and comes back to the first one, down and, where its name
# is taken, as dev<N> (default_device_exit_net). A veth is destroyed instead, so
# this puts a new one in its place, with the same MAC address.
# Runs in the fabric's namespace, where the other end vanishes too.
# Usage: returns.sh PORTS NODE BRIDGE; PORTS has lines of "far-end mac mtu".
set -u
while sleep 0.3; do
	while read -r far mac mtu; do
		[ -e "/sys/class/net/$far" ] && continue
		n=0
		until ip link add "$far" mtu "$mtu" type veth peer name "dev$n" address "$mac" mtu "$mtu" netns "$2"; do
			n=$((n + 1))
			[ $n -lt 64 ] || break
		done
		ip link set "$far" master "$3" up
		echo "returned $mac as dev$n"
	done < "$1"
done
