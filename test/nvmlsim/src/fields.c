// nvmlDeviceGetFieldValues: many values in one call, each with a return code
// of its own. A rule for "field:<id>" in `calls` makes one of them fail.
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "sim.h"

static const struct field {
    unsigned int id;
    nvmlValueType_t type;
    const char *file;
} fields[] = {
    {NVML_FI_DEV_ECC_CURRENT, NVML_VALUE_TYPE_UNSIGNED_INT, "ecc_mode"},
    {NVML_FI_DEV_ECC_PENDING, NVML_VALUE_TYPE_UNSIGNED_INT, "ecc_mode"},
    {NVML_FI_DEV_ECC_SBE_VOL_TOTAL, NVML_VALUE_TYPE_UNSIGNED_LONG_LONG, "ecc_volatile_corrected"},
    {NVML_FI_DEV_ECC_DBE_VOL_TOTAL, NVML_VALUE_TYPE_UNSIGNED_LONG_LONG, "ecc_volatile_uncorrected"},
    {NVML_FI_DEV_ECC_SBE_AGG_TOTAL, NVML_VALUE_TYPE_UNSIGNED_LONG_LONG, "ecc_aggregate_corrected"},
    {NVML_FI_DEV_ECC_DBE_AGG_TOTAL, NVML_VALUE_TYPE_UNSIGNED_LONG_LONG, "ecc_aggregate_uncorrected"},
    {NVML_FI_DEV_MEMORY_TEMP, NVML_VALUE_TYPE_UNSIGNED_INT, "temperature_memory"},
    {NVML_FI_DEV_TOTAL_ENERGY_CONSUMPTION, NVML_VALUE_TYPE_UNSIGNED_LONG_LONG, "energy_millijoules"},
    {NVML_FI_DEV_NVLINK_LINK_COUNT, NVML_VALUE_TYPE_UNSIGNED_INT, "nvlink_count"},
    {NVML_FI_DEV_PCIE_REPLAY_COUNTER, NVML_VALUE_TYPE_UNSIGNED_INT, "pcie_replay"},
    {NVML_FI_DEV_REMAPPED_COR, NVML_VALUE_TYPE_UNSIGNED_INT, "remapped_correctable"},
    {NVML_FI_DEV_REMAPPED_UNC, NVML_VALUE_TYPE_UNSIGNED_INT, "remapped_uncorrectable"},
    {NVML_FI_DEV_REMAPPED_PENDING, NVML_VALUE_TYPE_UNSIGNED_INT, "remapping_pending"},
    {NVML_FI_DEV_REMAPPED_FAILURE, NVML_VALUE_TYPE_UNSIGNED_INT, "remapping_failed"},
    {NVML_FI_DEV_NVLINK_ERROR_DL_REPLAY, NVML_VALUE_TYPE_UNSIGNED_INT, "nvlink_replay"},
    {NVML_FI_DEV_NVLINK_ERROR_DL_RECOVERY, NVML_VALUE_TYPE_UNSIGNED_INT, "nvlink_recovery"},
    {NVML_FI_DEV_NVLINK_ERROR_DL_CRC, NVML_VALUE_TYPE_UNSIGNED_INT, "nvlink_crc"},
    {NVML_FI_DEV_POWER_AVERAGE, NVML_VALUE_TYPE_UNSIGNED_INT, "power_milliwatts"},
    {NVML_FI_DEV_POWER_INSTANT, NVML_VALUE_TYPE_UNSIGNED_INT, "power_milliwatts"},
    {NVML_FI_DEV_POWER_CURRENT_LIMIT, NVML_VALUE_TYPE_UNSIGNED_INT, "power_limit_milliwatts"},
#ifndef NVMLSIM_OLD_DRIVER
    {NVML_FI_DEV_GET_GPU_RECOVERY_ACTION, NVML_VALUE_TYPE_UNSIGNED_INT, "recovery_action"},
#endif
};

// recovery_action may be written in words.
static nvmlReturn_t recovery_action(const char *text, unsigned long long *value) {
    static const char *const words[] = {"none", "reset", "reboot", "drain_p2p", "drain_and_reset"};
    for (unsigned int i = 0; i < sizeof words / sizeof words[0]; i++) {
        if (strcmp(text, words[i]) == 0) {
            *value = i;
            return NVML_SUCCESS;
        }
    }
    return NVML_ERROR_UNKNOWN;
}

static nvmlReturn_t read_field(nvmlDevice_t device, const struct field *f, unsigned long long *value) {
    nvmlReturn_t r = sim_gpu_number(device, f->file, value);
    char text[SMALL];
    if (r == NVML_ERROR_UNKNOWN && strcmp(f->file, "recovery_action") == 0) {
        TRY(sim_gpu_text(device, f->file, text, sizeof text));
        return recovery_action(text, value);
    }
    return r;
}

static void fill(nvmlDevice_t device, nvmlFieldValue_t *v) {
    char name[SMALL];
    unsigned long long value = 0;
    snprintf(name, sizeof name, "field:%u", v->fieldId);
    v->value.ullVal = 0;
    v->nvmlReturn = sim_rules(name, sim_index(device));
    if (v->nvmlReturn != NVML_SUCCESS)
        return;
    v->nvmlReturn = NVML_ERROR_NOT_SUPPORTED;
    for (unsigned int i = 0; i < sizeof fields / sizeof fields[0]; i++) {
        if (fields[i].id != v->fieldId)
            continue;
        v->nvmlReturn = read_field(device, &fields[i], &value);
        v->valueType = fields[i].type;
        if (v->nvmlReturn == NVML_SUCCESS && fields[i].type == NVML_VALUE_TYPE_UNSIGNED_INT)
            v->value.uiVal = (unsigned int)value;
        else if (v->nvmlReturn == NVML_SUCCESS)
            v->value.ullVal = value;
        return;
    }
}

nvmlReturn_t nvmlDeviceGetFieldValues(nvmlDevice_t device, int count, nvmlFieldValue_t *values) {
    ENTER(device);
    WANT(values);
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    for (int i = 0; i < count; i++) {
        values[i].timestamp = now.tv_sec * 1000000LL + now.tv_nsec / 1000;
        values[i].latencyUsec = 0;
        fill(device, &values[i]);
    }
    return NVML_SUCCESS;
}
