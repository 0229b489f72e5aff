// NVLinks and the fabric that they form. gpu<N>/nvlinks has one line per link:
// "<link> <1 active, 0 not> <version> <gpu|switch|cpu> <pci address or ->".
#include <stdio.h>
#include <string.h>

#include "sim.h"

struct link {
    unsigned int number, active, version;
    char peer[SMALL], address[SMALL];
};

static nvmlReturn_t find_link(nvmlDevice_t device, unsigned int number, struct link *found) {
    if (number >= NVML_NVLINK_MAX_LINKS)
        return NVML_ERROR_INVALID_ARGUMENT;
    char text[LARGE], *rest;
    TRY(sim_gpu_text(device, "nvlinks", text, sizeof text));
    for (char *line = strtok_r(text, "\n", &rest); line != NULL; line = strtok_r(NULL, "\n", &rest)) {
        if (sscanf(line, "%u %u %u %511s %511s", &found->number, &found->active, &found->version, found->peer, found->address) == 5 && found->number == number)
            return NVML_SUCCESS;
    }
    return NVML_ERROR_INVALID_ARGUMENT;
}

nvmlReturn_t nvmlDeviceGetNvLinkState(nvmlDevice_t device, unsigned int number, nvmlEnableState_t *active) {
    ENTER(device);
    WANT(active);
    struct link l;
    TRY(find_link(device, number, &l));
    *active = l.active ? NVML_FEATURE_ENABLED : NVML_FEATURE_DISABLED;
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetNvLinkVersion(nvmlDevice_t device, unsigned int number, unsigned int *version) {
    ENTER(device);
    WANT(version);
    struct link l;
    TRY(find_link(device, number, &l));
    *version = l.version;
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetNvLinkCapability(nvmlDevice_t device, unsigned int number, nvmlNvLinkCapability_t capability, unsigned int *result) {
    ENTER(device);
    WANT(result);
    struct link l;
    TRY(find_link(device, number, &l));
    *result = capability == NVML_NVLINK_CAP_P2P_SUPPORTED || capability == NVML_NVLINK_CAP_SYSMEM_ACCESS ||
              capability == NVML_NVLINK_CAP_P2P_ATOMICS || capability == NVML_NVLINK_CAP_SYSMEM_ATOMICS || capability == NVML_NVLINK_CAP_VALID;
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetNvLinkRemotePciInfo_v2(nvmlDevice_t device, unsigned int number, nvmlPciInfo_t *info) {
    ENTER(device);
    WANT(info);
    struct link l;
    TRY(find_link(device, number, &l));
    if (strcmp(l.address, "-") == 0)
        return NVML_ERROR_NOT_SUPPORTED;
    sim_pci_fill(l.address, 0, 0, info);
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetNvLinkRemoteDeviceType(nvmlDevice_t device, unsigned int number, nvmlIntNvLinkDeviceType_t *type) {
    ENTER(device);
    WANT(type);
    struct link l;
    TRY(find_link(device, number, &l));
    if (strcmp(l.peer, "gpu") == 0)
        *type = NVML_NVLINK_DEVICE_TYPE_GPU;
    else if (strcmp(l.peer, "switch") == 0)
        *type = NVML_NVLINK_DEVICE_TYPE_SWITCH;
    else if (strcmp(l.peer, "cpu") == 0)
        *type = NVML_NVLINK_DEVICE_TYPE_IBMNPU;
    else
        *type = NVML_NVLINK_DEVICE_TYPE_UNKNOWN;
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetNvLinkErrorCounter(nvmlDevice_t device, unsigned int number, nvmlNvLinkErrorCounter_t counter, unsigned long long *value) {
    ENTER(device);
    WANT(value);
    struct link l;
    TRY(find_link(device, number, &l));
    switch (counter) {
    case NVML_NVLINK_ERROR_DL_REPLAY:
        return sim_gpu_number(device, "nvlink_replay", value);
    case NVML_NVLINK_ERROR_DL_RECOVERY:
        return sim_gpu_number(device, "nvlink_recovery", value);
    case NVML_NVLINK_ERROR_DL_CRC_FLIT:
        return sim_gpu_number(device, "nvlink_crc", value);
    default:
        return NVML_ERROR_NOT_SUPPORTED;
    }
}

// fabric reads gpu<N>/fabric: "<state 0 to 3> <clique> <health mask> <cluster uuid, 32 hex digits> [<status>]".
// The status, an nvmlReturn_t, is success where it is left out.
static nvmlReturn_t fabric(nvmlDevice_t device, nvmlGpuFabricInfo_v3_t *info) {
    char text[SMALL], cluster[SMALL];
    unsigned int state, status = NVML_SUCCESS;
    TRY(sim_gpu_text(device, "fabric", text, sizeof text));
    if (sscanf(text, "%u %u %x %511s %u", &state, &info->cliqueId, &info->healthMask, cluster, &status) < 4)
        return NVML_ERROR_UNKNOWN;
    for (unsigned int i = 0; i < sizeof info->clusterUuid; i++) {
        unsigned int byte;
        if (sscanf(cluster + 2 * i, "%2x", &byte) != 1)
            return NVML_ERROR_UNKNOWN;
        info->clusterUuid[i] = (unsigned char)byte;
    }
    info->state = (nvmlGpuFabricState_t)state;
    info->status = (nvmlReturn_t)status;
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetGpuFabricInfo(nvmlDevice_t device, nvmlGpuFabricInfo_t *result) {
    ENTER(device);
    WANT(result);
    nvmlGpuFabricInfo_v3_t info = {0};
    TRY(fabric(device, &info));
    memcpy(result->clusterUuid, info.clusterUuid, sizeof result->clusterUuid);
    result->status = info.status;
    result->cliqueId = info.cliqueId;
    result->state = info.state;
    return NVML_SUCCESS;
}

#ifndef NVMLSIM_OLD_DRIVER
// Versions 2 and 3 differ by one field at the end.
nvmlReturn_t nvmlDeviceGetGpuFabricInfoV(nvmlDevice_t device, nvmlGpuFabricInfoV_t *result) {
    ENTER(device);
    WANT(result);
    unsigned int version = result->version;
    if (version != nvmlGpuFabricInfo_v2 && version != nvmlGpuFabricInfo_v3)
        return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
    nvmlGpuFabricInfo_v3_t info = {.version = version};
    TRY(fabric(device, &info));
    memcpy(result, &info, version == nvmlGpuFabricInfo_v2 ? sizeof(nvmlGpuFabricInfo_v2_t) : sizeof info);
    return NVML_SUCCESS;
}
#endif
