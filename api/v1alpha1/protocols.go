package v1alpha1

// The transport protocols that an egress rule can name. They are the three with
// ports; everything else stays denied, neighbour discovery excepted.

const (
	ProtocolTCP  EgressProtocol = "TCP"
	ProtocolUDP  EgressProtocol = "UDP"
	ProtocolSCTP EgressProtocol = "SCTP"
)
