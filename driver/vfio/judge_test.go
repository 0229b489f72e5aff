package vfio_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/hostler-dev/hostler/driver/vfio"
	"github.com/hostler-dev/hostler/driver/vfio/vfiotest"
)

const (
	gpu   = "0000:17:00.0"
	audio = "0000:17:00.1"
	usb   = "0000:17:00.2"
)

func TestOnlyWholeGroupsAreGivenAway(t *testing.T) {
	member := func(pci string, class uint32) vfio.Member {
		return vfio.Member{Function: vfio.Function{PCI: pci, Driver: "some"}, Class: class}
	}
	vf := func(pci string) vfio.Member {
		m := member(pci, 0x020000)
		m.VF = true
		return m
	}
	whole := vfio.Group{Number: "42", IOMMU: true, DriverThere: true}
	with := func(members ...vfio.Member) vfio.Group {
		g := whole
		g.Members = members
		return g
	}
	change := func(change func(*vfio.Group)) vfio.Group {
		g := with(member(gpu, 0x030200))
		change(&g)
		return g
	}
	pf := member(gpu, 0x020000)
	pf.VFs = 4
	for name, test := range map[string]struct {
		group     vfio.Group
		functions []string // given away; none: refused
		refused   []string // what the refusal says
	}{
		"a function alone":                        {with(member(gpu, 0x030200)), []string{gpu}, nil},
		"a GPU with audio and USB":                {with(member(audio, 0x040300), member(gpu, 0x030000), member(usb, 0x0c0330)), []string{gpu, audio, usb}, nil},
		"below bridges of its group":              {with(member("0000:16:00.0", 0x060400), member(gpu, 0x030200)), []string{gpu}, nil},
		"a VF alone":                              {with(vf(gpu)), []string{gpu}, nil},
		"a card in the slot beside it":            {with(member(gpu, 0x030200), member("0000:18:00.0", 0x020000)), nil, []string{gpu, "group 42 with 0000:18:00.0,", "ACS"}},
		"several others":                          {with(member(gpu, 0x030200), member("0000:18:00.0", 0x020000), member("0000:00:1f.0", 0x060100)), nil, []string{"0000:18:00.0, 0000:00:1f.0"}},
		"the second port of a NIC":                {with(member(gpu, 0x020000), member(audio, 0x020000)), nil, []string{audio}},
		"a second GPU on the same card":           {with(member(gpu, 0x030200), member(audio, 0x030200)), nil, []string{audio}},
		"VFs whose slot is the same":              {with(vf(gpu), vf(audio)), nil, []string{audio}},
		"a PF beside its VF":                      {with(vf(gpu), member(audio, 0x0c0330)), nil, []string{audio}},
		"a PF that has VFs":                       {with(pf), nil, []string{"4 VFs", "sriov_numvfs"}},
		"no IOMMU":                                {change(func(g *vfio.Group) { g.IOMMU, g.Number = false, "" }), nil, []string{"intel_iommu=on", "amd_iommu=on"}},
		"an IOMMU, but not above this function":   {change(func(g *vfio.Group) { g.Number = "" }), nil, []string{"behind no IOMMU", gpu}},
		"a group that vfio made up":               {change(func(g *vfio.Group) { g.Emulated = true }), nil, []string{"enable_unsafe_noiommu_mode"}},
		"a kernel without vfio-pci":               {change(func(g *vfio.Group) { g.DriverThere = false }), nil, []string{"modprobe vfio-pci"}},
		"a function that its group does not list": {with(member("0000:18:00.0", 0x020000)), nil, []string{"not listed"}},
	} {
		t.Run(name, func(t *testing.T) {
			binding, err := vfio.Judge(gpu, test.group)
			if test.functions == nil {
				if err == nil {
					t.Fatalf("given away: %+v", binding)
				}
				for _, words := range test.refused {
					if !strings.Contains(err.Error(), words) {
						t.Errorf("refused with %q, want it to say %q", err, words)
					}
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var functions []string
			for _, f := range binding.Functions {
				functions = append(functions, f.PCI)
				if f.Driver != "some" {
					t.Errorf("function %s is recorded with driver %q, want the one it had", f.PCI, f.Driver)
				}
			}
			if binding.Group != "42" || !slices.Equal(functions, test.functions) {
				t.Errorf("group %s with %v given away, want 42 with %v", binding.Group, functions, test.functions)
			}
		})
	}
}

func TestGroupsAreReadFromTheKernel(t *testing.T) {
	kernel := boot(t,
		vfiotest.Function{PCI: "0000:16:00.0", Group: "7", Class: "0x060400", Driver: "pcieport"},
		vfiotest.Function{PCI: gpu, Group: "7", Class: "0x030200", Driver: "nvidia"},
		vfiotest.Function{PCI: audio, Group: "7", Class: "0x040300", Driver: "snd", Override: "snd"},
		vfiotest.Function{PCI: "0000:21:00.0", Group: "8", Driver: "igb", VFs: 2},
		vfiotest.Function{PCI: "0000:21:10.0", Group: "9", PF: "0000:21:00.0", Driver: vfio.Driver},
		vfiotest.Function{PCI: "0000:00:01.0", Class: "0x010000"},
	)
	bus := kernel.Bus()
	for pci, want := range map[string]vfio.Group{
		gpu: {Number: "7", IOMMU: true, DriverThere: true, Members: []vfio.Member{
			{Function: vfio.Function{PCI: "0000:16:00.0", Driver: "pcieport"}, Class: 0x060400},
			{Function: vfio.Function{PCI: gpu, Driver: "nvidia"}, Class: 0x030200},
			{Function: vfio.Function{PCI: audio, Driver: "snd", Override: "snd"}, Class: 0x040300},
		}},
		"0000:21:00.0": {Number: "8", IOMMU: true, DriverThere: true, Members: []vfio.Member{
			{Function: vfio.Function{PCI: "0000:21:00.0", Driver: "igb"}, Class: 0x020000, VFs: 2},
		}},
		"0000:21:10.0": {Number: "9", IOMMU: true, DriverThere: true, Members: []vfio.Member{
			{Function: vfio.Function{PCI: "0000:21:10.0", Driver: vfio.Driver}, Class: 0x020000, VF: true},
		}},
		"0000:00:01.0": {IOMMU: true, DriverThere: true},
	} {
		got, err := bus.Group(t.Context(), pci)
		if err != nil {
			t.Fatal(err)
		}
		if diff := compare(want, got); diff != "" {
			t.Errorf("the group of %s is another: %s", pci, diff)
		}
	}
	if _, err := bus.Group(t.Context(), "0000:99:00.0"); err == nil || !strings.Contains(err.Error(), "0000:99:00.0") {
		t.Errorf("a function that is not there: %v, want an error that names it", err)
	}
}
