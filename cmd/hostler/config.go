package main

// The agent's configuration comes from one documented kind, AgentConfig: first
// the file, then the flags on top. The flags are made from the kind's fields,
// so that neither can have a setting that the other lacks: paths.sys is
// --paths-sys.

import (
	"fmt"
	"os"
	"reflect"
	"strings"

	"github.com/spf13/pflag"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/hostler-dev/hostler/api/v1alpha1"
)

// configFlags collects the settings given as flags until the file is read.
type configFlags struct {
	file   string
	values []*flagValue
}

// flagValue is one setting: where it belongs in AgentConfig and what was given.
type flagValue struct {
	path  []int // field indices from AgentConfig down
	name  string
	kind  reflect.Type
	given *string
}

func (v *flagValue) String() string {
	if v == nil || v.given == nil {
		return ""
	}
	return *v.given
}

// Set checks the text against the field's type at once, so that the error
// names the flag.
func (v *flagValue) Set(text string) error {
	if err := decodeInto(reflect.New(v.kind), text); err != nil {
		return err
	}
	v.given = &text
	return nil
}

func (v *flagValue) Type() string {
	switch {
	case v.kind == reflect.TypeFor[metav1.Duration]():
		return "duration"
	case v.kind.Kind() == reflect.Pointer:
		return v.kind.Elem().String()
	}
	return v.kind.String()
}

// register adds --config and one flag per field of AgentConfig.
func (c *configFlags) register(flags *pflag.FlagSet) {
	flags.StringVar(&c.file, "config", "", "config file of kind AgentConfig (docs/configuration.md)")
	c.walk(flags, reflect.TypeFor[v1alpha1.AgentConfig](), nil, nil)
}

func (c *configFlags) walk(flags *pflag.FlagSet, t reflect.Type, path []int, names []string) {
	for i := range t.NumField() {
		field := t.Field(i)
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		if name == "" { // TypeMeta
			continue
		}
		at, called := append(append([]int{}, path...), i), append(append([]string{}, names...), name)
		if field.Type.Kind() == reflect.Struct && field.Type != reflect.TypeFor[metav1.Duration]() {
			c.walk(flags, field.Type, at, called)
			continue
		}
		value := &flagValue{path: at, name: strings.Join(called, "."), kind: field.Type}
		c.values = append(c.values, value)
		flags.Var(value, v1alpha1.FlagName(value.name), "overrides "+value.name+" of the config file")
	}
}

// load reads the file, lays the flags over it, and returns the whole defaulted and validated.
func (c *configFlags) load() (*v1alpha1.AgentConfig, error) {
	config := &v1alpha1.AgentConfig{}
	if c.file != "" {
		raw, err := os.ReadFile(c.file)
		if err != nil {
			return nil, fmt.Errorf("reading the config file: %w; correct --config or the file's permissions", err)
		}
		if config, err = v1alpha1.DecodeAgentConfig(raw); err != nil {
			return nil, fmt.Errorf("config file %s: %w", c.file, err)
		}
	}
	for _, v := range c.values {
		if v.given == nil {
			continue
		}
		if err := decodeInto(reflect.ValueOf(config).Elem().FieldByIndex(v.path).Addr(), *v.given); err != nil {
			return nil, fmt.Errorf("flag for %s: %w", v.name, err)
		}
	}
	v1alpha1.SetDefaults_AgentConfig(config)
	if errs := v1alpha1.ValidateAgentConfig(config); len(errs) > 0 {
		return nil, fmt.Errorf("configuration: %w", errs.ToAggregate())
	}
	return config, nil
}

// decodeInto reads a flag's text as the YAML value that the file would hold.
// Strings are taken as they are.
func decodeInto(target reflect.Value, text string) error {
	if target.Elem().Kind() == reflect.String {
		target.Elem().SetString(text)
		return nil
	}
	if target.Elem().Kind() == reflect.Slice && !strings.HasPrefix(text, "[") {
		text = "[" + text + "]"
	}
	if err := yaml.UnmarshalStrict([]byte(text), target.Interface()); err != nil {
		return fmt.Errorf("write %s", wanted(target.Elem().Type()))
	}
	return nil
}

// wanted says what a flag of the type takes.
func wanted(t reflect.Type) string {
	switch {
	case t == reflect.TypeFor[metav1.Duration]():
		return "a duration, such as 300ms, 5s or 1m30s"
	case t == reflect.TypeFor[*bool]():
		return "true or false"
	case t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.Struct:
		return "a list in YAML, as the config file has it, in [ and ]"
	case t.Kind() == reflect.Slice:
		return "a list of whole numbers, such as 13,31"
	}
	return "a whole number"
}
