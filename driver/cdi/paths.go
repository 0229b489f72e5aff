// Small functions over paths and edits.

package cdi

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"k8s.io/klog/v2"
)

// rebase replaces the leading directory from by to; other paths are unchanged.
func rebase(path, from, to string) string {
	from, to = filepath.Clean(from), filepath.Clean(to)
	if from == to {
		return path
	}
	if from == "/" {
		return filepath.Join(to, path)
	}
	if rest, inside := strings.CutPrefix(path, from+"/"); inside {
		return filepath.Join(to, rest)
	}
	return path
}

// oneLine is for nvcdi's errors, which list one library per line.
func oneLine(err error) string { return strings.Join(strings.Fields(err.Error()), " ") }

// stamp changes when the file or directory does.
func stamp(path string) string {
	info, err := os.Stat(path)
	if err != nil {
		return "absent"
	}
	return fmt.Sprintf("%d/%d", info.Size(), info.ModTime().UnixNano())
}

// library is the logger that nvcdi wants. What it calls information is detail here.
type library struct{ logger klog.Logger }

func (l library) Debugf(format string, args ...any) { l.logger.V(5).Info(fmt.Sprintf(format, args...)) }
func (l library) Tracef(format string, args ...any) { l.logger.V(6).Info(fmt.Sprintf(format, args...)) }
func (l library) Infof(format string, args ...any)  { l.logger.V(5).Info(fmt.Sprintf(format, args...)) }
func (l library) Warningf(format string, args ...any) {
	l.logger.V(4).Info(fmt.Sprintf(format, args...))
}
func (l library) Errorf(format string, args ...any) {
	l.logger.Error(nil, fmt.Sprintf(format, args...))
}
