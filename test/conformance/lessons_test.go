package conformance

// docs/lessons.md says of each defect of other projects which test of ours would
// fail if we had it. The page is worth something only while those tests are there:
// each file, function and table row that it names is looked up.

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

const repository = "../.."

func TestTheLessonsNameTestsThatExist(t *testing.T) {
	page, err := os.ReadFile(filepath.Join(repository, "docs", "lessons.md"))
	if err != nil {
		t.Fatal(err)
	}
	problems, rows := checkLessons(string(page), readFromRepository)
	for _, problem := range problems {
		t.Errorf("docs/lessons.md:%s", problem)
	}
	if rows == 0 {
		t.Error("docs/lessons.md has no lessons")
	}
}

func TestALessonWithoutItsTestIsFound(t *testing.T) {
	read := func(path string) (string, error) {
		if path != "room/some_test.go" {
			return "", os.ErrNotExist
		}
		return "func TestSome(t *testing.T) {\n{name: \"a row\"},\n\"another row\": {},\n}\nfunc FuzzSome(f *testing.F) {\nfunc testOther(t *testing.T) {", nil
	}
	for _, c := range []struct{ cell, want string }{
		{"`room/some_test.go: TestSome`", ""},
		{"`room/some_test.go: TestSome/a row`, `room/some_test.go: TestSome/another row`", ""},
		{"`room/some_test.go: FuzzSome`", ""},
		{"none: only real hardware shows it", ""},
		{"`room/gone_test.go: TestSome`", "1: room/gone_test.go: file does not exist"},
		{"`room/some_test.go: TestSom`", "1: room/some_test.go has no TestSom"},
		{"`room/some_test.go: TestSome/a`", `1: room/some_test.go has no row "a" of TestSome`},
		{"`room/some_test.go: testOther`", "1: \"`room/some_test.go: testOther`\" is no list of tests and gives no reason"},
		{"`room/some_test.go: TestSome`, `room/some_test.go TestSome`", "1: \"`room/some_test.go: TestSome`, `room/some_test.go TestSome`\" is no list of tests and gives no reason"},
		{"none", `1: "none" is no list of tests and gives no reason`},
		{"", `1: "" is no list of tests and gives no reason`},
		{"`room/some_test.go: TestSome` | more", "1: a row has 4 cells, this one has 5"},
	} {
		problems, _ := checkLessons("| It broke | there | not here | "+c.cell+" |", read)
		if got := strings.Join(problems, "\n"); got != c.want {
			t.Errorf("of %s it is said %q, want %q", c.cell, got, c.want)
		}
	}
}

func readFromRepository(path string) (string, error) {
	raw, err := os.ReadFile(filepath.Join(repository, path))
	return string(raw), err
}

var namedTest = regexp.MustCompile("`([^`: ]+_test\\.go): ((?:Test|Fuzz)\\w*)(?:/([^`]+))?`")

// checkLessons says what is wrong with the page's rows, each with its line, and how many there are.
func checkLessons(page string, read func(path string) (string, error)) (problems []string, rows int) {
	for i, line := range strings.Split(page, "\n") {
		row, isRow := strings.CutPrefix(line, "| ")
		if !isRow || strings.HasPrefix(row, "What went wrong |") {
			continue
		}
		rows++
		for _, problem := range checkLesson(strings.TrimSuffix(row, " |"), read) {
			problems = append(problems, fmt.Sprintf("%d: %s", i+1, problem))
		}
	}
	return problems, rows
}

func checkLesson(row string, read func(path string) (string, error)) (problems []string) {
	cells := strings.Split(row, " | ")
	if len(cells) != 4 {
		return []string{fmt.Sprintf("a row has 4 cells, this one has %d", len(cells))}
	}
	named := namedTest.FindAllStringSubmatch(cells[3], -1)
	if len(named) != strings.Count(cells[3], "_test.go") || len(named) == 0 && !strings.HasPrefix(cells[3], "none: ") {
		return []string{fmt.Sprintf("%q is no list of tests and gives no reason", cells[3])}
	}
	for _, n := range named {
		path, function, name := n[1], n[2], n[3]
		source, err := read(path)
		switch {
		case err != nil:
			problems = append(problems, fmt.Sprintf("%s: %v", path, err))
		case !strings.Contains(source, "\nfunc "+function+"(") && !strings.HasPrefix(source, "func "+function+"("):
			problems = append(problems, fmt.Sprintf("%s has no %s", path, function))
		case name != "" && !strings.Contains(source, strconv.Quote(name)):
			problems = append(problems, fmt.Sprintf("%s has no row %q of %s", path, name, function))
		}
	}
	return problems
}
