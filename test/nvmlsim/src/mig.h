// What the MIG calls share: a GPU's profiles and instances as they stand in
// its files mig_profiles and mig_instances (format in README.md), and the
// handles, which name an instance by number and are checked at each use, as the
// instance may have been destroyed by another process since.
#ifndef NVMLSIM_MIG_H
#define NVMLSIM_MIG_H

#include "sim.h"

enum { MAX_PROFILES = 32, MAX_PLACEMENTS = 16, MAX_INSTANCES = 15, MAX_COMPUTE = 8, NO_INSTANCE = -1 };

enum engine { COMPUTE_SLICES, COPY, DECODER, ENCODER, JPEG, OFA, ENGINES };

struct profile {
    unsigned int index, id, instances, multiprocessors;
    unsigned int takes[ENGINES];
    unsigned long long memory_mb;
    char name[64];
    bool p2p, gfx;
    unsigned int places;
    nvmlGpuInstancePlacement_t place[MAX_PLACEMENTS];
};

struct compute_instance {
    unsigned int id, profile;
    nvmlComputeInstancePlacement_t place;
    char uuid[80];
};

struct gpu_instance {
    unsigned int id, profile;
    nvmlGpuInstancePlacement_t place;
    unsigned int count;
    struct compute_instance compute[MAX_COMPUTE];
};

struct mig {
    unsigned int profile_count, count;
    struct profile profiles[MAX_PROFILES];
    struct gpu_instance instances[MAX_INSTANCES];
};

// migstate.c

bool mig_enabled(nvmlDevice_t device);
// mig_profiles reads what the GPU can be cut into, whatever its mode.
nvmlReturn_t mig_profiles(nvmlDevice_t device, struct mig *mig);
// mig_load reads both files; NVML_ERROR_NOT_SUPPORTED outside MIG mode.
nvmlReturn_t mig_load(nvmlDevice_t device, struct mig *mig);
// mig_begin is mig_load for a change: it keeps other processes out until
// mig_end(lock), which stores the GPU's instances and tells of the change if result is
// NVML_SUCCESS, and returns how it went.
nvmlReturn_t mig_begin(nvmlDevice_t device, struct mig *mig, int *lock);
nvmlReturn_t mig_end(nvmlDevice_t device, const struct mig *mig, int lock, nvmlReturn_t result);

const struct profile *mig_profile(const struct mig *mig, unsigned int id);
struct gpu_instance *mig_gpu_instance(struct mig *mig, unsigned int id);
struct compute_instance *mig_compute_instance(struct gpu_instance *instance, unsigned int id);
// mig_busy: does a line of the GPU's file processes name this instance? compute may be NO_INSTANCE for any.
bool mig_busy(nvmlDevice_t device, unsigned int instance, int compute);

// mighandle.c

nvmlGpuInstance_t mig_gpu_handle(nvmlDevice_t device, unsigned int instance);
nvmlComputeInstance_t mig_compute_handle(nvmlDevice_t device, unsigned int instance, unsigned int compute);
nvmlDevice_t mig_device_handle(nvmlDevice_t device, unsigned int instance, unsigned int compute);
// These take handles apart; false for a handle of another kind.
bool mig_of_gpu_handle(nvmlGpuInstance_t handle, nvmlDevice_t *device, unsigned int *instance);
bool mig_of_compute_handle(nvmlComputeInstance_t handle, nvmlDevice_t *device, unsigned int *instance, unsigned int *compute);
bool mig_of_device_handle(nvmlDevice_t handle, nvmlDevice_t *device, unsigned int *instance, unsigned int *compute);

// migdevice.c: the calls that take a MIG device where they take a GPU. Each
// answers as the GPU's own, for a MIG device handle only.
nvmlReturn_t mig_device_uuid(const char *call, nvmlDevice_t handle, char *buffer, unsigned int length);
nvmlReturn_t mig_device_name(const char *call, nvmlDevice_t handle, char *buffer, unsigned int length);
nvmlReturn_t mig_device_index(const char *call, nvmlDevice_t handle, unsigned int *index);
nvmlReturn_t mig_device_memory(const char *call, nvmlDevice_t handle, unsigned long long *total);
bool mig_is_device(nvmlDevice_t handle);
// mig_find looks for the MIG device of that UUID on a GPU.
bool mig_find(nvmlDevice_t device, const char *uuid, nvmlDevice_t *found);

#endif
