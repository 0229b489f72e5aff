// The control folder: where it is, and how its files are read.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

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

void sim_path(const char *name, char *buffer, size_t size) {
    snprintf(buffer, size, "%s/%s", atomic_load(&control), name);
}

bool sim_read(const char *name, char *buffer, size_t size) {
    char path[PATH_MAX];
    sim_path(name, path, sizeof path);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    size_t length = 0;
    while (length + 1 < size) {
        ssize_t n = read(fd, buffer + length, size - 1 - length);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            break;
        length += (size_t)n;
    }
    close(fd);
    while (length > 0 && strchr(" \t\r\n", buffer[length - 1]) != NULL)
        length--;
    buffer[length] = '\0';
    return true;
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

unsigned int sim_gpu_count(void) {
    char name[SMALL], path[PATH_MAX];
    unsigned int count = 0;
    for (; count < MAX_GPUS; count++) {
        snprintf(name, sizeof name, "gpu%u", count);
        sim_path(name, path, sizeof path);
        if (access(path, F_OK) != 0)
            break;
    }
    return count;
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
