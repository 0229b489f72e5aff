// GPU instances: what a GPU can be cut into, and cutting it. A new instance
// must lie on free memory slices and leave no engine of the GPU given away twice.
#include <stdio.h>
#include <string.h>

#include "mig.h"

// info finds the profile with this NVML_GPU_INSTANCE_PROFILE_* number.
static nvmlReturn_t by_index(nvmlDevice_t device, unsigned int index, struct mig *mig, const struct profile **found) {
    if (index >= NVML_GPU_INSTANCE_PROFILE_COUNT)
        return NVML_ERROR_INVALID_ARGUMENT;
    TRY(mig_profiles(device, mig));
    for (unsigned int i = 0; i < mig->profile_count; i++)
        if (mig->profiles[i].index == index) {
            *found = &mig->profiles[i];
            return NVML_SUCCESS;
        }
    return NVML_ERROR_NOT_SUPPORTED;
}

#define COPY_PROFILE(to, from)                                  \
    do {                                                        \
        (to)->id = (from)->id;                                  \
        (to)->sliceCount = (from)->takes[COMPUTE_SLICES];       \
        (to)->instanceCount = (from)->instances;                \
        (to)->multiprocessorCount = (from)->multiprocessors;    \
        (to)->copyEngineCount = (from)->takes[COPY];            \
        (to)->decoderCount = (from)->takes[DECODER];            \
        (to)->encoderCount = (from)->takes[ENCODER];            \
        (to)->jpegCount = (from)->takes[JPEG];                  \
        (to)->ofaCount = (from)->takes[OFA];                    \
        (to)->memorySizeMB = (from)->memory_mb;                 \
    } while (0)

nvmlReturn_t nvmlDeviceGetGpuInstanceProfileInfo(nvmlDevice_t device, unsigned int index, nvmlGpuInstanceProfileInfo_t *info) {
    ENTER(device);
    WANT(info);
    struct mig mig;
    const struct profile *p;
    TRY(by_index(device, index, &mig, &p));
    COPY_PROFILE(info, p);
    info->isP2pSupported = p->p2p;
    return NVML_SUCCESS;
}

#ifndef NVMLSIM_OLD_DRIVER
// fill answers in the version that the caller asks for. Names read "MIG 1g.5gb".
static nvmlReturn_t fill(const struct profile *p, nvmlGpuInstanceProfileInfo_v2_t *info) {
    if (info->version == nvmlGpuInstanceProfileInfo_v2) {
        COPY_PROFILE(info, p);
        info->isP2pSupported = p->p2p;
        snprintf(info->name, sizeof info->name, "MIG %s", p->name);
        return NVML_SUCCESS;
    }
    if (info->version == nvmlGpuInstanceProfileInfo_v3) {
        nvmlGpuInstanceProfileInfo_v3_t *third = (nvmlGpuInstanceProfileInfo_v3_t *)info;
        COPY_PROFILE(third, p);
        snprintf(third->name, sizeof third->name, "MIG %s", p->name);
        third->capabilities = (p->p2p ? NVML_GPU_INSTANCE_PROFILE_CAPS_P2P : 0) | (p->gfx ? NVML_GPU_INSTANCE_PROFILE_CAPS_GFX : 0);
        return NVML_SUCCESS;
    }
    return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
}

nvmlReturn_t nvmlDeviceGetGpuInstanceProfileInfoV(nvmlDevice_t device, unsigned int index, nvmlGpuInstanceProfileInfo_v2_t *info) {
    ENTER(device);
    WANT(info);
    struct mig mig;
    const struct profile *p;
    TRY(by_index(device, index, &mig, &p));
    return fill(p, info);
}

nvmlReturn_t nvmlDeviceGetGpuInstanceProfileInfoByIdV(nvmlDevice_t device, unsigned int id, nvmlGpuInstanceProfileInfo_v2_t *info) {
    ENTER(device);
    WANT(info);
    struct mig mig;
    TRY(mig_profiles(device, &mig));
    const struct profile *p = mig_profile(&mig, id);
    return p == NULL ? NVML_ERROR_INVALID_ARGUMENT : fill(p, info);
}
#endif

nvmlReturn_t nvmlDeviceGetGpuInstancePossiblePlacements_v2(nvmlDevice_t device, unsigned int id, nvmlGpuInstancePlacement_t *places, unsigned int *count) {
    ENTER(device);
    WANT(count);
    struct mig mig;
    TRY(mig_profiles(device, &mig));
    const struct profile *p = mig_profile(&mig, id);
    if (p == NULL)
        return NVML_ERROR_INVALID_ARGUMENT;
    if (places != NULL && *count < p->places)
        return NVML_ERROR_INSUFFICIENT_SIZE;
    *count = p->places;
    if (places != NULL)
        memcpy(places, p->place, p->places * sizeof p->place[0]);
    return NVML_SUCCESS;
}

// capacity is what the GPU has of an engine: what its greediest profile takes, all instances of it together.
static unsigned int capacity(const struct mig *mig, enum engine e) {
    unsigned int most = 0;
    for (unsigned int i = 0; i < mig->profile_count; i++) {
        unsigned int all = mig->profiles[i].takes[e] * mig->profiles[i].instances;
        most = all > most ? all : most;
    }
    return most;
}

static bool fits(const struct mig *mig, const struct profile *p, const nvmlGpuInstancePlacement_t *place) {
    unsigned int taken[ENGINES] = {0}, same = 0;
    for (unsigned int i = 0; i < mig->count; i++) {
        const struct gpu_instance *g = &mig->instances[i];
        if (g->place.start < place->start + place->size && place->start < g->place.start + g->place.size)
            return false;
        const struct profile *its = mig_profile(mig, g->profile);
        for (unsigned int e = 0; its != NULL && e < ENGINES; e++)
            taken[e] += its->takes[e];
        same += its == p;
    }
    for (unsigned int e = 0; e < ENGINES; e++)
        if (taken[e] + p->takes[e] > capacity(mig, e))
            return false;
    return same < p->instances && mig->count < MAX_INSTANCES;
}

// number is the node of the binary tree over the memory slices that the place is.
static unsigned int number(const struct mig *mig, const nvmlGpuInstancePlacement_t *place) {
    unsigned int slices = 1, size = 1;
    for (unsigned int i = 0; i < mig->profile_count; i++)
        for (unsigned int j = 0; j < mig->profiles[i].places; j++)
            while (slices < mig->profiles[i].place[j].start + mig->profiles[i].place[j].size)
                slices *= 2;
    while (size < place->size)
        size *= 2;
    unsigned int node = slices / size - 1 + place->start / size;
    return node < MAX_INSTANCES ? node : 0;
}

static bool add(struct mig *mig, const struct profile *p, const nvmlGpuInstancePlacement_t *place, unsigned int *id) {
    if (!fits(mig, p, place))
        return false;
    *id = number(mig, place);
    for (unsigned int next = 0; mig_gpu_instance(mig, *id) != NULL; next++)
        *id = next; // profiles that no driver has: any number that is free
    mig->instances[mig->count++] = (struct gpu_instance){.id = *id, .profile = p->id, .place = *place};
    return true;
}

nvmlReturn_t nvmlDeviceGetGpuInstanceRemainingCapacity(nvmlDevice_t device, unsigned int id, unsigned int *count) {
    ENTER(device);
    WANT(count);
    struct mig mig;
    unsigned int instance;
    TRY(mig_load(device, &mig));
    const struct profile *p = mig_profile(&mig, id);
    if (p == NULL)
        return NVML_ERROR_INVALID_ARGUMENT;
    *count = 0;
    for (unsigned int i = 0; i < p->places; i++)
        *count += add(&mig, p, &p->place[i], &instance);
    return NVML_SUCCESS;
}

static nvmlReturn_t make(struct mig *mig, unsigned int profile, const nvmlGpuInstancePlacement_t *wanted, unsigned int *id) {
    const struct profile *p = mig_profile(mig, profile);
    if (p == NULL)
        return NVML_ERROR_INVALID_ARGUMENT;
    bool possible = wanted == NULL;
    for (unsigned int i = 0; i < p->places; i++) {
        if (wanted != NULL && (wanted->start != p->place[i].start || wanted->size != p->place[i].size))
            continue;
        possible = true;
        if (add(mig, p, &p->place[i], id))
            return NVML_SUCCESS;
    }
    return possible ? NVML_ERROR_INSUFFICIENT_RESOURCES : NVML_ERROR_INVALID_ARGUMENT;
}

static nvmlReturn_t create(nvmlDevice_t device, unsigned int profile, const nvmlGpuInstancePlacement_t *wanted, nvmlGpuInstance_t *handle) {
    WANT(handle);
    struct mig mig;
    int lock;
    unsigned int id = 0;
    TRY(mig_begin(device, &mig, &lock));
    TRY(mig_end(device, &mig, lock, make(&mig, profile, wanted, &id)));
    *handle = mig_gpu_handle(device, id);
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceCreateGpuInstance(nvmlDevice_t device, unsigned int profile, nvmlGpuInstance_t *handle) {
    ENTER(device);
    return create(device, profile, NULL, handle);
}

nvmlReturn_t nvmlDeviceCreateGpuInstanceWithPlacement(nvmlDevice_t device, unsigned int profile, const nvmlGpuInstancePlacement_t *place, nvmlGpuInstance_t *handle) {
    ENTER(device);
    WANT(place);
    return create(device, profile, place, handle);
}

static nvmlReturn_t destroy(nvmlDevice_t device, struct mig *mig, unsigned int id) {
    struct gpu_instance *g = mig_gpu_instance(mig, id);
    if (g == NULL)
        return NVML_ERROR_INVALID_ARGUMENT;
    if (g->count > 0 || mig_busy(device, id, NO_INSTANCE))
        return NVML_ERROR_IN_USE;
    *g = mig->instances[--mig->count];
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlGpuInstanceDestroy(nvmlGpuInstance_t handle) {
    nvmlDevice_t device;
    struct mig mig;
    unsigned int id;
    int lock;
    if (!mig_of_gpu_handle(handle, &device, &id))
        return NVML_ERROR_INVALID_ARGUMENT;
    ENTER(device);
    TRY(mig_begin(device, &mig, &lock));
    return mig_end(device, &mig, lock, destroy(device, &mig, id));
}

nvmlReturn_t nvmlDeviceGetGpuInstances(nvmlDevice_t device, unsigned int profile, nvmlGpuInstance_t *handles, unsigned int *count) {
    ENTER(device);
    WANT(handles);
    WANT(count);
    struct mig mig;
    TRY(mig_load(device, &mig));
    if (mig_profile(&mig, profile) == NULL)
        return NVML_ERROR_INVALID_ARGUMENT;
    *count = 0;
    for (unsigned int i = 0; i < mig.count; i++)
        if (mig.instances[i].profile == profile)
            handles[(*count)++] = mig_gpu_handle(device, mig.instances[i].id);
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetGpuInstanceById(nvmlDevice_t device, unsigned int id, nvmlGpuInstance_t *handle) {
    ENTER(device);
    WANT(handle);
    struct mig mig;
    TRY(mig_load(device, &mig));
    if (mig_gpu_instance(&mig, id) == NULL)
        return NVML_ERROR_NOT_FOUND;
    *handle = mig_gpu_handle(device, id);
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlGpuInstanceGetInfo(nvmlGpuInstance_t handle, nvmlGpuInstanceInfo_t *info) {
    nvmlDevice_t device;
    struct mig mig;
    unsigned int id;
    WANT(info);
    if (!mig_of_gpu_handle(handle, &device, &id))
        return NVML_ERROR_INVALID_ARGUMENT;
    ENTER(device);
    TRY(mig_load(device, &mig));
    const struct gpu_instance *g = mig_gpu_instance(&mig, id);
    if (g == NULL)
        return NVML_ERROR_INVALID_ARGUMENT;
    *info = (nvmlGpuInstanceInfo_t){.device = device, .id = id, .profileId = g->profile, .placement = g->place};
    return NVML_SUCCESS;
}
