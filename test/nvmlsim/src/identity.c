// Calls that say what a GPU is and where it sits.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mig.h"

// TEXT is a call that copies one file of the GPU's folder.
#define TEXT(call, file)                                                                \
    nvmlReturn_t call(nvmlDevice_t device, char *buffer, unsigned int length) {         \
        ENTER(device);                                                                  \
        char text[SMALL];                                                               \
        TRY(sim_gpu_text(device, file, text, sizeof text));                             \
        return sim_copy(text, buffer, length);                                          \
    }
TEXT(nvmlDeviceGetSerial, "serial")
TEXT(nvmlDeviceGetVbiosVersion, "vbios")
TEXT(nvmlDeviceGetBoardPartNumber, "board_part")

nvmlReturn_t nvmlDeviceGetName(nvmlDevice_t device, char *buffer, unsigned int length) {
    if (mig_is_device(device))
        return mig_device_name(__func__, device, buffer, length);
    ENTER(device);
    char text[SMALL];
    TRY(sim_gpu_text(device, "name", text, sizeof text));
    return sim_copy(text, buffer, length);
}

nvmlReturn_t nvmlDeviceGetUUID(nvmlDevice_t device, char *buffer, unsigned int length) {
    if (mig_is_device(device))
        return mig_device_uuid(__func__, device, buffer, length);
    ENTER(device);
    char text[SMALL];
    TRY(sim_gpu_text(device, "uuid", text, sizeof text));
    return sim_copy(text, buffer, length);
}

// NUMBER is a call that stores one number.
#define NUMBER(call, type, file)                                    \
    nvmlReturn_t call(nvmlDevice_t device, type *result) {          \
        ENTER(device);                                              \
        WANT(result);                                               \
        unsigned long long number;                                  \
        TRY(sim_gpu_number(device, file, &number));                 \
        *result = (type)number;                                     \
        return NVML_SUCCESS;                                        \
    }
NUMBER(nvmlDeviceGetMinorNumber, unsigned int, "minor")
NUMBER(nvmlDeviceGetBrand, nvmlBrandType_t, "brand")
NUMBER(nvmlDeviceGetArchitecture, nvmlDeviceArchitecture_t, "architecture")
NUMBER(nvmlDeviceGetBoardId, unsigned int, "board_id")
NUMBER(nvmlDeviceGetModuleId, unsigned int, "module_id")
NUMBER(nvmlDeviceGetNumGpuCores, unsigned int, "cores")
NUMBER(nvmlDeviceGetMemoryBusWidth, unsigned int, "memory_bus_bits")
NUMBER(nvmlDeviceGetPersistenceMode, nvmlEnableState_t, "persistence_mode")
NUMBER(nvmlDeviceGetComputeMode, nvmlComputeMode_t, "compute_mode")
NUMBER(nvmlDeviceGetMultiGpuBoard, unsigned int, "multi_gpu_board")
NUMBER(nvmlDeviceGetCurrPcieLinkGeneration, unsigned int, "pcie_generation")
NUMBER(nvmlDeviceGetCurrPcieLinkWidth, unsigned int, "pcie_width")
NUMBER(nvmlDeviceGetMaxPcieLinkGeneration, unsigned int, "pcie_max_generation")
NUMBER(nvmlDeviceGetGpuMaxPcieLinkGeneration, unsigned int, "pcie_max_generation")
NUMBER(nvmlDeviceGetMaxPcieLinkWidth, unsigned int, "pcie_max_width")
NUMBER(nvmlDeviceGetPcieReplayCounter, unsigned int, "pcie_replay")
// The NUMA node that the GPU's own memory forms (Grace), not the one it is near.
NUMBER(nvmlDeviceGetNumaNodeId, unsigned int, "gpu_numa_node")

nvmlReturn_t nvmlDeviceGetIndex(nvmlDevice_t device, unsigned int *index) {
    WANT(index);
    if (mig_is_device(device))
        return mig_device_index(__func__, device, index);
    ENTER(device);
    unsigned int gpu;
    for (*index = 0; sim_gpu_at(*index, &gpu) && (int)gpu != sim_index(device);)
        ++*index;
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetCudaComputeCapability(nvmlDevice_t device, int *major, int *minor) {
    ENTER(device);
    WANT(major);
    WANT(minor);
    char text[SMALL];
    TRY(sim_gpu_text(device, "compute_capability", text, sizeof text));
    return sscanf(text, "%d.%d", major, minor) == 2 ? NVML_SUCCESS : NVML_ERROR_UNKNOWN;
}

#ifndef NVMLSIM_OLD_DRIVER
nvmlReturn_t nvmlDeviceGetAddressingMode(nvmlDevice_t device, nvmlDeviceAddressingMode_t *mode) {
    ENTER(device);
    WANT(mode);
    if (mode->version != nvmlDeviceAddressingMode_v1)
        return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
    unsigned long long value;
    TRY(sim_gpu_number(device, "addressing_mode", &value));
    mode->value = (unsigned int)value;
    return NVML_SUCCESS;
}
#endif

bool sim_pci_parse(const char *address, unsigned int *domain, unsigned int *bus, unsigned int *device) {
    unsigned int function = 0;
    return sscanf(address, "%x:%x:%x.%x", domain, bus, device, &function) >= 3 ||
           (*domain = 0, sscanf(address, "%x:%x.%x", bus, device, &function) == 3);
}

void sim_pci_fill(const char *address, unsigned int id, unsigned int subsystem, nvmlPciInfo_t *info) {
    memset(info, 0, sizeof *info);
    sim_pci_parse(address, &info->domain, &info->bus, &info->device);
    info->pciDeviceId = id;
    info->pciSubSystemId = subsystem;
    snprintf(info->busId, sizeof info->busId, NVML_DEVICE_PCI_BUS_ID_FMT, NVML_DEVICE_PCI_BUS_ID_FMT_ARGS(info));
    snprintf(info->busIdLegacy, sizeof info->busIdLegacy, "%04X:%02X:%02X.0", info->domain & 0xffff, info->bus & 0xff, info->device & 0xff);
}

static nvmlReturn_t pci_info(nvmlDevice_t device, nvmlPciInfo_t *info) {
    WANT(info);
    char address[SMALL];
    unsigned long long id = 0, subsystem = 0;
    TRY(sim_gpu_text(device, "pci_bus_id", address, sizeof address));
    TRY(sim_gpu_number(device, "pci_device_id", &id));
    TRY(sim_gpu_number(device, "pci_subsystem_id", &subsystem));
    sim_pci_fill(address, (unsigned int)id, (unsigned int)subsystem, info);
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetPciInfo_v3(nvmlDevice_t device, nvmlPciInfo_t *info) {
    ENTER(device);
    return pci_info(device, info);
}

nvmlReturn_t nvmlDeviceGetPciInfo_v2(nvmlDevice_t device, nvmlPciInfo_t *info) {
    ENTER(device);
    return pci_info(device, info);
}

#ifndef NVMLSIM_OLD_DRIVER
nvmlReturn_t nvmlDeviceGetPciInfoExt(nvmlDevice_t device, nvmlPciInfoExt_t *info) {
    ENTER(device);
    WANT(info);
    if (info->version != nvmlPciInfoExt_v1)
        return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
    nvmlPciInfo_t basic;
    unsigned long long class = 0;
    TRY(pci_info(device, &basic));
    TRY(sim_gpu_number(device, "pci_class", &class));
    info->domain = basic.domain;
    info->bus = basic.bus;
    info->device = basic.device;
    info->pciDeviceId = basic.pciDeviceId;
    info->pciSubSystemId = basic.pciSubSystemId;
    info->baseClass = (unsigned int)(class >> 16) & 0xff;
    info->subClass = (unsigned int)(class >> 8) & 0xff;
    memcpy(info->busId, basic.busId, sizeof info->busId);
    return NVML_SUCCESS;
}
#endif

// common_level compares two paths "pci0000:15/0000:15:01.0/.../0000:1b:00.0":
// the deepest bridge that both pass decides.
static nvmlGpuTopologyLevel_t common_level(char *a, char *b) {
    char *rest_a, *rest_b;
    char *x = strtok_r(a, "/", &rest_a), *y = strtok_r(b, "/", &rest_b);
    int shared = 0;
    while (x != NULL && y != NULL && strcmp(x, y) == 0) {
        shared++;
        x = strtok_r(NULL, "/", &rest_a);
        y = strtok_r(NULL, "/", &rest_b);
    }
    int below = 0;
    for (; x != NULL; x = strtok_r(NULL, "/", &rest_a))
        below++;
    // Root complex, root port and upstream port in common, then one downstream
    // port and the GPU: one switch.
    if (shared >= 3)
        return below <= 2 ? NVML_TOPOLOGY_SINGLE : NVML_TOPOLOGY_MULTIPLE;
    if (shared == 2)
        return NVML_TOPOLOGY_MULTIPLE;
    return shared == 1 ? NVML_TOPOLOGY_HOSTBRIDGE : NVML_TOPOLOGY_SYSTEM;
}

nvmlReturn_t nvmlDeviceGetTopologyCommonAncestor(nvmlDevice_t device1, nvmlDevice_t device2, nvmlGpuTopologyLevel_t *level) {
    ENTER(device1);
    ENTER(device2);
    WANT(level);
    if (sim_index(device1) == sim_index(device2)) {
        *level = NVML_TOPOLOGY_INTERNAL;
        return NVML_SUCCESS;
    }
    char a[SMALL], b[SMALL];
    unsigned long long node1, node2;
    TRY(sim_gpu_text(device1, "pcie_path", a, sizeof a));
    TRY(sim_gpu_text(device2, "pcie_path", b, sizeof b));
    TRY(sim_gpu_number(device1, "numa_node", &node1));
    TRY(sim_gpu_number(device2, "numa_node", &node2));
    *level = common_level(a, b);
    if (*level == NVML_TOPOLOGY_SYSTEM && node1 == node2)
        *level = NVML_TOPOLOGY_NODE;
    return NVML_SUCCESS;
}
