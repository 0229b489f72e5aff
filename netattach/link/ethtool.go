package link

// What ethtool(8) switches. Features and private flags belong to the device and
// not to its namespace: they go with it, and a pod's would come home with it.

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/safchain/ethtool"

	"github.com/hostler-dev/hostler/netattach"
)

// switches are an interface's features and private flags in one namespace.
type switches struct{ *ethtool.Ethtool }

// ethtool opens a socket in the space's namespace, by which the kernel knows which
// interface a name means.
func (s *space) ethtool() (switches, error) {
	var opened *ethtool.Ethtool
	err := s.inside(func() (err error) {
		opened, err = ethtool.NewEthtool()
		return err
	})
	if err != nil {
		return switches{}, fmt.Errorf("cannot open a socket for ethtool: %w", err)
	}
	return switches{opened}, nil
}

// switched says whether a device wants anything switched.
func switched(device netattach.DeviceIntent) bool {
	return len(device.Features)+len(device.PrivateFlags) > 0
}

// features are wanted ones, which the kernel keeps beside those that are on: one
// may be off only because another is.
func (s switches) features(name string) (wanted, active map[string]bool, err error) {
	states, err := s.FeaturesWithState(name)
	if err != nil {
		return nil, nil, fmt.Errorf("cannot read the features of %s: %w", name, err)
	}
	wanted, active = map[string]bool{}, map[string]bool{}
	for feature, state := range states {
		wanted[feature], active[feature] = state.Requested, state.Active
	}
	return wanted, active, nil
}

func (s switches) privateFlags(name string) (map[string]bool, error) {
	flags, err := s.PrivFlags(name)
	if err != nil {
		return nil, fmt.Errorf("cannot read the private flags of %s: %w; its driver may have none", name, err)
	}
	return flags, nil
}

// now returns those of the device's switches that it wants changed, as they are.
func (s switches) now(name string, device netattach.DeviceIntent) (features, flags map[string]bool, err error) {
	if len(device.Features) > 0 {
		wanted, _, err := s.features(name)
		if err != nil {
			return nil, nil, err
		}
		if features, err = chosen(wanted, device.Features, "feature", name); err != nil {
			return nil, nil, err
		}
	}
	if len(device.PrivateFlags) > 0 {
		all, err := s.privateFlags(name)
		if err != nil {
			return nil, nil, err
		}
		if flags, err = chosen(all, device.PrivateFlags, "private flag", name); err != nil {
			return nil, nil, err
		}
	}
	return features, flags, nil
}

func chosen(all, by map[string]bool, what, name string) (map[string]bool, error) {
	values := map[string]bool{}
	for _, key := range slices.Sorted(maps.Keys(by)) {
		value, known := all[key]
		if !known {
			return nil, fmt.Errorf("%s has no %s %q; `ethtool --show-features %s` and `ethtool --show-priv-flags %s` list what it has", name, what, key, name, name)
		}
		values[key] = value
	}
	return values, nil
}

// set switches what is not as wanted yet and reads it back. Features must be in
// effect then, too, unless they are put back to what they were: on the host one may
// have been wanted and not in effect.
func (s switches) set(name string, features, flags map[string]bool, inEffect bool) error {
	var faults []error
	if len(features) > 0 {
		faults = append(faults, s.setFeatures(name, features, inEffect))
	}
	if len(flags) > 0 {
		faults = append(faults, s.setFlags(name, flags))
	}
	return errors.Join(faults...)
}

func (s switches) setFeatures(name string, want map[string]bool, inEffect bool) error {
	wanted, active, err := s.features(name)
	if err != nil || contains(wanted, want) && (contains(active, want) || !inEffect) {
		return err
	}
	if err := s.Change(name, want); err != nil {
		return fmt.Errorf("cannot switch features of %s (%s): %w", name, listed(want), err)
	}
	if wanted, active, err = s.features(name); err != nil {
		return err
	}
	for _, feature := range slices.Sorted(maps.Keys(want)) {
		// What was asked for and is not on yet waits for another feature or for a
		// driver; what does not even count as asked for is fixed.
		if wanted[feature] != want[feature] {
			return fmt.Errorf("feature %s of %s stays %s: the driver does not let it be switched", feature, name, onOff(active[feature]))
		}
		if inEffect && active[feature] != want[feature] {
			return fmt.Errorf("feature %s of %s stays %s, although it was switched %s: the driver refuses it, or another feature that it depends on is off", feature, name, onOff(active[feature]), onOff(want[feature]))
		}
	}
	return nil
}

func (s switches) setFlags(name string, want map[string]bool) error {
	now, err := s.privateFlags(name)
	if err != nil || contains(now, want) {
		return err
	}
	if err := s.UpdatePrivFlags(name, want); err != nil {
		return fmt.Errorf("cannot switch private flags of %s (%s): %w", name, listed(want), err)
	}
	if now, err = s.privateFlags(name); err != nil {
		return err
	}
	for _, flag := range slices.Sorted(maps.Keys(want)) {
		if now[flag] != want[flag] {
			return fmt.Errorf("private flag %s of %s stays %s: the driver refuses it", flag, name, onOff(now[flag]))
		}
	}
	return nil
}

// contains says whether all has every key of part, and with the same value.
func contains(all, part map[string]bool) bool {
	for key, value := range part {
		if now, known := all[key]; !known || now != value {
			return false
		}
	}
	return true
}

func listed(want map[string]bool) string {
	text := ""
	for _, key := range slices.Sorted(maps.Keys(want)) {
		text += fmt.Sprintf(" %s %s", key, onOff(want[key]))
	}
	return text[min(1, len(text)):]
}

func onOff(on bool) string {
	if on {
		return "on"
	}
	return "off"
}
