// MIG mode, and MIG devices: a device handle that stands for one compute
// instance and that some calls take in place of a GPU's. All others answer
// "invalid argument" for it.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mig.h"

nvmlReturn_t nvmlDeviceGetMigMode(nvmlDevice_t device, unsigned int *current, unsigned int *pending) {
    ENTER(device);
    WANT(current);
    WANT(pending);
    char text[SMALL];
    TRY(sim_gpu_text(device, "mig_mode", text, sizeof text));
    return sscanf(text, "%u %u", current, pending) == 2 ? NVML_SUCCESS : NVML_ERROR_UNKNOWN;
}

// subject is a MIG device that exists.
struct subject {
    nvmlDevice_t gpu;
    unsigned int instance, compute;
    struct mig mig;
    const struct gpu_instance *g;
    const struct compute_instance *c;
    const struct profile *profile;
};

static nvmlReturn_t reach(const char *call, nvmlDevice_t handle, struct subject *s) {
    if (!mig_of_device_handle(handle, &s->gpu, &s->instance, &s->compute))
        return NVML_ERROR_INVALID_ARGUMENT;
    TRY(sim_enter(call, sim_index(s->gpu)));
    TRY(mig_load(s->gpu, &s->mig));
    struct gpu_instance *g = mig_gpu_instance(&s->mig, s->instance);
    s->g = g;
    s->c = g == NULL ? NULL : mig_compute_instance(g, s->compute);
    s->profile = g == NULL ? NULL : mig_profile(&s->mig, g->profile);
    return s->c == NULL || s->profile == NULL ? NVML_ERROR_INVALID_ARGUMENT : NVML_SUCCESS;
}

bool mig_is_device(nvmlDevice_t handle) {
    nvmlDevice_t gpu;
    unsigned int instance, compute;
    return mig_of_device_handle(handle, &gpu, &instance, &compute);
}

// each calls visit for every MIG device of a GPU in the order of their indices until it says true.
static bool each(nvmlDevice_t gpu, const struct mig *mig, bool (*visit)(void *, unsigned int, nvmlDevice_t, const struct compute_instance *), void *with) {
    unsigned int index = 0;
    for (unsigned int i = 0; i < mig->count; i++)
        for (unsigned int j = 0; j < mig->instances[i].count; j++) {
            const struct compute_instance *c = &mig->instances[i].compute[j];
            if (visit(with, index++, mig_device_handle(gpu, mig->instances[i].id, c->id), c))
                return true;
        }
    return false;
}

struct search {
    unsigned int index;
    const char *uuid;
    nvmlDevice_t handle;
};

static bool at_index(void *with, unsigned int index, nvmlDevice_t handle, const struct compute_instance *c) {
    struct search *s = with;
    (void)c;
    s->handle = handle;
    return index == s->index;
}

static bool with_uuid(void *with, unsigned int index, nvmlDevice_t handle, const struct compute_instance *c) {
    struct search *s = with;
    s->index = index;
    s->handle = handle;
    return strcmp(c->uuid, s->uuid) == 0;
}

bool mig_find(nvmlDevice_t device, const char *uuid, nvmlDevice_t *found) {
    struct mig mig;
    struct search s = {.uuid = uuid};
    if (mig_load(device, &mig) != NVML_SUCCESS || !each(device, &mig, with_uuid, &s))
        return false;
    *found = s.handle;
    return true;
}

nvmlReturn_t nvmlDeviceGetMaxMigDeviceCount(nvmlDevice_t device, unsigned int *count) {
    ENTER(device);
    WANT(count);
    struct mig mig;
    *count = 0;
    if (mig_load(device, &mig) != NVML_SUCCESS)
        return NVML_SUCCESS;
    for (unsigned int i = 0; i < mig.profile_count; i++)
        *count = mig.profiles[i].instances > *count ? mig.profiles[i].instances : *count;
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetMigDeviceHandleByIndex(nvmlDevice_t device, unsigned int index, nvmlDevice_t *handle) {
    ENTER(device);
    WANT(handle);
    struct mig mig;
    struct search s = {.index = index};
    TRY(mig_load(device, &mig));
    if (!each(device, &mig, at_index, &s))
        return NVML_ERROR_NOT_FOUND;
    *handle = s.handle;
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceIsMigDeviceHandle(nvmlDevice_t device, unsigned int *is_mig) {
    WANT(is_mig);
    nvmlDevice_t gpu = device;
    unsigned int instance, compute;
    *is_mig = mig_of_device_handle(device, &gpu, &instance, &compute);
    ENTER(gpu);
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetDeviceHandleFromMigDeviceHandle(nvmlDevice_t handle, nvmlDevice_t *device) {
    struct subject s;
    WANT(device);
    TRY(reach(__func__, handle, &s));
    *device = s.gpu;
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetGpuInstanceId(nvmlDevice_t handle, unsigned int *id) {
    struct subject s;
    WANT(id);
    TRY(reach(__func__, handle, &s));
    *id = s.instance;
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetComputeInstanceId(nvmlDevice_t handle, unsigned int *id) {
    struct subject s;
    WANT(id);
    TRY(reach(__func__, handle, &s));
    *id = s.compute;
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetAttributes_v2(nvmlDevice_t handle, nvmlDeviceAttributes_t *attributes) {
    struct subject s;
    WANT(attributes);
    TRY(reach(__func__, handle, &s));
    unsigned int all = s.profile->takes[COMPUTE_SLICES];
    *attributes = (nvmlDeviceAttributes_t){
        .multiprocessorCount = s.profile->multiprocessors * s.c->place.size / all, .sharedCopyEngineCount = s.profile->takes[COPY],
        .sharedDecoderCount = s.profile->takes[DECODER], .sharedEncoderCount = s.profile->takes[ENCODER], .sharedJpegCount = s.profile->takes[JPEG],
        .sharedOfaCount = s.profile->takes[OFA], .gpuInstanceSliceCount = all, .computeInstanceSliceCount = s.c->place.size, .memorySizeMB = s.profile->memory_mb,
    };
    return NVML_SUCCESS;
}

nvmlReturn_t mig_device_uuid(const char *call, nvmlDevice_t handle, char *buffer, unsigned int length) {
    struct subject s;
    TRY(reach(call, handle, &s));
    return sim_copy(s.c->uuid, buffer, length);
}

nvmlReturn_t mig_device_name(const char *call, nvmlDevice_t handle, char *buffer, unsigned int length) {
    struct subject s;
    char gpu[SMALL], name[2 * SMALL];
    TRY(reach(call, handle, &s));
    TRY(sim_gpu_text(s.gpu, "name", gpu, sizeof gpu));
    if (s.c->place.size == s.profile->takes[COMPUTE_SLICES])
        snprintf(name, sizeof name, "%s MIG %s", gpu, s.profile->name);
    else
        snprintf(name, sizeof name, "%s MIG %uc.%s", gpu, s.c->place.size, s.profile->name);
    return sim_copy(name, buffer, length);
}

nvmlReturn_t mig_device_index(const char *call, nvmlDevice_t handle, unsigned int *index) {
    struct subject s;
    TRY(reach(call, handle, &s));
    struct search found = {.uuid = s.c->uuid};
    each(s.gpu, &s.mig, with_uuid, &found);
    *index = found.index;
    return NVML_SUCCESS;
}

nvmlReturn_t mig_device_memory(const char *call, nvmlDevice_t handle, unsigned long long *total) {
    struct subject s;
    TRY(reach(call, handle, &s));
    *total = s.profile->memory_mb << 20;
    return NVML_SUCCESS;
}
