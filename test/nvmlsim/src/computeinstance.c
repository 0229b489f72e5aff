// Compute instances: the parts of a GPU instance that CUDA sees as MIG
// devices. They share its engines and divide its compute slices.
#include <stdio.h>
#include <string.h>

#include "mig.h"

static const unsigned int slices_of[NVML_COMPUTE_INSTANCE_PROFILE_COUNT] = {1, 2, 3, 4, 7, 8, 6};

// compute_profile is how a compute instance of that kind cuts a GPU instance.
struct compute_profile {
    unsigned int id, slices;
    const struct profile *of;
};

static bool find_profile(const struct mig *mig, const struct gpu_instance *g, unsigned int index, struct compute_profile *found) {
    const struct profile *p = mig_profile(mig, g->profile);
    if (p == NULL || index >= NVML_COMPUTE_INSTANCE_PROFILE_COUNT || slices_of[index] == 0)
        return false;
    unsigned int all = p->takes[COMPUTE_SLICES], slices = slices_of[index];
    // Drivers offer the whole and parts of 1 to 4 slices, but no three quarters.
    if (slices != all && (slices > all || slices > 4 || (slices == 3 && all == 4)))
        return false;
    *found = (struct compute_profile){.id = index, .slices = slices, .of = p};
    return true;
}

// reach finds the GPU instance of a handle, and begins the call on its GPU.
static nvmlReturn_t reach(const char *call, nvmlGpuInstance_t handle, nvmlDevice_t *device, struct mig *mig, struct gpu_instance **found) {
    unsigned int id;
    if (!mig_of_gpu_handle(handle, device, &id))
        return NVML_ERROR_INVALID_ARGUMENT;
    TRY(sim_enter(call, sim_index(*device)));
    TRY(mig_load(*device, mig));
    *found = mig_gpu_instance(mig, id);
    return *found == NULL ? NVML_ERROR_INVALID_ARGUMENT : NVML_SUCCESS;
}

static nvmlReturn_t profile_info(const char *call, nvmlGpuInstance_t handle, unsigned int index, unsigned int engines, nvmlComputeInstanceProfileInfo_t *info, char *name) {
    nvmlDevice_t device;
    struct mig mig;
    struct gpu_instance *g;
    struct compute_profile c;
    TRY(reach(call, handle, &device, &mig, &g));
    if (index >= NVML_COMPUTE_INSTANCE_PROFILE_COUNT || engines >= NVML_COMPUTE_INSTANCE_ENGINE_PROFILE_COUNT)
        return NVML_ERROR_INVALID_ARGUMENT;
    if (!find_profile(&mig, g, index, &c))
        return NVML_ERROR_NOT_SUPPORTED;
    const struct profile *p = c.of;
    *info = (nvmlComputeInstanceProfileInfo_t){
        .id = c.id, .sliceCount = c.slices, .instanceCount = p->takes[COMPUTE_SLICES] / c.slices,
        .multiprocessorCount = p->multiprocessors * c.slices / p->takes[COMPUTE_SLICES], .sharedCopyEngineCount = p->takes[COPY],
        .sharedDecoderCount = p->takes[DECODER], .sharedEncoderCount = p->takes[ENCODER], .sharedJpegCount = p->takes[JPEG], .sharedOfaCount = p->takes[OFA],
    };
    if (c.slices == p->takes[COMPUTE_SLICES])
        snprintf(name, NVML_DEVICE_NAME_V2_BUFFER_SIZE, "MIG %s", p->name);
    else
        snprintf(name, NVML_DEVICE_NAME_V2_BUFFER_SIZE, "MIG %uc.%s", c.slices, p->name);
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlGpuInstanceGetComputeInstanceProfileInfo(nvmlGpuInstance_t handle, unsigned int index, unsigned int engines, nvmlComputeInstanceProfileInfo_t *info) {
    char name[NVML_DEVICE_NAME_V2_BUFFER_SIZE];
    WANT(info);
    return profile_info(__func__, handle, index, engines, info, name);
}

#ifndef NVMLSIM_OLD_DRIVER
// Version 3 is version 2 with the capabilities behind the name.
nvmlReturn_t nvmlGpuInstanceGetComputeInstanceProfileInfoV(nvmlGpuInstance_t handle, unsigned int index, unsigned int engines, nvmlComputeInstanceProfileInfo_v2_t *info) {
    WANT(info);
    nvmlComputeInstanceProfileInfo_t i;
    if (info->version != nvmlComputeInstanceProfileInfo_v2 && info->version != nvmlComputeInstanceProfileInfo_v3)
        return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
    TRY(profile_info(__func__, handle, index, engines, &i, info->name));
    info->id = i.id;
    info->sliceCount = i.sliceCount;
    info->instanceCount = i.instanceCount;
    info->multiprocessorCount = i.multiprocessorCount;
    info->sharedCopyEngineCount = i.sharedCopyEngineCount;
    info->sharedDecoderCount = i.sharedDecoderCount;
    info->sharedEncoderCount = i.sharedEncoderCount;
    info->sharedJpegCount = i.sharedJpegCount;
    info->sharedOfaCount = i.sharedOfaCount;
    if (info->version == nvmlComputeInstanceProfileInfo_v3)
        ((nvmlComputeInstanceProfileInfo_v3_t *)info)->capabilities = 0;
    return NVML_SUCCESS;
}
#endif

// uuid makes the same UUID for the same GPU, instance and compute instance (FNV-1a, dressed as version 5).
static void uuid(nvmlDevice_t device, unsigned int instance, unsigned int compute, char *buffer, size_t size) {
    char gpu[SMALL] = "", seed[SMALL + 32];
    sim_gpu_text(device, "uuid", gpu, sizeof gpu);
    snprintf(seed, sizeof seed, "%s/%u/%u", gpu, instance, compute);
    unsigned long long half[2] = {0xcbf29ce484222325, 0x84222325cbf29ce4};
    for (int h = 0; h < 2; h++)
        for (const char *c = seed; *c != '\0'; c++)
            half[h] = (half[h] ^ (unsigned char)*c) * 0x100000001b3;
    snprintf(buffer, size, "MIG-%08llx-%04llx-5%03llx-8%03llx-%012llx", half[0] >> 32, half[0] >> 16 & 0xffff, half[0] & 0xfff,
             half[1] >> 48 & 0xfff, half[1] & 0xffffffffffff);
}

static bool is_free(const struct gpu_instance *g, unsigned int start, unsigned int size) {
    for (unsigned int i = 0; i < g->count; i++)
        if (g->compute[i].place.start < start + size && start < g->compute[i].place.start + g->compute[i].place.size)
            return false;
    return true;
}

// add puts a compute instance on the first free slices that it can lie on.
static nvmlReturn_t add(nvmlDevice_t device, struct gpu_instance *g, const struct compute_profile *p, const nvmlComputeInstancePlacement_t *wanted, unsigned int *id) {
    unsigned int start = wanted != NULL ? wanted->start : 0, all = p->of->takes[COMPUTE_SLICES];
    if (wanted != NULL && (wanted->size != p->slices || start % p->slices != 0 || start + p->slices > all))
        return NVML_ERROR_INVALID_ARGUMENT;
    while (wanted == NULL && start + p->slices <= all && !is_free(g, start, p->slices))
        start += p->slices;
    if (start + p->slices > all || !is_free(g, start, p->slices) || g->count == MAX_COMPUTE)
        return NVML_ERROR_INSUFFICIENT_RESOURCES;
    for (*id = 0; mig_compute_instance(g, *id) != NULL;)
        ++*id;
    struct compute_instance *c = &g->compute[g->count++];
    *c = (struct compute_instance){.id = *id, .profile = p->id, .place = {.start = start, .size = p->slices}};
    uuid(device, g->id, *id, c->uuid, sizeof c->uuid);
    return NVML_SUCCESS;
}

static nvmlReturn_t create(const char *call, nvmlGpuInstance_t handle, unsigned int profile, const nvmlComputeInstancePlacement_t *wanted, nvmlComputeInstance_t *made) {
    nvmlDevice_t device;
    struct mig mig;
    struct compute_profile p;
    unsigned int instance, id = 0;
    int lock;
    WANT(made);
    if (!mig_of_gpu_handle(handle, &device, &instance))
        return NVML_ERROR_INVALID_ARGUMENT;
    TRY(sim_enter(call, sim_index(device)));
    TRY(mig_begin(device, &mig, &lock));
    struct gpu_instance *g = mig_gpu_instance(&mig, instance);
    nvmlReturn_t r = NVML_ERROR_INVALID_ARGUMENT;
    if (g != NULL && find_profile(&mig, g, profile, &p))
        r = add(device, g, &p, wanted, &id);
    TRY(mig_end(device, &mig, lock, r));
    *made = mig_compute_handle(device, instance, id);
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlGpuInstanceCreateComputeInstance(nvmlGpuInstance_t handle, unsigned int profile, nvmlComputeInstance_t *made) {
    return create(__func__, handle, profile, NULL, made);
}

#ifndef NVMLSIM_OLD_DRIVER
nvmlReturn_t nvmlGpuInstanceCreateComputeInstanceWithPlacement(nvmlGpuInstance_t handle, unsigned int profile, const nvmlComputeInstancePlacement_t *place, nvmlComputeInstance_t *made) {
    WANT(place);
    return create(__func__, handle, profile, place, made);
}

nvmlReturn_t nvmlGpuInstanceGetComputeInstancePossiblePlacements(nvmlGpuInstance_t handle, unsigned int profile, nvmlComputeInstancePlacement_t *places, unsigned int *count) {
    nvmlDevice_t device;
    struct mig mig;
    struct gpu_instance *g;
    struct compute_profile p;
    WANT(count);
    TRY(reach(__func__, handle, &device, &mig, &g));
    if (!find_profile(&mig, g, profile, &p))
        return NVML_ERROR_INVALID_ARGUMENT;
    unsigned int all = p.of->takes[COMPUTE_SLICES] / p.slices;
    if (places != NULL && *count < all)
        return NVML_ERROR_INSUFFICIENT_SIZE;
    *count = all;
    for (unsigned int i = 0; places != NULL && i < all; i++)
        places[i] = (nvmlComputeInstancePlacement_t){.start = i * p.slices, .size = p.slices};
    return NVML_SUCCESS;
}
#endif

nvmlReturn_t nvmlGpuInstanceGetComputeInstanceRemainingCapacity(nvmlGpuInstance_t handle, unsigned int profile, unsigned int *count) {
    nvmlDevice_t device;
    struct mig mig;
    struct gpu_instance *g;
    struct compute_profile p;
    unsigned int id;
    WANT(count);
    TRY(reach(__func__, handle, &device, &mig, &g));
    if (!find_profile(&mig, g, profile, &p))
        return NVML_ERROR_INVALID_ARGUMENT;
    for (*count = 0; add(device, g, &p, NULL, &id) == NVML_SUCCESS;)
        ++*count;
    return NVML_SUCCESS;
}

static nvmlReturn_t destroy(nvmlDevice_t device, struct mig *mig, unsigned int instance, unsigned int compute) {
    struct gpu_instance *g = mig_gpu_instance(mig, instance);
    struct compute_instance *c = g == NULL ? NULL : mig_compute_instance(g, compute);
    if (c == NULL)
        return NVML_ERROR_INVALID_ARGUMENT;
    if (mig_busy(device, instance, (int)compute))
        return NVML_ERROR_IN_USE;
    *c = g->compute[--g->count];
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlComputeInstanceDestroy(nvmlComputeInstance_t handle) {
    nvmlDevice_t device;
    struct mig mig;
    unsigned int instance, compute;
    int lock;
    if (!mig_of_compute_handle(handle, &device, &instance, &compute))
        return NVML_ERROR_INVALID_ARGUMENT;
    ENTER(device);
    TRY(mig_begin(device, &mig, &lock));
    return mig_end(device, &mig, lock, destroy(device, &mig, instance, compute));
}

nvmlReturn_t nvmlGpuInstanceGetComputeInstances(nvmlGpuInstance_t handle, unsigned int profile, nvmlComputeInstance_t *handles, unsigned int *count) {
    nvmlDevice_t device;
    struct mig mig;
    struct gpu_instance *g;
    struct compute_profile p;
    WANT(handles);
    WANT(count);
    TRY(reach(__func__, handle, &device, &mig, &g));
    if (!find_profile(&mig, g, profile, &p))
        return NVML_ERROR_INVALID_ARGUMENT;
    *count = 0;
    for (unsigned int i = 0; i < g->count; i++)
        if (g->compute[i].profile == profile)
            handles[(*count)++] = mig_compute_handle(device, g->id, g->compute[i].id);
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlGpuInstanceGetComputeInstanceById(nvmlGpuInstance_t handle, unsigned int id, nvmlComputeInstance_t *made) {
    nvmlDevice_t device;
    struct mig mig;
    struct gpu_instance *g;
    WANT(made);
    TRY(reach(__func__, handle, &device, &mig, &g));
    if (mig_compute_instance(g, id) == NULL)
        return NVML_ERROR_NOT_FOUND;
    *made = mig_compute_handle(device, g->id, id);
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlComputeInstanceGetInfo_v2(nvmlComputeInstance_t handle, nvmlComputeInstanceInfo_t *info) {
    nvmlDevice_t device;
    struct mig mig;
    unsigned int instance, compute;
    WANT(info);
    if (!mig_of_compute_handle(handle, &device, &instance, &compute))
        return NVML_ERROR_INVALID_ARGUMENT;
    ENTER(device);
    TRY(mig_load(device, &mig));
    struct gpu_instance *g = mig_gpu_instance(&mig, instance);
    const struct compute_instance *c = g == NULL ? NULL : mig_compute_instance(g, compute);
    if (c == NULL)
        return NVML_ERROR_INVALID_ARGUMENT;
    *info = (nvmlComputeInstanceInfo_t){.device = device, .gpuInstance = mig_gpu_handle(device, instance), .id = compute, .profileId = c->profile, .placement = c->place};
    return NVML_SUCCESS;
}
