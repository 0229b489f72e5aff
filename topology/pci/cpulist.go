// The kernel's list format for CPUs, "0-55,112-167". Ranges stay ranges: what is
// read here is compared and passed on, never counted out.

package pci

import (
	"fmt"
	"strconv"
	"strings"
)

type cpuRange struct{ first, last int }

// cpuList is sorted and without overlaps, as the kernel prints it.
type cpuList []cpuRange

func parseCPUs(list string) (cpuList, error) {
	var cpus cpuList
	if list == "" {
		return nil, nil // a node without CPUs
	}
	for field := range strings.SplitSeq(list, ",") {
		from, to, isRange := strings.Cut(field, "-")
		if !isRange {
			to = from
		}
		first, err := strconv.ParseUint(from, 10, 31)
		if err != nil {
			return nil, fmt.Errorf("%q is not a list of CPUs", list)
		}
		last, err := strconv.ParseUint(to, 10, 31)
		if err != nil || last < first || len(cpus) > 0 && int(first) <= cpus[len(cpus)-1].last {
			return nil, fmt.Errorf("%q is not a list of CPUs", list)
		}
		cpus = append(cpus, cpuRange{int(first), int(last)})
	}
	return cpus, nil
}

// within tells whether every CPU is in the other list.
func (l cpuList) within(other cpuList) bool {
	for _, r := range l {
		inside := false
		for _, o := range other {
			inside = inside || o.first <= r.first && r.last <= o.last
		}
		if !inside {
			return false
		}
	}
	return true
}

func (l cpuList) String() string {
	fields := make([]string, len(l))
	for i, r := range l {
		fields[i] = strconv.Itoa(r.first)
		if r.last != r.first {
			fields[i] += "-" + strconv.Itoa(r.last)
		}
	}
	return strings.Join(fields, ",")
}
