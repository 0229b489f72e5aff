package gate_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hostler-dev/hostler/netattach"
)

// The agent writes down which containers could undo a limit that is yet to come. With
// the agent away nobody would, so only one of which it has been starts again.
func TestContainerWithNewPowersWaitsForTheAgent(t *testing.T) {
	n := newNode(t)
	n.intents.put(netattach.Intent{ClaimUID: "gpu-only", ClaimNamespace: "ns", ClaimName: "g", Pods: []netattach.PodReference{{UID: "pod-1"}}})
	if err := n.startContainer(t, "gpu-only"); err != nil {
		t.Fatal(err)
	}
	n.bounding = []string{"CAP_CHOWN", "CAP_NET_ADMIN"}
	n.writeBundle(t)
	n.stop()
	if err := n.startContainer(t, "gpu-only"); err == nil || !strings.Contains(err.Error(), "no container with CAP_NET_ADMIN") {
		t.Errorf("%v; want a refusal until the agent is back", err)
	}
	n.start(t)
	if err := n.startContainer(t, "gpu-only"); err != nil {
		t.Errorf("with the agent there: %v", err)
	}
	n.stop()
	if err := n.startContainer(t, "gpu-only"); err != nil {
		t.Errorf("when it starts again without the agent: %v", err)
	}
	n.bounding = []string{"CAP_SYS_ADMIN"}
	n.writeBundle(t)
	if err := n.startContainer(t, "gpu-only"); err == nil || !strings.Contains(err.Error(), "no container with CAP_SYS_ADMIN") {
		t.Errorf("%v; want a refusal of another power", err)
	}
}

// What an earlier version of the agent attached has no word on capabilities, and containers
// that have been running with them restart.
func TestRecordOfAnEarlierVersionRefusesNoPowers(t *testing.T) {
	n := newNode(t)
	n.intents.put(netattach.Intent{ClaimUID: "gpu-only", ClaimNamespace: "ns", ClaimName: "g", Pods: []netattach.PodReference{{UID: "pod-1"}}})
	if err := n.startContainer(t, "gpu-only"); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(n.run, "attached", "gpu-only-pod-1.json")
	record, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	earlier := bytes.Replace(record, []byte(`"powersKnown": true`), []byte(`"powersKnown": false`), 1)
	if bytes.Equal(record, earlier) {
		t.Fatalf("the record says nothing of powers:\n%s", record)
	}
	if err := os.WriteFile(path, earlier, 0o600); err != nil {
		t.Fatal(err)
	}
	n.stop()
	n.bounding = []string{"CAP_NET_ADMIN"}
	n.writeBundle(t)
	if err := n.startContainer(t, "gpu-only"); err != nil {
		t.Error(err)
	}
}
