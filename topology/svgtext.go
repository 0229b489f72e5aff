// How wide text is. A drawing cannot ask the viewer's fonts, so every text is
// measured with widths that no common sans-serif exceeds (those of DejaVu Sans,
// the widest of them) and cut with an ellipsis where its box ends.

package topology

import (
	"strings"
	"unicode/utf8"
)

// typeface of a text class, in pixels.
type typeface struct {
	size       float64
	bold, mono bool
}

// faceOf is the typeface of a text's class; svgStyle gives the same sizes.
func faceOf(class string) typeface {
	first, _, _ := strings.Cut(class, " ")
	switch first {
	case "title":
		return typeface{size: 22, bold: true}
	case "heading", "name":
		return typeface{size: 15, bold: true}
	case "strong", "fabricname":
		return typeface{size: 12, bold: true}
	case "note":
		return typeface{size: 11, bold: true}
	case "tagname":
		return typeface{size: 10, bold: true}
	case "mono":
		return typeface{size: 10, mono: true}
	case "tiny":
		return typeface{size: 10}
	}
	return typeface{size: 11} // small, muted
}

// width of a text, never less than what it takes on a screen.
func (f typeface) width(text string) float64 {
	total := 0.0
	for _, r := range text {
		total += f.em(r)
	}
	return total * f.size
}

// Advances of the characters from space to tilde in DejaVu Sans and DejaVu Sans
// Bold, in hundredths of the size, rounded up; each as the character with that code, plus advanceOffset.
const (
	advances      = `/8=cOo]+77Ac/4/1OOOOOOOOOO11cccEsTTU]OI][--QGfZ^L^UOMYTrTMT717cAAMOFOM3OO++I+qOMOO9D7OKaKKDO1Oc`
	boldAdvances  = `2=DcUtg.==Dc5954UUUUUUUUUU77cccJs]\YcTTbc55]OsceYe]XTa]~]XX=4=cAASWKWS;WW22R2xWTWWAK?WQlPQJW4Wc`
	advanceOffset = 15
)

// em is a character's advance in parts of the size.
func (f typeface) em(r rune) float64 {
	switch {
	case f.mono && r < utf8.RuneSelf:
		return 0.605
	case r >= ' ' && r <= '~' && f.bold:
		return float64(boldAdvances[r-' ']-advanceOffset) / 100
	case r >= ' ' && r <= '~':
		return float64(advances[r-' ']-advanceOffset) / 100
	case r == '·', r == '–':
		return 0.5
	case r >= 0x10000:
		return 1.4 // emoji and their like
	}
	return 1.05
}

// fit shortens a text to at most that many pixels.
func (f typeface) fit(text string, width float64) string {
	text = plain(text)
	if f.width(text) <= width {
		return text
	}
	width -= f.width("…")
	end := 0
	for i, r := range text {
		if width -= f.em(r) * f.size; width < 0 {
			break
		}
		end = i + utf8.RuneLen(r)
	}
	if end == 0 {
		return ""
	}
	return strings.TrimRight(text[:end], " ") + "…"
}
