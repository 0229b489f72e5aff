// Strings from NVML. They come from firmware and VBIOS, by way of fixed C
// buffers, and end in logs, labels and API objects; an EEPROM that was never written
// has given 0xFF bytes, a serial number trailing blanks.

package nvml

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// clean is the text without what no reader of a slice or log expects: bytes
// that are not UTF-8, control and other invisible characters, blanks at the ends.
func clean(text string) string {
	return strings.TrimSpace(strings.Map(func(c rune) rune {
		if c == utf8.RuneError || !unicode.IsPrint(c) {
			return -1
		}
		return c
	}, text))
}

// cString reads a C buffer up to its first zero byte.
func cString(buffer []int8) string {
	text := make([]byte, 0, len(buffer))
	for _, c := range buffer {
		if c == 0 {
			break
		}
		text = append(text, byte(c))
	}
	return string(text)
}
