package vm

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

const keyring = "/usr/share/keyrings/archive.gpg"

func TestParseSources(t *testing.T) {
	release := source{
		uris: []string{"http://mirror.example/debian"}, suites: []string{"bookworm", "bookworm-updates"},
		components: []string{"main"}, options: map[string]string{"signed-by": keyring},
	}
	for name, tc := range map[string]struct {
		parse func(string) []source
		text  string
		want  []source
	}{
		"a stanza with comments": {parseStanzas,
			"# a comment\nTypes: deb deb-src\n# URIs: http://old.example\nURIs: http://mirror.example/debian\nSuites: bookworm bookworm-updates\nComponents: main\nSigned-By: " + keyring + "\n",
			[]source{release}},
		"an inline key keeps its lines": {parseStanzas,
			"Types: deb\nURIs: http://mirror.example\nSuites: bookworm\nSigned-By:\n -----BEGIN-----\n .\n mQINB\n",
			[]source{{uris: []string{"http://mirror.example"}, suites: []string{"bookworm"}, options: map[string]string{"signed-by": "\n -----BEGIN-----\n .\n mQINB"}}}},
		"a disabled stanza and one for source packages do not count": {parseStanzas,
			"Types: deb\nURIs: http://a.example\nSuites: bookworm\nEnabled: no\n\nTypes: deb-src\nURIs: http://a.example\nSuites: bookworm\n",
			nil},
		"an empty file":                         {parseStanzas, "", nil},
		"a continuation of nothing is no field": {parseStanzas, " lost\n", nil},
		"a line with options": {parseLines,
			"deb [arch=amd64,i386 signed-by=" + keyring + " lang+=de] http://mirror.example/debian bookworm main contrib # comment\n",
			[]source{{uris: []string{"http://mirror.example/debian"}, suites: []string{"bookworm"}, components: []string{"main", "contrib"},
				options: map[string]string{"architectures": "amd64 i386", "signed-by": keyring, "languages-add": "de"}}}},
		"a flat repository has no components": {parseLines, "deb http://mirror.example/flat ./\n",
			[]source{{uris: []string{"http://mirror.example/flat"}, suites: []string{"./"}, components: []string{}, options: map[string]string{}}}},
		"comments and lines for source packages do not count": {parseLines, "# deb http://a.example x main\ndeb-src http://a.example x main\ndeb\n", nil},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tc.want, tc.parse(tc.text), cmp.AllowUnexported(source{})); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestWithBackports(t *testing.T) {
	from := func(uri string, suites ...string) source {
		return source{uris: []string{uri}, suites: suites, components: []string{"main"}, options: map[string]string{"signed-by": keyring}}
	}
	for name, tc := range map[string]struct {
		have, want []source
	}{
		"the mirror of the release serves its backports, with the same key; other vendors are left out": {
			have: []source{from("http://vendor.example", "stable"), from("http://mirror.example/debian-security", "bookworm-security"), from("http://mirror.example/debian", "bookworm", "bookworm-updates")},
			want: []source{from("http://mirror.example/debian-security", "bookworm-security"), from("http://mirror.example/debian", "bookworm", "bookworm-updates"), from("http://mirror.example/debian", "bookworm-backports")},
		},
		"backports that the machine has are not added again": {
			have: []source{from("http://mirror.example/debian", "bookworm"), from("http://backports.example", "bookworm-backports")},
			want: []source{from("http://mirror.example/debian", "bookworm"), from("http://backports.example", "bookworm-backports")},
		},
		"an installation medium is no mirror": {
			have: []source{from("cdrom:[Debian]/", "bookworm"), from("http://mirror.example/debian", "bookworm")},
			want: []source{from("http://mirror.example/debian", "bookworm"), from("http://mirror.example/debian", "bookworm-backports")},
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := withBackports(tc.have, "bookworm")
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, got, cmp.AllowUnexported(source{})); diff != "" {
				t.Error(diff)
			}
		})
	}

	_, err := withBackports([]source{from("http://vendor.example", "stable")}, "bookworm")
	if err == nil || !strings.Contains(err.Error(), `"bookworm"`) {
		t.Errorf("without a source of the release: error %v, want one that names the suite", err)
	}
}

// FuzzSources: whatever a machine's files hold, reading them neither fails nor
// finds a source that apt could not use.
func FuzzSources(f *testing.F) {
	f.Add("deb [signed-by=/k.gpg lang+=de] http://mirror.example/debian bookworm main\n")
	f.Add("Types: deb\nURIs: http://mirror.example\nSuites: bookworm\nSigned-By:\n -----BEGIN-----\n .\n mQINB\n")
	f.Fuzz(func(t *testing.T, text string) {
		for _, s := range append(parseLines(text), parseStanzas(text)...) {
			if len(s.uris) == 0 || len(s.suites) == 0 {
				t.Errorf("a source without address or suite: %+v", s)
			}
		}
	})
}

// TestFormatReadsBack: what is written for apt says what was read, in either format.
func TestFormatReadsBack(t *testing.T) {
	for _, read := range [][]source{
		parseLines("deb [signed-by=/k.gpg arch=amd64,i386] http://mirror.example/debian bookworm main contrib\ndeb http://mirror.example/flat ./\n"),
		parseStanzas("Types: deb\nURIs: http://a.example http://b.example\nSuites: bookworm bookworm-updates\nComponents: main\nSigned-By:\n -----BEGIN-----\n .\n mQINB\n"),
	} {
		if diff := cmp.Diff(read, parseStanzas(format(read)), cmp.AllowUnexported(source{}), cmpopts.EquateEmpty()); diff != "" {
			t.Error(diff)
		}
	}
}

func TestDebianCodename(t *testing.T) {
	for name, tc := range map[string]struct{ osRelease, want, wantError string }{
		"Debian":           {"PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nVERSION_CODENAME=bookworm\nID=debian\n", "bookworm", ""},
		"another system":   {"PRETTY_NAME=\"Ubuntu 24.04\"\nVERSION_CODENAME=noble\nID=ubuntu\nID_LIKE=debian\n", "", "Ubuntu 24.04"},
		"Debian's testing": {"PRETTY_NAME=\"Debian sid\"\nID=debian\n", "", "Debian sid"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := debianCodename(tc.osRelease)
			if got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
			if (err != nil) != (tc.wantError != "") || err != nil && !strings.Contains(err.Error(), tc.wantError) {
				t.Errorf("error %v, want one that names %q", err, tc.wantError)
			}
		})
	}
}
