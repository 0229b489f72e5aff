package nvml

import (
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
	"pgregory.net/rapid"
)

func TestCleaning(t *testing.T) {
	for _, test := range []struct{ name, said, want string }{
		{"is left alone", "NVIDIA H100 80GB HBM3", "NVIDIA H100 80GB HBM3"},
		{"an unwritten EEPROM is empty", "\xff\xff\xff\xff", ""},
		{"trailing blanks go", "1320921034567   ", "1320921034567"},
		{"control characters go", "96.00\x00.74\x1b[31m\n", "96.00.74[31m"},
		{"invisible characters go", "GPU-\u200b1\u202e2", "GPU-12"},
	} {
		if got := clean(test.said); got != test.want {
			t.Errorf("%s: %q becomes %q, want %q", test.name, test.said, got, test.want)
		}
	}
}

func FuzzCleaning(f *testing.F) {
	f.Add("NVIDIA \xff H100\x00 \t")
	f.Fuzz(func(t *testing.T, said string) {
		got := clean(said)
		if !utf8.ValidString(got) || strings.ContainsFunc(got, unicode.IsControl) || strings.TrimSpace(got) != got || clean(got) != got {
			t.Errorf("%q becomes %q", said, got)
		}
	})
}

// As nvidia-smi lists them; total memory as the GPUs report it.
func TestProfileNames(t *testing.T) {
	const a30, a100, a100x80, h200 = 24 << 30, 40 << 30, 80 << 30, 150754820096
	for _, test := range []struct {
		name          string
		index, slices int
		memoryMB, gpu uint64
	}{
		{"1g.6gb", nvml.GPU_INSTANCE_PROFILE_1_SLICE, 1, 5952, a30},
		{"2g.12gb+me", nvml.GPU_INSTANCE_PROFILE_2_SLICE_REV1, 2, 11968, a30},
		{"1g.5gb", nvml.GPU_INSTANCE_PROFILE_1_SLICE, 1, 4864, a100},
		{"1g.5gb+me", nvml.GPU_INSTANCE_PROFILE_1_SLICE_REV1, 1, 4864, a100},
		{"1g.10gb", nvml.GPU_INSTANCE_PROFILE_1_SLICE_REV2, 1, 9856, a100},
		{"3g.20gb", nvml.GPU_INSTANCE_PROFILE_3_SLICE, 3, 19968, a100},
		{"7g.40gb", nvml.GPU_INSTANCE_PROFILE_7_SLICE, 7, 40192, a100},
		{"1g.20gb", nvml.GPU_INSTANCE_PROFILE_1_SLICE_REV2, 1, 19968, a100x80},
		{"1g.18gb", nvml.GPU_INSTANCE_PROFILE_1_SLICE, 1, 16384, h200},
		{"3g.71gb", nvml.GPU_INSTANCE_PROFILE_3_SLICE, 3, 71296, h200},
		{"7g.141gb", nvml.GPU_INSTANCE_PROFILE_7_SLICE, 7, 143360, h200},
		{"1g.5gb-me", nvml.GPU_INSTANCE_PROFILE_1_SLICE_NO_ME, 1, 4864, 0},
		{"4g.20gb+gfx", nvml.GPU_INSTANCE_PROFILE_4_SLICE_GFX, 4, 19968, 0},
	} {
		if got := deriveProfileName(test.index, test.slices, test.memoryMB, test.gpu); got != test.name {
			t.Errorf("%s is called %s", test.name, got)
		}
		for _, said := range []string{"MIG " + test.name, test.name, " mig " + test.name + "\x00 "} {
			if got := parseProfileName(said); got != test.name {
				t.Errorf("%q is read as %q", said, got)
			}
		}
	}
	for _, said := range []string{"", "MIG", "MIG 1c.2g.10gb", "g.gb", "0g.5gb", "1g.5gb/../me", "1g.5gb+" + strings.Repeat("m", 40)} {
		if got := parseProfileName(said); got != "" {
			t.Errorf("%q is taken for the profile %q", said, got)
		}
	}
}

func TestDerivedNamesAreNames(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		index, slices := rapid.IntRange(0, mostProfiles).Draw(t, "index"), rapid.IntRange(1, 16).Draw(t, "slices")
		gpu := rapid.Uint64Range(8<<30, 1<<40).Draw(t, "GPU's memory")
		memory := rapid.Uint64Range(1024, gpu>>20).Draw(t, "memory")
		if name := deriveProfileName(index, slices, memory, gpu); parseProfileName("MIG "+name) != name {
			t.Errorf("%q is no name", name)
		}
	})
}

func FuzzProfileName(f *testing.F) {
	f.Add("MIG 1g.5gb+me.all")
	f.Add("mig 7g.40gb-me")
	f.Fuzz(func(t *testing.T, said string) {
		got := parseProfileName(said)
		if got != "" && (len(got) > 32 || strings.ContainsFunc(got, func(c rune) bool { return !strings.ContainsRune("abcdefghijklmnopqrstuvwxyz0123456789.+-", c) })) {
			t.Errorf("%q is read as %q", said, got)
		}
		if parseProfileName(got) != got {
			t.Errorf("%q is read as %q, and that as another", said, got)
		}
	})
}
