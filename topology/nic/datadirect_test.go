package nic

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// vpdOf is vital product data as lspci shows it of a ConnectX: a name, keywords, the end.
func vpdOf(keywords ...string) string {
	fields := ""
	for _, keyword := range keywords {
		name, value, _ := strings.Cut(keyword, "=")
		fields += name + string([]byte{byte(len(value))}) + value
	}
	large := func(tag byte, content string) string {
		return string([]byte{tag, byte(len(content)), byte(len(content) >> 8)}) + content
	}
	return large(0x82, "NVIDIA ConnectX-8 mezz") + large(0x90, fields) + "\x78"
}

const (
	cardA = "V3=1d8ac6bcae6cf011800090e317a1e3f4"
	cardB = "V3=6f0b0c24ae6cf011800090e317a1f000"
)

func TestDataDirect(t *testing.T) {
	type functions map[string]string // vital product data by address; 2x are interfaces, 1x NICs
	for _, c := range []struct {
		name      string
		functions functions
		want      map[string]string // interfaces by NIC
		problems  int               // of the machine
		ofNICs    int
	}{
		{"one interface a card, VU of the NIC another than that of the interface",
			functions{
				"0000:10:00.0": vpdOf("PN=900-9X", cardA, "VU=aMLNXS0D0F0"), "0000:11:00.0": vpdOf(cardB, "VU=bMLNXS0D0F0"),
				"0000:20:00.0": vpdOf(cardB, "VU=bDD"), "0000:21:00.0": vpdOf(cardA, "VU=aDD"),
			},
			map[string]string{"0000:10:00.0": "0000:21:00.0", "0000:11:00.0": "0000:20:00.0"}, 0, 0},
		{"the same VU and no V3",
			functions{"0000:10:00.0": vpdOf("VU=a"), "0000:11:00.0": vpdOf("VU=b"), "0000:20:00.0": vpdOf("VU=b")},
			map[string]string{"0000:11:00.0": "0000:20:00.0"}, 0, 0},
		{"two ports of a card share its interface",
			functions{"0000:10:00.0": vpdOf(cardA), "0000:10:00.1": vpdOf(cardA), "0000:20:00.0": vpdOf(cardA)},
			map[string]string{"0000:10:00.0": "0000:20:00.0", "0000:10:00.1": "0000:20:00.0"}, 0, 0},
		{"several interfaces on a card, told apart by VU",
			functions{
				"0000:10:00.0": vpdOf(cardA, "VU=aF0"), "0000:10:00.1": vpdOf(cardA, "VU=aF1"),
				"0000:20:00.0": vpdOf(cardA, "VU=aF1"), "0000:20:00.1": vpdOf(cardA, "VU=aF0"),
			},
			map[string]string{"0000:10:00.0": "0000:20:00.1", "0000:10:00.1": "0000:20:00.0"}, 0, 0},
		{"several interfaces on a card, not told apart",
			functions{"0000:10:00.0": vpdOf(cardA, "VU=x"), "0000:20:00.0": vpdOf(cardA, "VU=y"), "0000:20:00.1": vpdOf(cardA, "VU=z")},
			map[string]string{}, 0, 1},
		{"an interface without a NIC", functions{"0000:10:00.0": vpdOf(cardA), "0000:20:00.0": vpdOf(cardB)}, map[string]string{}, 1, 0},
		{"no vital product data", functions{"0000:10:00.0": "", "0000:20:00.0": ""}, map[string]string{}, 1, 0},
		{"no interface", functions{"0000:10:00.0": vpdOf(cardA)}, map[string]string{}, 0, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := newMachine(t)
			for address, vpd := range c.functions {
				content := map[string]string{}
				if vpd != "" {
					content["vpd"] = vpd
				}
				if strings.HasPrefix(address, "0000:2") {
					m.function(address, "0x020000", "15b3:2100", "mlx5_ib", content)
					continue
				}
				m.netdev(m.function(address, "0x020000", "15b3:1023", "mlx5_core", content), "n"+address[5:7]+address[11:], nil)
			}
			nics, problems := m.read(away())
			got, ofNICs := map[string]string{}, 0
			for _, nic := range nics {
				if strings.HasPrefix(nic.Placement.PCI, "0000:2") {
					t.Errorf("%s is a Data Direct interface and is offered", nic.Name)
				}
				if nic.DataDirect != nil {
					got[nic.Placement.PCI] = nic.DataDirect.PCI
					if want := "pci0000:" + nic.DataDirect.PCI[5:7]; nic.DataDirect.PCIeRoot != want {
						t.Errorf("the interface of %s is under %s, want %s", nic.Name, nic.DataDirect.PCIeRoot, want)
					}
				}
				ofNICs += len(nic.Problems)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Error(diff)
			}
			if len(problems) != c.problems || ofNICs != c.ofNICs {
				t.Errorf("the problems are %v, and %d of NICs", problems, ofNICs)
			}
		})
	}
}

func TestVitalProductDataIsReadOncePerDevice(t *testing.T) {
	m := newMachine(t)
	m.netdev(m.function("0000:10:00.0", "0x020000", "15b3:1023", "mlx5_core", map[string]string{"vpd": vpdOf(cardA)}), "n0", nil)
	m.function("0000:20:00.0", "0x080100", "15b3:2100", "mlx5_ib", map[string]string{"vpd": vpdOf(cardA)})
	products := productData{known: map[productFile]map[string]string{}}
	first, err := products.keywords(New(Config{Sys: m.root}).sys, "0000:10:00.0")
	if err != nil || first[keywordCard] == "" {
		t.Fatalf("the keywords are %v, %v", first, err)
	}
	// The same file with other content: a second reading would show it.
	files(t, m.root, map[string]string{"devices/pci0000:10/0000:10:00.0/vpd": vpdOf(cardB)})
	if again, err := products.keywords(New(Config{Sys: m.root}).sys, "0000:10:00.0"); err != nil || again[keywordCard] != first[keywordCard] {
		t.Errorf("the second look gives %v, %v", again, err)
	}
}

func FuzzVitalProductData(f *testing.F) {
	f.Add([]byte(vpdOf(cardA, "SN=MT2342X")), "V3")
	f.Add([]byte("\x82\xff\xff"), "V3")
	f.Add([]byte("\x90\x04\x00V3\xff1"), "V3")
	f.Fuzz(func(t *testing.T, vpd []byte, keyword string) {
		for name, value := range readOnlyKeywords(vpd) {
			if len(name) != 2 || !strings.Contains(string(vpd), name+string([]byte{byte(len(value))})+value) {
				t.Errorf("%q = %q is not in the data", name, value)
			}
		}
		if len(keyword) == 2 && !strings.Contains(keyword, "=") {
			if got := readOnlyKeywords([]byte(vpdOf(keyword + "=" + cardA)))[keyword]; got != cardA {
				t.Errorf("%q is read back as %q", keyword, got)
			}
		}
	})
}

func FuzzSysfsStrings(f *testing.F) {
	f.Add("946d:ae03:0012:3456", "fe80:0000:0000:0000:946d:ae03:0012:3456", "4: ACTIVE", "c1pf0sf88")
	f.Add("0000:0000:0000:0000", "::1", "", "p0")
	f.Fuzz(func(t *testing.T, guid, gid, state, port string) {
		for _, parsed := range []struct {
			text  string
			parse func(string) (string, error)
		}{{guid, parseGUID}, {gid, portGUID}} {
			got, err := parsed.parse(parsed.text)
			if err != nil && got != "" {
				t.Errorf("%q gives %q beside an error", parsed.text, got)
			}
			if again, err := parseGUID(got); err != nil || again != got {
				t.Errorf("%q gives %q, which is no GUID", parsed.text, got)
			}
		}
		if word := stateWord(state); len(word) > len(state) || strings.TrimSpace(word) != word && strings.Contains(state, ":") {
			t.Errorf("%q gives %q", state, word)
		}
		if representor.MatchString(port) && !strings.Contains(port, "pf") {
			t.Errorf("%q is no representor", port)
		}
	})
}
