// The XID catalogue: which of the numbers that the NVIDIA driver reports say
// something about the GPU, and which only about the program that ran on it.
// Numbers and meanings follow NVIDIA's "XID Errors" guide; where existing tools
// disagree (63, 94, 109, 68, 69, 121) the milder class is taken, because the
// driver's own recovery action, probed right after every XID, decides upward.

package health

// Class says what an XID means for the device.
type Class string

const (
	// ClassApplication: a program's fault; the GPU is fine.
	ClassApplication Class = "application"
	// ClassInformational: a notice of the driver or the firmware.
	ClassInformational Class = "informational"
	// ClassConsult: the number alone does not say; the recovery action does.
	ClassConsult Class = "consult"
	// ClassDegraded: the GPU works with less margin.
	ClassDegraded Class = "degraded"
	// ClassReset: the GPU must be reset before something new runs there.
	ClassReset Class = "reset"
	// ClassFatal: a reboot or a hand is needed.
	ClassFatal Class = "fatal"
	// ClassUnknown: not in the catalogue; the recovery action decides.
	ClassUnknown Class = "unknown"
)

// Severity that an XID of this class has by itself.
func (c Class) Severity() Severity {
	switch c {
	case ClassFatal:
		return Fatal
	case ClassReset:
		return NeedsReset
	case ClassDegraded:
		return Degraded
	default:
		return Info
	}
}

// XID is one entry of the catalogue.
type XID struct {
	Code    uint64
	Meaning string
	Class   Class
}

// LookupXID returns the catalogue's entry, of ClassUnknown for a number that it
// does not have: a future driver's codes must not taint by accident.
func LookupXID(code uint64) XID {
	meaning, class := classify(code)
	return XID{Code: code, Meaning: meaning, Class: class}
}

// CatalogueSize is the highest XID that the catalogue classifies.
const CatalogueSize = 173

func classify(code uint64) (string, Class) {
	switch code {
	case 79:
		return "GPU has fallen off the bus", ClassFatal
	case 54:
		return "auxiliary power is not connected", ClassFatal
	case 64:
		return "row remapping or page retirement failed", ClassFatal
	case 151:
		return "key rotation failed, the machine must restart", ClassFatal
	case 46:
		return "GPU stopped processing", ClassReset
	case 48:
		return "double-bit ECC error", ClassReset
	case 62:
		return "internal micro-controller halt", ClassReset
	case 74:
		return "NVLink error", ClassReset
	case 95:
		return "uncontained memory error", ClassReset
	case 110:
		return "security fault", ClassReset
	case 119, 120:
		return "GPU system processor (GSP) error", ClassReset
	case 136:
		return "NVLink training failed", ClassReset
	case 140:
		return "unrecovered ECC error", ClassReset
	case 143:
		return "GPU initialisation failed", ClassReset
	case 155:
		return "NVLink software error", ClassReset
	case 156:
		return "resource retirement, effective after a reset", ClassReset
	case 158, 167:
		return "fatal timeout", ClassReset
	case 169:
		return "security processor (SEC2) halt", ClassReset
	case 171:
		return "uncorrectable DRAM error", ClassReset
	case 172:
		return "uncorrectable SRAM error", ClassReset
	case 173:
		return "fatal C2C link error", ClassReset
	case 63:
		return "row remapping or page retirement pending, effective after a reset", ClassDegraded
	case 94:
		return "contained memory error, only the faulting program was stopped", ClassDegraded
	case 157:
		return "resource retirement failed", ClassDegraded
	case 168:
		return "memory was reduced for a protected region", ClassDegraded
	case 109:
		return "context switch timeout", ClassConsult
	case 144, 145, 146, 147, 148, 149, 150:
		return "NVLink 5 error", ClassConsult
	case 154:
		return "GPU recovery action changed", ClassConsult
	default:
		return classifyHarmless(code)
	}
}

// classifyHarmless has the numbers that never taint by themselves.
func classifyHarmless(code uint64) (string, Class) {
	switch code {
	case 13:
		return "graphics engine exception", ClassApplication
	case 31:
		return "GPU memory page fault", ClassApplication
	case 43:
		return "a channel was reset after a program's fault", ClassApplication
	case 45:
		return "a channel was removed pre-emptively, mostly in the wake of another error", ClassApplication
	case 8, 11, 25, 32, 39, 40, 41, 60, 68, 69, 70, 71, 72, 75, 76, 77, 80, 82, 83, 84, 85, 86, 88, 89,
		96, 97, 98, 99, 100, 101, 102, 103, 104, 105,
		126, 127, 128, 129, 130, 131, 132, 133, 134, 135, 139:
		return "engine exception in a program", ClassApplication
	case 78:
		return "vGPU start error", ClassInformational
	case 92:
		return "high rate of single-bit ECC errors", ClassInformational
	case 121:
		return "corrected C2C link error", ClassInformational
	case 137:
		return "NVLink privilege error", ClassInformational
	case 159:
		return "CHI non-data error", ClassInformational
	case 160, 161:
		return "memory channel retirement", ClassInformational
	case 162, 163, 164, 165:
		return "power smoothing state changed", ClassInformational
	case 166, 170:
		return "confidential-computing NVLink notice", ClassInformational
	case 14, 37, 38, 44, 66, 67, 93, 106, 107, 108, 141, 152, 153:
		return "driver or firmware notice", ClassInformational
	case 1, 2, 3, 4, 5, 6, 7, 9, 10, 12, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 26, 27, 28, 29, 30,
		33, 34, 35, 36, 42, 47, 49, 50, 51, 52, 53, 55, 56, 57, 58, 59, 61, 65, 73, 81, 87, 90, 91,
		111, 112, 113, 114, 115, 116, 117, 118, 122, 123, 124, 125, 138, 142:
		return "unused or legacy number", ClassConsult
	default:
		return "number not in the catalogue", ClassUnknown
	}
}
