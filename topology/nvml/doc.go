// Package nvml reads NVIDIA GPUs through NVML. It is the only package that
// calls the library, and it is built for the library's bad days:
//
//   - Every call has a deadline. A call that does not return marks its GPU hung;
//     further calls to that GPU fail at once with ErrHung until it does return,
//     and no other GPU notices.
//   - Calling a symbol that the installed library lacks ends the process with
//     exit code 127 (lazy binding; nothing can be recovered). So required symbols
//     are looked up before the first call, optional ones before each use.
//   - One getter that fails costs one attribute and leaves a topology.Problem.
//   - What changes a GPU (CreatePartition, DestroyPartition) is read back, is
//     undone if it stays half done, and may take longer without calling the GPU hung.
//
// A Session is one initialisation of the library. When the driver goes away (GPUs
// returns an error), close the Session and Open again; opening an absent
// driver gives ErrLibraryMissing, which is a state of the node and not a fault.
package nvml
