package machine

import (
	"fmt"
	"testing"
)

func BenchmarkRender(b *testing.B) {
	p, err := Load("dgx-h100")
	if err != nil {
		b.Fatal(err)
	}
	dir := TempDir(b)
	for i := range b.N {
		if _, err := Render(p, fmt.Sprintf("%s/%d", dir, i), RenderOptions{}); err != nil {
			b.Fatal(err)
		}
	}
}
