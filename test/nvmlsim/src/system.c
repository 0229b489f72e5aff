// Calls that concern the driver, and the ways to a device handle.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mig.h"

nvmlReturn_t nvmlInit_v2(void) { return sim_init(__func__); }
nvmlReturn_t nvmlInit(void) { return sim_init(__func__); }
nvmlReturn_t nvmlInitWithFlags(unsigned int flags) {
    // NVML_INIT_FLAG_NO_GPUS and _NO_ATTACH change nothing for simulated GPUs.
    (void)flags;
    return sim_init(__func__);
}
nvmlReturn_t nvmlShutdown(void) { return sim_shutdown(); }

const char *nvmlErrorString(nvmlReturn_t result) {
    static const char *const words[] = {
        "Success", "Uninitialized", "Invalid Argument", "Not Supported", "Insufficient Permissions", "Already Initialized", "Not Found",
        "Insufficient Size", "Insufficient External Power", "Driver Not Loaded", "Timeout", "Interrupt Request Issue",
        "NVML Shared Library Not Found", "Function Not Found", "Corrupted infoROM", "GPU is lost", "GPU requires restart",
        "The operating system has blocked the request.", "Driver/library version mismatch", "In use by another client",
        "Insufficient Memory", "No data", "VGPU ECC not supported", "Insufficient Resources", "Frequency not supported",
        "Argument version mismatch", "Deprecated", "Not Ready", "GPU not found", "Invalid state", "Reset type not supported",
    };
    if ((unsigned int)result < sizeof words / sizeof words[0])
        return words[result];
    return "Unknown Error";
}

static nvmlReturn_t version_file(const char *name, char *version, unsigned int length) {
    char text[SMALL];
    if (!sim_read(name, text, sizeof text))
        return NVML_ERROR_UNKNOWN;
    return sim_copy(text, version, length);
}

nvmlReturn_t nvmlSystemGetDriverVersion(char *version, unsigned int length) {
    ENTER_SYSTEM();
    return version_file("driver_version", version, length);
}

// NVML's own version is the driver's with the CUDA major in front: "12.570.124.06".
nvmlReturn_t nvmlSystemGetNVMLVersion(char *version, unsigned int length) {
    ENTER_SYSTEM();
    char driver[SMALL], cuda[SMALL], text[2 * SMALL + 2];
    TRY(version_file("driver_version", driver, sizeof driver));
    TRY(version_file("cuda_version", cuda, sizeof cuda));
    snprintf(text, sizeof text, "%d.%s", atoi(cuda), driver);
    return sim_copy(text, version, length);
}

static nvmlReturn_t cuda_version(int *version) {
    WANT(version);
    char text[SMALL];
    int major = 0, minor = 0;
    TRY(version_file("cuda_version", text, sizeof text));
    if (sscanf(text, "%d.%d", &major, &minor) != 2)
        return NVML_ERROR_UNKNOWN;
    *version = major * 1000 + minor * 10;
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlSystemGetCudaDriverVersion(int *version) {
    ENTER_SYSTEM();
    return cuda_version(version);
}

nvmlReturn_t nvmlSystemGetCudaDriverVersion_v2(int *version) {
    ENTER_SYSTEM();
    return cuda_version(version);
}

static nvmlReturn_t count(const char *call, unsigned int *number) {
    WANT(number);
    TRY(sim_enter(call, -1));
    unsigned int gpu;
    for (*number = 0; sim_gpu_at(*number, &gpu);)
        ++*number;
    return NVML_SUCCESS;
}
nvmlReturn_t nvmlDeviceGetCount_v2(unsigned int *number) { return count(__func__, number); }
nvmlReturn_t nvmlDeviceGetCount(unsigned int *number) { return count(__func__, number); }

static nvmlReturn_t by_index(const char *call, unsigned int index, nvmlDevice_t *device) {
    WANT(device);
    unsigned int gpu;
    bool exists = sim_gpu_at(index, &gpu);
    TRY(sim_enter(call, exists ? (int)gpu : -1));
    if (!exists)
        return NVML_ERROR_INVALID_ARGUMENT;
    *device = sim_device(gpu);
    return NVML_SUCCESS;
}
nvmlReturn_t nvmlDeviceGetHandleByIndex_v2(unsigned int index, nvmlDevice_t *device) { return by_index(__func__, index, device); }
nvmlReturn_t nvmlDeviceGetHandleByIndex(unsigned int index, nvmlDevice_t *device) { return by_index(__func__, index, device); }

// find looks for the GPU whose attribute has this value.
static nvmlReturn_t find(const char *call, const char *attribute, const char *wanted, nvmlDevice_t *device) {
    TRY(sim_enter(call, -1));
    for (unsigned int i = 0, n = sim_gpu_count(); i < n; i++) {
        char value[SMALL];
        if (sim_unbound(i) || sim_gpu_text(sim_device(i), attribute, value, sizeof value) != NVML_SUCCESS || strcmp(value, wanted) != 0)
            continue;
        TRY(sim_enter(call, (int)i));
        *device = sim_device(i);
        return NVML_SUCCESS;
    }
    return NVML_ERROR_NOT_FOUND;
}

nvmlReturn_t nvmlDeviceGetHandleByUUID(const char *uuid, nvmlDevice_t *device) {
    WANT(uuid);
    WANT(device);
    for (unsigned int i = 0, n = sim_gpu_count(); strncmp(uuid, "MIG-", 4) == 0 && i < n; i++)
        if (mig_find(sim_device(i), uuid, device))
            return sim_enter(__func__, (int)i);
    return find(__func__, "uuid", uuid, device);
}

nvmlReturn_t nvmlDeviceGetHandleBySerial(const char *serial, nvmlDevice_t *device) {
    WANT(serial);
    WANT(device);
    return find(__func__, "serial", serial, device);
}

static nvmlReturn_t by_pci(const char *call, const char *address, nvmlDevice_t *device) {
    WANT(address);
    WANT(device);
    char canonical[SMALL];
    unsigned int domain, bus, slot;
    if (!sim_pci_parse(address, &domain, &bus, &slot))
        return NVML_ERROR_INVALID_ARGUMENT;
    snprintf(canonical, sizeof canonical, "%04x:%02x:%02x.0", domain, bus, slot);
    return find(call, "pci_bus_id", canonical, device);
}
nvmlReturn_t nvmlDeviceGetHandleByPciBusId_v2(const char *address, nvmlDevice_t *device) { return by_pci(__func__, address, device); }
nvmlReturn_t nvmlDeviceGetHandleByPciBusId(const char *address, nvmlDevice_t *device) { return by_pci(__func__, address, device); }
