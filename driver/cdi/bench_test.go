package cdi

import "testing"

// BenchmarkBuild makes the spec of a claim for a GPU whose driver's files are there.
func BenchmarkBuild(b *testing.B) {
	machine := builder(b)
	claim := withDriverFiles(b, machine)
	for b.Loop() {
		if _, err := machine.Build(b.Context(), claim); err != nil {
			b.Fatal(err)
		}
	}
}
