package main

// Logging as Kubernetes components do it: klog in front, text or JSON behind.

import (
	"fmt"

	"k8s.io/component-base/featuregate"
	logsapi "k8s.io/component-base/logs/api/v1"
	_ "k8s.io/component-base/logs/json/register" // the format "json"

	"github.com/hostler-dev/hostler/api/v1alpha1"
)

func setUpLogging(cfg v1alpha1.LoggingConfig) error {
	options := logsapi.NewLoggingConfiguration()
	options.Format = cfg.Format
	options.Verbosity = logsapi.VerbosityLevel(cfg.Verbosity)
	gate := featuregate.NewFeatureGate()
	if err := logsapi.AddFeatureGates(gate); err != nil {
		return fmt.Errorf("setting up logging: %w", err)
	}
	if err := logsapi.ValidateAndApply(options, gate); err != nil {
		return fmt.Errorf("setting up logging: %w", err)
	}
	return nil
}
