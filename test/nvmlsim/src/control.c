// The control folder: where it is, and what its files mean.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim.h"

struct nvmlDevice_st {
    unsigned int index;
};

static struct nvmlDevice_st devices[MAX_GPUS];
static _Atomic(const char *) control = "";

// nvmlsim_use_control steers the library from another folder. A Go process
// binds each NVML symbol once, to the library that it loaded first, whatever it
// opens afterwards; so a library that is loaded later hands its folder to the
// first one, and a test process sees the machine that it opened last.
__attribute__((visibility("default"))) void nvmlsim_use_control(const char *folder) {
    const char *copy = strdup(folder);
    if (copy != NULL)
        atomic_store(&control, copy);
}

// find_control derives the folder from the library's own place, since the
// driver root is mounted elsewhere in the agent's pod than on the host:
// <root>/usr/lib64/libnvidia-ml.so.1 is steered by <root>/nvmlsim.
__attribute__((constructor)) static void find_control(void) {
    for (unsigned int i = 0; i < MAX_GPUS; i++)
        devices[i].index = i;
    Dl_info info;
    char path[PATH_MAX];
    if (dladdr((void *)find_control, &info) == 0 || realpath(info.dli_fname, path) == NULL)
        return;
    for (int up = 0; up < 3; up++) {
        char *slash = strrchr(path, '/');
        if (slash == NULL)
            return;
        *slash = '\0';
    }
    char folder[PATH_MAX + sizeof "/nvmlsim"];
    snprintf(folder, sizeof folder, "%s/nvmlsim", path);
    nvmlsim_use_control(folder);
    void (*first)(const char *) = (void (*)(const char *))dlsym(RTLD_DEFAULT, "nvmlsim_use_control");
    if (first != NULL && first != nvmlsim_use_control)
        first(folder);
}

const char *sim_control(void) { return atomic_load(&control); }

void sim_path(const char *name, char *buffer, size_t size) {
    snprintf(buffer, size, "%s/%s", sim_control(), name);
}

nvmlReturn_t sim_gpu_text(nvmlDevice_t device, const char *name, char *buffer, size_t size) {
    char path[PATH_MAX];
    snprintf(path, sizeof path, "gpu%d/%s", sim_index(device), name);
    if (!sim_read(path, buffer, size) || buffer[0] == '\0')
        return NVML_ERROR_NOT_SUPPORTED;
    return NVML_SUCCESS;
}

nvmlReturn_t sim_gpu_number(nvmlDevice_t device, const char *name, unsigned long long *value) {
    char text[SMALL], *end;
    TRY(sim_gpu_text(device, name, text, sizeof text));
    *value = strtoull(text, &end, 0);
    return *end == '\0' ? NVML_SUCCESS : NVML_ERROR_UNKNOWN;
}

bool sim_unbound(unsigned int gpu) {
    unsigned long long unbound;
    return sim_gpu_number(sim_device(gpu), "unbound", &unbound) == NVML_SUCCESS && unbound != 0;
}

bool sim_gpu_at(unsigned int rank, unsigned int *gpu) {
    unsigned int n = sim_gpu_count();
    for (*gpu = 0; *gpu < n; ++*gpu) {
        if (!sim_unbound(*gpu) && rank-- == 0)
            return true;
    }
    return false;
}

nvmlReturn_t sim_copy(const char *text, char *buffer, unsigned int size) {
    WANT(buffer);
    if (strlen(text) >= size)
        return NVML_ERROR_INSUFFICIENT_SIZE;
    strcpy(buffer, text);
    return NVML_SUCCESS;
}

nvmlDevice_t sim_device(unsigned int index) {
    return (nvmlDevice_t){.handle = &devices[index]};
}

int sim_index(nvmlDevice_t device) {
    const struct nvmlDevice_st *d = device.handle;
    if (d < devices || d >= devices + MAX_GPUS)
        return -1;
    return (int)d->index;
}
