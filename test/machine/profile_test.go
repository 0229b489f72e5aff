package machine

import (
	"io/fs"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
	"sigs.k8s.io/yaml"
)

// What Parse accepts says the same when it is written down again: no key was
// dropped, no value coerced.
func FuzzParse(f *testing.F) {
	for _, name := range Names() {
		raw, err := fs.ReadFile(profiles, "profiles/"+name+".yaml")
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		p, err := Parse("fuzz", raw)
		if err != nil {
			return
		}
		written, err := yaml.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		again, err := Parse("written", written)
		if err != nil {
			t.Fatalf("a profile that was accepted is refused once written: %v\n%s", err, written)
		}
		if diff := cmp.Diff(p, again); diff != "" {
			t.Error(diff)
		}
	})
}

func TestMACsAreUnicastAndOurs(t *testing.T) {
	p := load(t, "workstation")
	rapid.Check(t, func(t *rapid.T) {
		mac := p.MAC(rapid.IntRange(0, 255).Draw(t, "node"), rapid.StringMatching(`0000:[0-9a-f]{2}:[01][0-9a-f]\.[0-7]`).Draw(t, "address"))
		if mac[0]&1 != 0 || mac[0]&2 == 0 {
			t.Errorf("%s is not a locally administered unicast address", mac)
		}
	})
}
