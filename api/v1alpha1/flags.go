package v1alpha1

// The agent's flags follow from the fields of its config file. The rule stands
// here, beside the fields, because the command line and the documentation must
// not differ about it.

import (
	"strings"
	"unicode"
)

// FlagName is the flag that overrides a field of AgentConfig, without the two
// dashes: "paths.driverRoot" is set by --paths-driver-root, "health.ignoredXIDs"
// by --health-ignored-xids.
func FlagName(field string) string {
	var name strings.Builder
	var previous rune
	for _, r := range field {
		switch {
		case r == '.':
			name.WriteByte('-')
		case unicode.IsUpper(r) && unicode.IsLower(previous):
			name.WriteByte('-')
			name.WriteRune(unicode.ToLower(r))
		default:
			name.WriteRune(unicode.ToLower(r))
		}
		previous = r
	}
	return name.String()
}
