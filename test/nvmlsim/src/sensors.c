// Calls whose answers change from second to second: load, memory, heat, power,
// clocks, errors, processes.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mig.h"

static nvmlReturn_t number(nvmlDevice_t device, const char *file, unsigned int *result) {
    WANT(result);
    unsigned long long value;
    TRY(sim_gpu_number(device, file, &value));
    *result = (unsigned int)value;
    return NVML_SUCCESS;
}

// memory reads the three figures; used is what processes allocated.
static nvmlReturn_t memory(const char *call, nvmlDevice_t device, nvmlMemory_v2_t *m) {
    if (mig_is_device(device)) {
        // What a MIG device's processes use is not simulated.
        TRY(mig_device_memory(call, device, &m->total));
        m->used = m->reserved = 0;
        m->free = m->total;
        return NVML_SUCCESS;
    }
    if (sim_index(device) < 0)
        return NVML_ERROR_INVALID_ARGUMENT;
    TRY(sim_enter(call, sim_index(device)));
    TRY(sim_gpu_number(device, "memory_total", &m->total));
    TRY(sim_gpu_number(device, "memory_used", &m->used));
    if (sim_gpu_number(device, "memory_reserved", &m->reserved) != NVML_SUCCESS)
        m->reserved = 0;
    unsigned long long taken = m->used + m->reserved;
    m->free = m->total > taken ? m->total - taken : 0;
    return NVML_SUCCESS;
}

// Version 1 counts the reserved memory as used, as nvml.h says.
nvmlReturn_t nvmlDeviceGetMemoryInfo(nvmlDevice_t device, nvmlMemory_t *result) {
    WANT(result);
    nvmlMemory_v2_t m;
    TRY(memory(__func__, device, &m));
    *result = (nvmlMemory_t){.total = m.total, .free = m.free, .used = m.used + m.reserved};
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetMemoryInfo_v2(nvmlDevice_t device, nvmlMemory_v2_t *result) {
    WANT(result);
    if (result->version != nvmlMemory_v2)
        return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
    return memory(__func__, device, result);
}

nvmlReturn_t nvmlDeviceGetBAR1MemoryInfo(nvmlDevice_t device, nvmlBAR1Memory_t *result) {
    ENTER(device);
    WANT(result);
    TRY(sim_gpu_number(device, "bar1_total", &result->bar1Total));
    result->bar1Used = 1 << 20;
    result->bar1Free = result->bar1Total - result->bar1Used;
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetUtilizationRates(nvmlDevice_t device, nvmlUtilization_t *result) {
    ENTER(device);
    WANT(result);
    TRY(number(device, "utilization", &result->gpu));
    return number(device, "memory_utilization", &result->memory);
}

nvmlReturn_t nvmlDeviceGetTemperature(nvmlDevice_t device, nvmlTemperatureSensors_t sensor, unsigned int *result) {
    ENTER(device);
    if (sensor != NVML_TEMPERATURE_GPU)
        return NVML_ERROR_INVALID_ARGUMENT;
    return number(device, "temperature", result);
}

#ifndef NVMLSIM_OLD_DRIVER
nvmlReturn_t nvmlDeviceGetTemperatureV(nvmlDevice_t device, nvmlTemperature_t *result) {
    ENTER(device);
    WANT(result);
    if (result->version != nvmlTemperature_v1)
        return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
    if (result->sensorType != NVML_TEMPERATURE_GPU)
        return NVML_ERROR_INVALID_ARGUMENT;
    unsigned int degrees;
    TRY(number(device, "temperature", &degrees));
    result->temperature = (int)degrees;
    return NVML_SUCCESS;
}
#endif

nvmlReturn_t nvmlDeviceGetTemperatureThreshold(nvmlDevice_t device, nvmlTemperatureThresholds_t threshold, unsigned int *result) {
    ENTER(device);
    static const char *const files[] = {
        [NVML_TEMPERATURE_THRESHOLD_SHUTDOWN] = "temperature_shutdown",
        [NVML_TEMPERATURE_THRESHOLD_SLOWDOWN] = "temperature_slowdown",
    };
    if ((unsigned int)threshold >= sizeof files / sizeof files[0])
        return NVML_ERROR_NOT_SUPPORTED;
    return number(device, files[threshold], result);
}

nvmlReturn_t nvmlDeviceGetPowerUsage(nvmlDevice_t device, unsigned int *milliwatts) {
    ENTER(device);
    return number(device, "power_milliwatts", milliwatts);
}

static nvmlReturn_t power_limit(const char *call, nvmlDevice_t device, unsigned int *milliwatts) {
    TRY(sim_enter(call, sim_index(device)));
    return number(device, "power_limit_milliwatts", milliwatts);
}
nvmlReturn_t nvmlDeviceGetPowerManagementLimit(nvmlDevice_t device, unsigned int *limit) { return power_limit(__func__, device, limit); }
nvmlReturn_t nvmlDeviceGetEnforcedPowerLimit(nvmlDevice_t device, unsigned int *limit) { return power_limit(__func__, device, limit); }

nvmlReturn_t nvmlDeviceGetTotalEnergyConsumption(nvmlDevice_t device, unsigned long long *millijoules) {
    ENTER(device);
    WANT(millijoules);
    return sim_gpu_number(device, "energy_millijoules", millijoules);
}

static nvmlReturn_t clock_of(nvmlDevice_t device, nvmlClockType_t type, bool max, unsigned int *megahertz) {
    switch (type) {
    case NVML_CLOCK_GRAPHICS:
    case NVML_CLOCK_SM:
        return number(device, max ? "clock_sm_max" : "clock_sm", megahertz);
    case NVML_CLOCK_MEM:
        return number(device, max ? "clock_memory_max" : "clock_memory", megahertz);
    case NVML_CLOCK_VIDEO:
        return number(device, max ? "clock_video_max" : "clock_video", megahertz);
    default:
        return NVML_ERROR_INVALID_ARGUMENT;
    }
}

nvmlReturn_t nvmlDeviceGetClockInfo(nvmlDevice_t device, nvmlClockType_t type, unsigned int *megahertz) {
    ENTER(device);
    return clock_of(device, type, false, megahertz);
}

nvmlReturn_t nvmlDeviceGetMaxClockInfo(nvmlDevice_t device, nvmlClockType_t type, unsigned int *megahertz) {
    ENTER(device);
    return clock_of(device, type, true, megahertz);
}

static nvmlReturn_t clock_reasons(const char *call, nvmlDevice_t device, unsigned long long *reasons) {
    WANT(reasons);
    TRY(sim_enter(call, sim_index(device)));
    return sim_gpu_number(device, "clock_reasons", reasons);
}
#ifndef NVMLSIM_OLD_DRIVER
nvmlReturn_t nvmlDeviceGetCurrentClocksEventReasons(nvmlDevice_t device, unsigned long long *reasons) { return clock_reasons(__func__, device, reasons); }
#endif
nvmlReturn_t nvmlDeviceGetCurrentClocksThrottleReasons(nvmlDevice_t device, unsigned long long *reasons) { return clock_reasons(__func__, device, reasons); }

nvmlReturn_t nvmlDeviceGetPerformanceState(nvmlDevice_t device, nvmlPstates_t *state) {
    ENTER(device);
    WANT(state);
    *state = NVML_PSTATE_0;
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetEccMode(nvmlDevice_t device, nvmlEnableState_t *current, nvmlEnableState_t *pending) {
    ENTER(device);
    WANT(current);
    WANT(pending);
    unsigned int mode;
    TRY(number(device, "ecc_mode", &mode));
    *current = *pending = (nvmlEnableState_t)mode;
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetTotalEccErrors(nvmlDevice_t device, nvmlMemoryErrorType_t type, nvmlEccCounterType_t counter, unsigned long long *errors) {
    ENTER(device);
    WANT(errors);
    char file[SMALL];
    snprintf(file, sizeof file, "ecc_%s_%s", counter == NVML_VOLATILE_ECC ? "volatile" : "aggregate",
             type == NVML_MEMORY_ERROR_TYPE_CORRECTED ? "corrected" : "uncorrected");
    return sim_gpu_number(device, file, errors);
}

nvmlReturn_t nvmlDeviceGetRemappedRows(nvmlDevice_t device, unsigned int *correctable, unsigned int *uncorrectable, unsigned int *pending, unsigned int *failed) {
    ENTER(device);
    TRY(number(device, "remapped_correctable", correctable));
    TRY(number(device, "remapped_uncorrectable", uncorrectable));
    TRY(number(device, "remapping_pending", pending));
    return number(device, "remapping_failed", failed);
}

// processes reads lines "<pid> <bytes> [gi=<id>] [ci=<id>]".
static nvmlReturn_t processes(nvmlDevice_t device, unsigned int *count, nvmlProcessInfo_t *infos) {
    WANT(count);
    char text[LARGE] = "", *rest;
    sim_gpu_text(device, "processes", text, sizeof text);
    unsigned int found = 0, room = *count;
    for (char *line = strtok_r(text, "\n", &rest); line != NULL; line = strtok_r(NULL, "\n", &rest)) {
        nvmlProcessInfo_t p = {.gpuInstanceId = 0xFFFFFFFF, .computeInstanceId = 0xFFFFFFFF};
        if (sscanf(line, "%u %llu gi=%u ci=%u", &p.pid, &p.usedGpuMemory, &p.gpuInstanceId, &p.computeInstanceId) < 2)
            continue;
        if (found < room && infos != NULL)
            infos[found] = p;
        found++;
    }
    *count = found;
    return found > room ? NVML_ERROR_INSUFFICIENT_SIZE : NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetComputeRunningProcesses_v3(nvmlDevice_t device, unsigned int *count, nvmlProcessInfo_t *infos) {
    ENTER(device);
    return processes(device, count, infos);
}

nvmlReturn_t nvmlDeviceGetComputeRunningProcesses_v2(nvmlDevice_t device, unsigned int *count, nvmlProcessInfo_v2_t *infos) {
    ENTER(device);
    return processes(device, count, infos);
}

static nvmlReturn_t none(nvmlDevice_t device, const char *call, unsigned int *count) {
    WANT(count);
    TRY(sim_enter(call, sim_index(device)));
    *count = 0;
    return NVML_SUCCESS;
}
nvmlReturn_t nvmlDeviceGetGraphicsRunningProcesses_v3(nvmlDevice_t device, unsigned int *count, nvmlProcessInfo_t *infos) {
    (void)infos;
    return none(device, __func__, count);
}
nvmlReturn_t nvmlDeviceGetMPSComputeRunningProcesses_v3(nvmlDevice_t device, unsigned int *count, nvmlProcessInfo_t *infos) {
    (void)infos;
    return none(device, __func__, count);
}
