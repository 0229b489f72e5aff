package main

// How the story looks: numbered chapters, sentences wrapped to a terminal's
// width, commands behind a "$", their output indented under them, and a check
// mark where a promise held. Colours only on a terminal that wants them
// (https://no-color.org).

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	textWidth    = 100
	outputIndent = "  "
)

type narrator struct {
	out      io.Writer
	colours  bool
	chapters int
	began    time.Time
}

func newNarrator(out *os.File) *narrator {
	_, err := unix.IoctlGetTermios(int(out.Fd()), unix.TCGETS)
	terminal := err == nil && os.Getenv("TERM") != "dumb"
	return &narrator{out: out, colours: terminal && os.Getenv("NO_COLOR") == "", began: time.Now()}
}

// Styles are ANSI's "select graphic rendition" codes.
const (
	bold    = "1"
	dim     = "2"
	green   = "32"
	magenta = "1;35"
	cyan    = "36"
)

func (n *narrator) paint(style, text string) string {
	if !n.colours {
		return text
	}
	return "\x1b[" + style + "m" + text + "\x1b[0m"
}

func (n *narrator) line(text string) { fmt.Fprintln(n.out, text) }

func (n *narrator) title(text string) {
	n.line("\n" + n.paint(bold, text))
}

// chapter begins the next chapter with what happens in it and why it matters.
func (n *narrator) chapter(title, what string) {
	n.chapters++
	heading := fmt.Sprintf("── %d. %s ", n.chapters, title)
	rule := strings.Repeat("─", max(0, textWidth-len([]rune(heading))))
	n.line("\n" + n.paint(magenta, heading+rule))
	n.say(what)
}

// say prints sentences.
func (n *narrator) say(text string) {
	for _, line := range wrap(text, textWidth) {
		n.line(line)
	}
}

// command shows what is run, as it would be typed; a command of several lines keeps them.
func (n *narrator) command(text string) {
	prompt := "$ "
	n.line("")
	for line := range strings.SplitSeq(text, "\n") {
		n.line(prompt + n.paint(cyan, line))
		prompt = "> "
	}
}

// output shows what a command answered.
func (n *narrator) output(text string) {
	text = strings.TrimRight(text, " \n")
	if text == "" {
		return
	}
	for line := range strings.SplitSeq(text, "\n") {
		n.line(strings.TrimRight(outputIndent+line, " "))
	}
}

// held says which promise was just kept.
func (n *narrator) held(format string, args ...any) {
	lines := wrap(fmt.Sprintf(format, args...), textWidth-2)
	n.line("\n" + n.paint(green, "✓ "+strings.Join(lines, "\n  ")))
}

// aside is a remark that the story could do without.
func (n *narrator) aside(format string, args ...any) {
	for _, line := range wrap(fmt.Sprintf(format, args...), textWidth) {
		n.line(n.paint(dim, line))
	}
}

// wrap breaks text at spaces into lines of at most width characters; a longer word gets its own line.
func wrap(text string, width int) []string {
	var lines []string
	line := ""
	for word := range strings.FieldsSeq(text) {
		if line != "" && len([]rune(line))+1+len([]rune(word)) > width {
			lines, line = append(lines, line), ""
		}
		if line != "" {
			line += " "
		}
		line += word
	}
	if line != "" {
		lines = append(lines, line)
	}
	return lines
}
