package attach

// A look at the records for somebody who has no hooks to answer: what is still
// recorded of which claim in which pod.

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Records returns all that can be read, and an error that names those that cannot.
func (a *Attacher) Records() ([]Record, error) {
	list, err := a.records.list()
	if err != nil {
		return nil, err
	}
	files, err := os.ReadDir(a.records.dir)
	if err != nil {
		return nil, fmt.Errorf("cannot list attachment records: %w", err)
	}
	var faults []error
	for _, file := range files {
		path := filepath.Join(a.records.dir, file.Name())
		if raw, err := os.ReadFile(path); strings.HasSuffix(path, ".json") && err == nil && json.Unmarshal(raw, &Record{}) != nil {
			faults = append(faults, fmt.Errorf("attachment record %s is damaged; delete it once the pod is gone", path))
		}
	}
	return list, errors.Join(faults...)
}
