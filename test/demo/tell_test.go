package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestWrapKeepsEveryWordWithinTheWidth(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		words := rapid.SliceOf(rapid.StringMatching(`[a-zé✓.]{1,12}`)).Draw(t, "words")
		width := rapid.IntRange(12, 40).Draw(t, "width")
		lines := wrap(strings.Join(words, " \n\t"), width)
		if got, want := strings.Fields(strings.Join(lines, " ")), strings.Join(words, " "); strings.Join(got, " ") != want {
			t.Fatalf("the words became %q, were %q", got, want)
		}
		for _, line := range lines {
			if len([]rune(line)) > width {
				t.Fatalf("line %q is longer than %d characters", line, width)
			}
		}
	})
}

func TestColoursAreForTerminals(t *testing.T) {
	file, err := os.Create(filepath.Join(t.TempDir(), "story"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	n := newNarrator(file)
	n.chapter("The machine", "What happens.")
	n.command("kubectl get nodes \\\n  -o wide")
	n.output("  NAME  \n  node1\n\n")
	n.held("%d nodes.", 1)
	told, err := os.ReadFile(file.Name())
	if err != nil {
		t.Fatal(err)
	}
	heading := "── 1. The machine "
	want := "\n" + heading + strings.Repeat("─", textWidth-len([]rune(heading))) + `
What happens.

$ kubectl get nodes \
>   -o wide
    NAME
    node1

✓ 1 nodes.
`
	if string(told) != want {
		t.Errorf("the story in a file:\n%s\nwant:\n%s", told, want)
	}
	n.colours = true
	if painted := n.paint(green, "✓"); painted != "\x1b[32m✓\x1b[0m" {
		t.Errorf("green on a terminal: %q", painted)
	}
}
