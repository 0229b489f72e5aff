package main

import (
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"k8s.io/client-go/kubernetes/scheme"
)

// residentFilePages is how much of files is mapped into the process, in KiB.
func residentFilePages(t *testing.T) int {
	t.Helper()
	raw, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile(`RssFile:\s+(\d+) kB`).FindSubmatch(raw)
	if found == nil {
		t.Fatalf("the kernel does not say it: %s", raw)
	}
	kib, err := strconv.Atoi(string(found[1]))
	if err != nil {
		t.Fatal(err)
	}
	return kib
}

func TestPagesOfTheStartAreDropped(t *testing.T) {
	before := residentFilePages(t)
	if err := dropProgram("/proc/self/exe"); err != nil {
		t.Fatal(err)
	}
	if after := residentFilePages(t); after > before/2 {
		t.Errorf("%d KiB of files are resident, %d before", after, before)
	}
	// Code and constants are there where they are needed.
	if len(scheme.Scheme.AllKnownTypes()) < 100 || strings.Repeat("x", 3) != "xxx" {
		t.Error("the program has changed")
	}
}
