// Handles of instances. A handle is an address in a table that holds nothing:
// its place says which GPU and which instances it names.
#include "mig.h"

static const char gpu_table[MAX_GPUS * MAX_INSTANCES];
static const char compute_table[MAX_GPUS * MAX_INSTANCES * MAX_COMPUTE];
static const char device_table[MAX_GPUS * MAX_INSTANCES * MAX_COMPUTE];

// place is the handle's position in a table, -1 if it lies outside.
static long place(const char *table, size_t size, const void *handle) {
    const char *h = handle;
    return h >= table && h < table + size ? h - table : -1;
}

static size_t position(nvmlDevice_t device, unsigned int instance, unsigned int compute) {
    return ((size_t)sim_index(device) * MAX_INSTANCES + instance) * MAX_COMPUTE + compute;
}

static bool apart(long at, nvmlDevice_t *device, unsigned int *instance, unsigned int *compute) {
    if (at < 0)
        return false;
    *compute = (unsigned int)(at % MAX_COMPUTE);
    *instance = (unsigned int)(at / MAX_COMPUTE % MAX_INSTANCES);
    *device = sim_device((unsigned int)(at / MAX_COMPUTE / MAX_INSTANCES));
    return true;
}

nvmlGpuInstance_t mig_gpu_handle(nvmlDevice_t device, unsigned int instance) {
    return (nvmlGpuInstance_t){.handle = (void *)(gpu_table + position(device, instance, 0) / MAX_COMPUTE)};
}

nvmlComputeInstance_t mig_compute_handle(nvmlDevice_t device, unsigned int instance, unsigned int compute) {
    return (nvmlComputeInstance_t){.handle = (void *)(compute_table + position(device, instance, compute))};
}

nvmlDevice_t mig_device_handle(nvmlDevice_t device, unsigned int instance, unsigned int compute) {
    return (nvmlDevice_t){.handle = (void *)(device_table + position(device, instance, compute))};
}

bool mig_of_gpu_handle(nvmlGpuInstance_t handle, nvmlDevice_t *device, unsigned int *instance) {
    unsigned int none;
    long at = place(gpu_table, sizeof gpu_table, handle.handle);
    return apart(at < 0 ? at : at * MAX_COMPUTE, device, instance, &none);
}

bool mig_of_compute_handle(nvmlComputeInstance_t handle, nvmlDevice_t *device, unsigned int *instance, unsigned int *compute) {
    return apart(place(compute_table, sizeof compute_table, handle.handle), device, instance, compute);
}

bool mig_of_device_handle(nvmlDevice_t handle, nvmlDevice_t *device, unsigned int *instance, unsigned int *compute) {
    return apart(place(device_table, sizeof device_table, handle.handle), device, instance, compute);
}
