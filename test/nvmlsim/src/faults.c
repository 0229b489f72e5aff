// Bad days: a driver that died, a GPU that is lost, calls that fail, wait or
// hang. Every call passes through sim_enter, which looks at the control folder
// to see whether this is one.
#define _GNU_SOURCE
#include <fnmatch.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "sim.h"

static atomic_int initialised;

static void sleep_ms(long ms) {
    struct timespec t = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};
    while (nanosleep(&t, &t) != 0)
        ;
}

bool sim_driver_dead(void) {
    char text[SMALL];
    return !sim_read("driver_version", text, sizeof text) || (sim_read("driver", text, sizeof text) && strcmp(text, "dead") == 0);
}

// find_rule copies the effect of the first rule in `calls` for this call.
// A rule is a line "<call pattern> <gpuN or *> <effect>".
static bool find_rule(const char *call, int gpu, char *effect) {
    char rules[LARGE], target[SMALL], *rest;
    if (!sim_read("calls", rules, sizeof rules))
        return false;
    snprintf(target, sizeof target, "gpu%d", gpu);
    for (char *line = strtok_r(rules, "\n", &rest); line != NULL; line = strtok_r(NULL, "\n", &rest)) {
        char pattern[SMALL], who[SMALL];
        if (line[0] == '#' || sscanf(line, "%511s %511s %511s", pattern, who, effect) != 3)
            continue;
        if (fnmatch(pattern, call, 0) == 0 && (strcmp(who, "*") == 0 || strcmp(who, target) == 0))
            return true;
    }
    return false;
}

static long duration_ms(const char *text) {
    char *unit;
    double number = strtod(text, &unit);
    return (long)(strcmp(unit, "ms") == 0 ? number : number * 1000);
}

nvmlReturn_t sim_rules(const char *call, int gpu) {
    char effect[SMALL];
    while (find_rule(call, gpu, effect)) {
        if (strncmp(effect, "return=", 7) == 0)
            return (nvmlReturn_t)atoi(effect + 7);
        if (strncmp(effect, "delay=", 6) == 0) {
            sleep_ms(duration_ms(effect + 6));
            return NVML_SUCCESS;
        }
        if (strcmp(effect, "hang") != 0)
            return NVML_ERROR_UNKNOWN;
        sleep_ms(5);
    }
    return NVML_SUCCESS;
}

nvmlReturn_t sim_enter(const char *call, int gpu) {
    if (atomic_load(&initialised) == 0)
        return NVML_ERROR_UNINITIALIZED;
    TRY(sim_rules(call, gpu));
    if (sim_driver_dead())
        return NVML_ERROR_DRIVER_NOT_LOADED;
    unsigned long long lost;
    if (gpu >= 0 && sim_unbound((unsigned int)gpu))
        return NVML_ERROR_GPU_IS_LOST;
    if (gpu >= 0 && sim_gpu_number(sim_device((unsigned int)gpu), "lost", &lost) == NVML_SUCCESS && lost != 0)
        return NVML_ERROR_GPU_IS_LOST;
    return NVML_SUCCESS;
}

nvmlReturn_t sim_init(const char *call) {
    sim_read_anew(); // a folder above the control folder may be another one now
    TRY(sim_rules(call, -1));
    if (sim_driver_dead())
        return NVML_ERROR_DRIVER_NOT_LOADED;
    atomic_fetch_add(&initialised, 1);
    return NVML_SUCCESS;
}

nvmlReturn_t sim_shutdown(void) {
    if (atomic_load(&initialised) == 0)
        return NVML_ERROR_UNINITIALIZED;
    atomic_fetch_sub(&initialised, 1);
    return NVML_SUCCESS;
}
