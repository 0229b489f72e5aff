// JSON and YAML are the snapshot itself, for scripts and bug reports.

package topology

import (
	"encoding/json"
	"fmt"
	"io"

	"sigs.k8s.io/yaml"
)

// WriteJSON writes the snapshot as indented JSON.
func WriteJSON(w io.Writer, s *Snapshot) error {
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(s); err != nil {
		return fmt.Errorf("write the topology as JSON: %w", err)
	}
	return nil
}

// WriteYAML writes the snapshot as YAML, with JSON's field names.
func WriteYAML(w io.Writer, s *Snapshot) error {
	raw, err := yaml.Marshal(s)
	if err != nil {
		return fmt.Errorf("write the topology as YAML: %w", err)
	}
	_, err = w.Write(raw)
	return err
}
