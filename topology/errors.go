// Errors that readers of the machine share with the observer.

package topology

import "errors"

// ErrDriverMissing says that the node has no accelerator driver (yet). The
// observer publishes it as DriverMissing: a state of the node, not a fault.
var ErrDriverMissing = errors.New("no accelerator driver is installed")

// ErrNothingMade says of a partition that could not be made that no part of it
// is there either: what is found in its place is somebody else's.
var ErrNothingMade = errors.New("nothing was made")
