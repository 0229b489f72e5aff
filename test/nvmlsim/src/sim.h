// What the simulator's parts share. The state of the simulated driver is a
// folder of small text files (see README.md) that a test or a shell changes. Each
// call sees what was written before it.
#ifndef NVMLSIM_H
#define NVMLSIM_H

#include <stdbool.h>
#include <stddef.h>

// Only NVML's own names leave the library.
#pragma GCC visibility push(default)
#include "nvml.h"
#pragma GCC visibility pop

enum { MAX_GPUS = 256, SMALL = 512, LARGE = 16384 };

// texts.c: what the files of the control folder hold.

// sim_read reads a file of the control folder, up to LARGE bytes, without its
// trailing newline; false if there is none.
bool sim_read(const char *path, char *buffer, size_t size);
// sim_gpu_count counts the folders gpu0, gpu1, ...
unsigned int sim_gpu_count(void);
// sim_read_anew trusts nothing that was read before.
void sim_read_anew(void);

// control.c: the control folder.

// sim_control is its path; another pointer is another folder.
const char *sim_control(void);
// sim_path makes the absolute path of a file of the control folder.
void sim_path(const char *name, char *buffer, size_t size);
// sim_gpu_text and sim_gpu_number read gpu<N>/<name>; a missing file is an
// attribute that the GPU does not support.
nvmlReturn_t sim_gpu_text(nvmlDevice_t device, const char *name, char *buffer, size_t size);
nvmlReturn_t sim_gpu_number(nvmlDevice_t device, const char *name, unsigned long long *value);
// sim_unbound: the driver does not have this GPU, which is bound to another or to none.
bool sim_unbound(unsigned int gpu);
// sim_gpu_at finds the GPU of that rank among those that the driver has.
bool sim_gpu_at(unsigned int rank, unsigned int *gpu);
// sim_copy copies a string to a caller's buffer as NVML does.
nvmlReturn_t sim_copy(const char *text, char *buffer, unsigned int size);

// sim_device makes a handle, sim_index takes one apart (-1 if it is none).
nvmlDevice_t sim_device(unsigned int index);
int sim_index(nvmlDevice_t device);

// faults.c: what goes wrong.

// sim_enter is the first step of every call: is the library initialised, is
// the driver alive, does a rule in `calls` make this call fail, wait or hang,
// is the GPU lost? gpu is -1 for calls that concern none.
nvmlReturn_t sim_enter(const char *call, int gpu);
// sim_rules applies the rules in `calls` alone.
nvmlReturn_t sim_rules(const char *call, int gpu);
bool sim_driver_dead(void);
nvmlReturn_t sim_init(const char *call);
nvmlReturn_t sim_shutdown(void);

// pci.c
bool sim_pci_parse(const char *address, unsigned int *domain, unsigned int *bus, unsigned int *device);
void sim_pci_fill(const char *address, unsigned int id, unsigned int subsystem, nvmlPciInfo_t *info);

// ENTER begins a call on a device, ENTER_SYSTEM one without.
#define ENTER(device)                                                   \
    do {                                                                \
        if (sim_index(device) < 0)                                      \
            return NVML_ERROR_INVALID_ARGUMENT;                         \
        nvmlReturn_t entered = sim_enter(__func__, sim_index(device));  \
        if (entered != NVML_SUCCESS)                                    \
            return entered;                                             \
    } while (0)
#define ENTER_SYSTEM()                                      \
    do {                                                    \
        nvmlReturn_t entered = sim_enter(__func__, -1);     \
        if (entered != NVML_SUCCESS)                        \
            return entered;                                 \
    } while (0)
#define WANT(pointer)                                       \
    do {                                                    \
        if ((pointer) == NULL)                              \
            return NVML_ERROR_INVALID_ARGUMENT;             \
    } while (0)
#define TRY(expression)                                     \
    do {                                                    \
        nvmlReturn_t tried = (expression);                  \
        if (tried != NVML_SUCCESS)                          \
            return tried;                                   \
    } while (0)

#endif
