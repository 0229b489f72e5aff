package v1alpha1

// Validation of how Multus knows NICs. A resource name becomes an attribute of
// devices and part of a file's name, and has to be the very text of an annotation.

import (
	"regexp"

	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// maxResourceName is what the API takes as the value of a device's attribute.
const maxResourceName = 64

var pciAddress = regexp.MustCompile(`^[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]$`)

func validateMultusResourceNames(names []MultusResourceName, at *field.Path) field.ErrorList {
	var faults field.ErrorList
	addresses, interfaces := sets.New[string](), sets.New[string]()
	for i, entry := range names {
		at := at.Index(i)
		switch {
		case entry.ResourceName == "":
			faults = append(faults, field.Required(at.Child("resourceName"), "Multus finds NICs by it"))
		case len(entry.ResourceName) > maxResourceName:
			faults = append(faults, field.TooLong(at.Child("resourceName"), entry.ResourceName, maxResourceName))
		default:
			for _, message := range validation.IsQualifiedName(entry.ResourceName) {
				faults = append(faults, field.Invalid(at.Child("resourceName"), entry.ResourceName, message))
			}
		}
		if len(entry.PCIAddresses)+len(entry.Interfaces) == 0 && i < len(names)-1 {
			faults = append(faults, field.Required(at, "list pciAddresses or interfaces; an entry without any is for all NICs, and those after it for none"))
		}
		for j, address := range entry.PCIAddresses {
			at := at.Child("pciAddresses").Index(j)
			if !pciAddress.MatchString(address) {
				faults = append(faults, field.Invalid(at, address, `must be a PCI address in lower case with its domain, such as "0000:18:00.0"`))
			} else if addresses.Has(address) {
				faults = append(faults, field.Duplicate(at, address))
			}
			addresses.Insert(address)
		}
		for j, name := range entry.Interfaces {
			at := at.Child("interfaces").Index(j)
			if name == "" || len(name) > 15 {
				faults = append(faults, field.Invalid(at, name, "must be the name of a network interface, 1 to 15 characters"))
			} else if interfaces.Has(name) {
				faults = append(faults, field.Duplicate(at, name))
			}
			interfaces.Insert(name)
		}
	}
	return faults
}
