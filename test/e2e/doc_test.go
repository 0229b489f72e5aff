// Package e2e runs Hostler's main job in a real cluster: the real scheduler
// allocates, the real kubelet and containerd prepare and start pods, and the
// agent runs as its own DaemonSet from its own chart. Only the GPUs are
// simulated. Each test is one scenario in a namespace of its own, and after
// each the node must hold nothing of it: no CDI file, no journal entry, no
// strayed netdev.
//
// The tests run with HOSTLER_E2E=1 (make test-e2e). HOSTLER_E2E_KEEP=1 leaves
// the cluster for a look.
package e2e
