package machine

import (
	"fmt"
	"testing"
)

func BenchmarkRender(b *testing.B) {
	for _, name := range []string{"dgx-h100", large} {
		b.Run(name, func(b *testing.B) {
			p, err := Load(name)
			if err != nil {
				b.Fatal(err)
			}
			dir := TempDir(b)
			for i := range b.N {
				if _, err := Render(p, fmt.Sprintf("%s/%d", dir, i), RenderOptions{}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
