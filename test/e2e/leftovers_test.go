package e2e

// After each scenario the node must hold what it held before, and nothing else.

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// partitions maps the GPUs in MIG mode to how they are cut, in the words of nvmlsim's file mig_instances.
func (b *bed) partitions() (map[string]string, error) {
	modes, err := filepath.Glob(filepath.Join(b.nvml().Dir, "gpu*", "mig_mode"))
	if err != nil {
		return nil, err
	}
	cut := map[string]string{}
	for _, mode := range modes {
		raw, err := os.ReadFile(mode)
		if err != nil {
			return nil, err
		}
		if !strings.HasPrefix(string(raw), "1") {
			continue
		}
		instances, err := os.ReadFile(filepath.Join(filepath.Dir(mode), "mig_instances"))
		if err != nil && !os.IsNotExist(err) {
			return nil, err
		}
		cut[filepath.Base(filepath.Dir(mode))] = string(instances)
	}
	return cut, nil
}

// leftovers names the first thing on the node that should be gone.
func (b *bed) leftovers(before snapshot) error {
	for what, pattern := range map[string]string{"CDI specs": filepath.Join(b.CDI, "*hostler*"), "attachment records": filepath.Join(b.Root, "run/hostler/attached/*.json"), "metadata files": b.metadata("*")} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			return err
		}
		if len(files) > 0 {
			return fmt.Errorf("%s are left: %v", what, files)
		}
	}
	entries, err := b.journalEntries()
	if err != nil {
		return err
	}
	if len(entries) > 0 {
		return fmt.Errorf("journal entries are left: %v", entries)
	}
	tables, err := exec.Command("nsenter", "--net="+b.NetNS, "nft", "list", "tables").CombinedOutput()
	if err != nil {
		return fmt.Errorf("listing the node's nft tables: %w: %s", err, tables)
	}
	if strings.Contains(string(tables), "hostler") {
		return fmt.Errorf("nft tables are left in the node's own namespace: %s", tables)
	}
	return b.asBefore(before)
}
