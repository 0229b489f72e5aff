// Questions and orders to sysfs that the kernel may take its time over. To unbind a
// driver it waits, inside the write, until nobody uses the device any more (vfio-pci until
// the virtual machine closes it, see vfio_unregister_group_dev in the kernel's
// drivers/vfio/vfio_main.c), and no signal ends that; whoever reads driver_override meanwhile waits
// for the same lock. So each has a goroutine of its own, which its caller leaves behind when its
// time is up, and which the next caller waits for instead of queueing up behind it.

package vfio

import (
	"context"
	"fmt"
	"os"
	"time"
)

// operation is one read or write that was begun.
type operation struct {
	// path and value identify it; a read has no value.
	path, value string
	begun       time.Time
	// done is closed when the kernel has answered.
	done   chan struct{}
	answer string
	err    error
}

// UnansweredError says that the kernel has not answered yet. What was begun goes
// on, and whoever tries again waits for it.
type UnansweredError struct {
	Path string
	// Since when it has been waited for.
	Since time.Time
	// Cause is why the wait ended.
	Cause error
}

func (e *UnansweredError) Error() string {
	return fmt.Sprintf("the kernel has not answered at %s since %s: something on the node uses the device, and the kernel waits until it lets go (fuser -v on the device's nodes tells who); what was begun goes on, and is waited for again", e.Path, e.Since.Format(time.RFC3339))
}

// Unwrap returns why the wait ended.
func (e *UnansweredError) Unwrap() error { return e.Cause }

// write has the kernel take a value that concerns a PCI function.
func (b *Bus) write(ctx context.Context, pci, value string, elements ...string) error {
	path := b.sys.Path(elements...)
	_, err := b.operate(ctx, pci, path, value, func() (string, error) { return "", b.store(path, value) })
	return err
}

// read reads an attribute for which the kernel locks the PCI function.
func (b *Bus) read(ctx context.Context, pci, attribute string) (string, error) {
	elements := []string{"bus", "pci", "devices", pci, attribute}
	return b.operate(ctx, pci, b.sys.Path(elements...), "", func() (string, error) { return b.sys.Text(elements...) })
}

// operate runs one operation of a function at a time. What was begun earlier is
// waited for first; if it was the same, its answer is the answer.
func (b *Bus) operate(ctx context.Context, pci, path, value string, run func() (string, error)) (string, error) {
	for {
		o, mine := b.begin(pci, path, value, run)
		select {
		case <-o.done:
		case <-ctx.Done():
			return "", &UnansweredError{Path: o.path, Since: o.begun, Cause: context.Cause(ctx)}
		}
		if mine || o.path == path && o.value == value {
			return o.answer, o.err
		}
	}
}

// begin starts an operation, unless one of the function is under way.
func (b *Bus) begin(pci, path, value string, run func() (string, error)) (o *operation, mine bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if o := b.operations[pci]; o != nil {
		return o, false
	}
	o = &operation{path: path, value: value, begun: time.Now(), done: make(chan struct{})}
	b.operations[pci] = o
	go func() {
		o.answer, o.err = run()
		b.mu.Lock()
		delete(b.operations, pci)
		b.mu.Unlock()
		close(o.done)
	}()
	return o, true
}

// store writes as sysfs wants it: in one call, to a file that is there.
func store(path, value string) error {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		return err
	}
	_, err = file.WriteString(value)
	if closed := file.Close(); err == nil {
		err = closed
	}
	return err
}
