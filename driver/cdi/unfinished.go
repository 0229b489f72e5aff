// An agent can be killed while it writes a spec. What it had begun is no spec, and
// the next write takes its place; but a claim that ends has no next write.

package cdi

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"k8s.io/apimachinery/pkg/types"
)

// unfinished is where the file is written before it is put into its place.
func unfinished(file string) string {
	return filepath.Join(filepath.Dir(file), "."+filepath.Base(file)+".tmp")
}

// RemoveUnfinished deletes what a killed agent may have begun to write of the claim's
// file.
func (d Directory) RemoveUnfinished(claim types.UID) error {
	err := os.Remove(unfinished(d.File(claim)))
	// On a read-only file system none was begun, or it is gone with the next boot.
	if err == nil || gone(err) || errors.Is(err, syscall.EROFS) {
		return nil
	}
	return fmt.Errorf("remove an unfinished CDI spec of claim %s: %w; %s must be writable for the agent", claim, err, d.Path)
}
