package vm

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestArchive reads an archive back with cpio(1), which knows the format from elsewhere.
func TestArchive(t *testing.T) {
	if _, err := exec.LookPath("cpio"); err != nil {
		t.Skip("needs cpio to read the archive; install the package cpio")
	}
	write := func() []byte {
		var b bytes.Buffer
		a := newArchive(&b)
		a.add("init", modeProgram, []byte("#!/bin/sh\n"))
		a.add("a/b/odd", modeFile, []byte("12345"))
		a.add("/a/empty", modeFile, nil)
		a.directory("a/b")
		if err := a.close(); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	content := write()
	if !bytes.Equal(content, write()) {
		t.Error("the same entries gave different bytes")
	}
	dir := t.TempDir()
	cmd := exec.Command("cpio", "-idv", "--quiet", "--no-preserve-owner")
	cmd.Dir, cmd.Stdin = dir, bytes.NewReader(content)
	listed, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("cpio: %v: %s", err, listed)
	}
	if want := []string{"init", "a", "a/b", "a/b/odd", "a/empty"}; !cmp.Equal(want, strings.Fields(string(listed))) {
		t.Errorf("entries %q, want %q", strings.Fields(string(listed)), want)
	}
	if got, err := os.ReadFile(filepath.Join(dir, "a/b/odd")); err != nil || string(got) != "12345" {
		t.Errorf("a/b/odd holds %q (%v)", got, err)
	}
	if info, err := os.Stat(filepath.Join(dir, "init")); err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("init has mode %v (%v), want 0755", info, err)
	}
}

func TestRunScriptPassesEveryWordUnchanged(t *testing.T) {
	dir := t.TempDir()
	script := runScript("program", Options{Args: []string{"it's", "$HOME", "", "a\nb"}, Env: []string{"QUOTED=`date` \"'"}})
	// The script changes to the machine's folder; here it runs where this test's program is.
	script = bytes.Replace(script, []byte("cd "+guestDir), []byte("cd "+quote(dir)), 1)
	program := "#!/bin/sh\nprintf '<%s>' \"$@\" \"$QUOTED\" \"$" + GuestEnv + "\"\n"
	if err := os.WriteFile(filepath.Join(dir, "program"), []byte(program), 0o755); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("/bin/sh", "-c", string(script)).CombinedOutput()
	if want := "<it's><$HOME><><a\nb><`date` \"'><1>"; err != nil || string(out) != want {
		t.Errorf("the program saw %q (%v), want %q", out, err, want)
	}
}

func TestFilesMayNotLeaveTheProgramsFolder(t *testing.T) {
	for _, target := range []string{"../init", "/init", "program", "run", ""} {
		err := writeRun(&bytes.Buffer{}, Options{TestBinary: "/bin/sh", Files: map[string]string{target: "/bin/sh"}})
		if err == nil {
			t.Errorf("a file was accepted as %q", target)
		}
	}
}
