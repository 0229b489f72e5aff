package nic

import (
	"net/netip"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestWhatCNIConfigurationsNameIsTheNodes(t *testing.T) {
	root, tree := hardware(t)
	for _, c := range []struct {
		name     string
		files    map[string]string
		want     []string
		problems int
	}{
		{"no folder", nil, nil, 0},
		{"the master of a macvlan", map[string]string{"10-pods.conf": `{"cniVersion":"1.0.0","name":"pods","type":"macvlan","master":"p1","ipam":{}}`}, []string{"p1"}, 0},
		{"a master by another name of it", map[string]string{"10-pods.conf": `{"cniVersion":"1.0.0","name":"pods","type":"macvlan","master":"enp17s0np0"}`}, []string{"p1"}, 0},
		{"the master of an ipvlan in a list", map[string]string{"10-pods.conflist": `{"cniVersion":"1.0.0","name":"pods","plugins":[{"type":"ipvlan","master":"p1.7"},{"type":"tuning"}]}`}, []string{"p1"}, 0},
		{"a bridge of the host", map[string]string{"10-pods.conflist": `{"cniVersion":"1.0.0","name":"pods","plugins":[{"type":"bridge","bridge":"br1"}]}`}, []string{"p2", "p2v0", "p2v1"}, 0},
		{"host-device by name, address and function", map[string]string{
			"1.conf": `{"cniVersion":"1.0.0","name":"a","type":"host-device","device":"p0"}`,
			"2.conf": `{"cniVersion":"1.0.0","name":"b","type":"host-device","hwaddr":"02:00:00:00:00:01"}`,
			"3.conf": `{"cniVersion":"1.0.0","name":"c","type":"host-device","pciBusID":"0000:12:00.1"}`,
		}, []string{"p0", "p1", "p2", "p2v0"}, 0},
		{"what a plugin delegates to", map[string]string{"00-multus.conf": `{"cniVersion":"1.0.0","name":"multus","type":"multus","delegates":[{"type":"flannel","delegate":{"type":"ipvlan","master":"p1"}}]}`}, []string{"p1"}, 0},
		{"a file that is no configuration beside one that is", map[string]string{
			"10-broken.conflist": `{"name":`, "20-pods.conf": `{"cniVersion":"1.0.0","name":"pods","type":"macvlan","master":"p1"}`, "README": "not read",
		}, []string{"p1"}, 1},
		{"a master of another kind", map[string]string{"10.conf": `{"cniVersion":"1.0.0","name":"pods","type":"macvlan","master":7}`}, nil, 1},
		{"netdevs that are not there", map[string]string{"10.conf": `{"cniVersion":"1.0.0","name":"pods","type":"macvlan","master":"eth9"}`}, nil, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			folder := filepath.Join(t.TempDir(), "net.d")
			files(t, folder, c.files)
			n := ports().link("mgmt", "device", "", "").route("0.0.0.0/0", 0, "mgmt").link("p1.7", "vlan", "", "p1").link("br1", "bridge", "", "")
			n.links[n.index("p1")-1].MAC = "02:00:00:00:00:01"
			n.links[n.index("p1")-1].AlternativeNames = []string{"ens1", "enp17s0np0"}
			if strings.Contains(c.name, "bridge") {
				n.link("p2.9", "vlan", "", "p2")
				n.port("p2.9", "br1")
			}
			reader := New(Config{Sys: root, Dev: t.TempDir(), Kernel: n, CNIConfig: folder})
			inventory, problems := reader.Read(t.Context(), tree)
			if diff := cmp.Diff(c.want, uplinks(inventory.NICs)); diff != "" {
				t.Error(diff)
			}
			if len(problems) != c.problems {
				t.Errorf("the problems are %v", problems)
			}
			agree(t, reader, inventory.NICs)
		})
	}
}

func TestTheReasonNamesTheCNIConfiguration(t *testing.T) {
	root, tree := hardware(t)
	folder := t.TempDir()
	files(t, folder, map[string]string{"10-pods.conf": `{"cniVersion":"1.0.0","name":"pods","type":"macvlan","master":"p1"}`})
	nics := read(t.Context(), New(Config{Sys: root, Dev: t.TempDir(), Kernel: ports(), CNIConfig: folder}), tree)
	if want := "is named by the macvlan plugin of the pod network pods (10-pods.conf)"; nics[1].Uplink != want {
		t.Errorf("p1 %s, want %s", nics[1].Uplink, want)
	}
}

// A NIC that Amazon's CNI has attached for pods to come looks like one of a
// multi-rail set-up; its configuration tells them apart.
func TestAmazonsCNITakesNICsWithAWayOutOfTheirOwn(t *testing.T) {
	root, tree := hardware(t)
	for _, c := range []struct {
		plugin string
		want   []string
	}{{"aws-cni", []string{"p0", "p1"}}, {"ptp", []string{"p0"}}} {
		folder := t.TempDir()
		files(t, folder, map[string]string{"10-aws.conflist": `{"cniVersion":"0.4.0","name":"aws-cni","plugins":[{"name":"aws-cni","type":"` + c.plugin + `","vethPrefix":"eni"},{"type":"portmap"}]}`})
		n := ports().route("0.0.0.0/0", 0, "p0").address("p1", "10.0.10.43/24").route("10.0.10.1/32", 0, "p1").inTable(2).route("0.0.0.0/0", 0, "p1").inTable(2).
			rule(Rule{Table: 2, From: netip.MustParsePrefix("10.0.10.43/32")}).address("p2", "10.9.0.1/24")
		reader := New(Config{Sys: root, Dev: t.TempDir(), Kernel: n, CNIConfig: folder})
		nics := read(t.Context(), reader, tree)
		if diff := cmp.Diff(c.want, uplinks(nics)); diff != "" {
			t.Errorf("with %s: %s", c.plugin, diff)
		}
		if want := "has a default route of its own in table 2 via p1, as the aws-cni plugin of the pod network aws-cni (10-aws.conflist) makes it for NICs whose addresses pods get"; len(c.want) > 1 && nics[1].Uplink != want {
			t.Errorf("p1 %s, want %s", nics[1].Uplink, want)
		}
		agree(t, reader, nics)
	}
}

func FuzzCNIConfiguration(f *testing.F) {
	f.Add("10.conf", []byte(`{"cniVersion":"1.0.0","name":"pods","type":"macvlan","master":"p1","delegates":[{"delegate":{"master":"x"}}]}`))
	f.Add("10.conflist", []byte(`{"cniVersion":"1.0.0","name":"pods","plugins":[{"type":"bridge","bridge":"br1"}]}`))
	f.Fuzz(func(t *testing.T, file string, raw []byte) {
		networks, _ := parsePodNetwork(file, raw)
		for _, network := range networks {
			if len(network.links) == 0 && network.mac == "" && network.pci == "" && network.plugin != pluginAWS {
				t.Errorf("%+v names nothing", network)
			}
		}
	})
}
