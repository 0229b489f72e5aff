package main

// What a wrong command line or config file answers: one sentence that names what
// is wrong and what would be right.

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestWrongInputIsRefusedWithARemedy(t *testing.T) {
	file := func(content string) string {
		path := filepath.Join(t.TempDir(), "config.yaml")
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		return "--config=" + path
	}
	const head = "apiVersion: hostler.dev/v1alpha1\nkind: AgentConfig\n"
	for name, test := range map[string]struct {
		args []string
		says []string
	}{
		"an unknown key in the file":         {[]string{"agent", file(head + "metrics: {port: 80}\n")}, []string{`unknown field "metrics.port"`, "the fields there are: address, interval"}},
		"a key of the wrong type":            {[]string{"agent", file(head + "logging: {verbosity: much}\n")}, []string{"logging.verbosity", "string", "a whole number of 32 bits", "correct the value"}},
		"a file of another kind":             {[]string{"agent", file("apiVersion: hostler.dev/v1alpha1\nkind: GPUConfig\n")}, []string{`kind: "GPUConfig"`, "write one of AgentConfig"}},
		"a file that is not YAML":            {[]string{"agent", file("{")}, []string{"neither JSON nor YAML", "AgentConfig"}},
		"a file that is not there":           {[]string{"agent", "--config=/does/not/exist"}, []string{"/does/not/exist: no such file", "correct --config"}},
		"a directory as file":                {[]string{"agent", "--config=" + t.TempDir()}, []string{"is a directory", "correct --config"}},
		"a value out of bounds in the file":  {[]string{"agent", file(head + "discovery: {pollInterval: 1ms}\n")}, []string{"discovery.pollInterval", "must be at least 1s"}},
		"a relative path":                    {[]string{"agent", "--paths-sys=sys"}, []string{"paths.sys", "must be an absolute path"}},
		"a word for a duration":              {[]string{"agent", "--metrics-interval=fast"}, []string{`"fast"`, "--metrics-interval", "write a duration, such as"}},
		"a word for a number":                {[]string{"agent", "--logging-verbosity=much"}, []string{`"much"`, "--logging-verbosity", "write a whole number"}},
		"a word in a list of numbers":        {[]string{"agent", "--health-ignored-xids=13,all"}, []string{`"13,all"`, "--health-ignored-xids", "write a list of whole numbers, such as 13,31"}},
		"a number for yes or no":             {[]string{"agent", "--health-node-taint=2"}, []string{`"2"`, "--health-node-taint", "write true or false"}},
		"a flag that is not there":           {[]string{"agent", "--metrics-port=1"}, []string{"unknown flag: --metrics-port", "`hostler agent --help`"}},
		"an argument that no one asked for":  {[]string{"agent", "now"}, []string{`"now"`, "hostler agent"}},
		"an output that topology cannot do":  {[]string{"topology", "--output=png"}, []string{`--output "png"`, "matrix, tree, svg, dot, json, yaml"}},
		"a listen address without a port":    {[]string{"agent", "--metrics-address=localhost"}, []string{"metrics.address", `must be "host:port"`}},
		"a log format that no one can write": {[]string{"agent", "--logging-format=xml"}, []string{"logging.format", `"json", "text"`}},
	} {
		t.Run(name, func(t *testing.T) {
			command := newRootCommand()
			command.SetArgs(test.args)
			command.SetOut(io.Discard)
			err := command.ExecuteContext(t.Context())
			if err == nil {
				t.Fatal("it was accepted")
			}
			for _, words := range test.says {
				if !strings.Contains(err.Error(), words) {
					t.Errorf("the error does not say %q: %v", words, err)
				}
			}
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("the error is more than one line: %v", err)
			}
		})
	}
}
