// Events. Whoever appends a line to `events` makes something happen:
// "<kind> <gpuN> [<number>] [gi=<id>] [ci=<id>]". An event set hands out the
// lines that were added after its creation. Who waits sleeps until something changes
// in the control folder, the end of the driver among it.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "sim.h"

struct nvmlEventSet_st {
    pthread_mutex_t lock;
    off_t offset;
    int inotify;
    unsigned long long types[MAX_GPUS];
};

static const struct {
    const char *kind;
    unsigned long long type;
} kinds[] = {
    {"xid", nvmlEventTypeXidCriticalError},
    {"ecc_single", nvmlEventTypeSingleBitEccError},
    {"ecc_double", nvmlEventTypeDoubleBitEccError},
    {"clock", nvmlEventTypeClock},
    {"pstate", nvmlEventTypePState},
    {"mig_config", nvmlEventMigConfigChange},
#ifndef NVMLSIM_OLD_DRIVER
    {"ecc_storm", nvmlEventTypeSingleBitEccErrorStorm},
    {"dram_retirement", nvmlEventTypeDramRetirementEvent},
    {"dram_retirement_failure", nvmlEventTypeDramRetirementFailure},
    {"poison_nonfatal", nvmlEventTypeNonFatalPoisonError},
    {"poison_fatal", nvmlEventTypeFatalPoisonError},
    {"unavailable", nvmlEventTypeGpuUnavailableError},
    {"recovery_action", nvmlEventTypeGpuRecoveryAction},
#endif
};

static unsigned long long supported(void) {
    unsigned long long types = 0;
    for (unsigned int i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
        types |= kinds[i].type;
    return types;
}

nvmlReturn_t nvmlEventSetCreate(nvmlEventSet_t *set) {
    ENTER_SYSTEM();
    WANT(set);
    struct nvmlEventSet_st *s = calloc(1, sizeof *s);
    if (s == NULL)
        return NVML_ERROR_MEMORY;
    pthread_mutex_init(&s->lock, NULL);
    char path[PATH_MAX];
    sim_path("", path, sizeof path);
    s->inotify = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    if (s->inotify >= 0 &&
        inotify_add_watch(s->inotify, path, IN_MODIFY | IN_CREATE | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO | IN_DELETE_SELF | IN_MOVE_SELF) < 0) {
        close(s->inotify);
        s->inotify = -1;
    }
    struct stat st;
    sim_path("events", path, sizeof path);
    if (stat(path, &st) == 0)
        s->offset = st.st_size;
    set->handle = s;
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlEventSetFree(nvmlEventSet_t set) {
    WANT(set.handle);
    if (set.handle->inotify >= 0)
        close(set.handle->inotify);
    pthread_mutex_destroy(&set.handle->lock);
    free(set.handle);
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetSupportedEventTypes(nvmlDevice_t device, unsigned long long *types) {
    ENTER(device);
    WANT(types);
    *types = supported();
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceRegisterEvents(nvmlDevice_t device, unsigned long long types, nvmlEventSet_t set) {
    ENTER(device);
    WANT(set.handle);
    if (types & ~supported())
        return NVML_ERROR_NOT_SUPPORTED;
    pthread_mutex_lock(&set.handle->lock);
    set.handle->types[sim_index(device)] |= types;
    pthread_mutex_unlock(&set.handle->lock);
    return NVML_SUCCESS;
}

// parse reads one line; false if nobody registered for it, or it is none.
static bool parse(struct nvmlEventSet_st *s, const char *line, nvmlEventData_t *event) {
    char kind[SMALL];
    unsigned int gpu;
    *event = (nvmlEventData_t){.gpuInstanceId = 0xFFFFFFFF, .computeInstanceId = 0xFFFFFFFF};
    if (sscanf(line, "%511s gpu%u %llu", kind, &gpu, &event->eventData) < 2 || gpu >= MAX_GPUS)
        return false;
    const char *gi = strstr(line, "gi="), *ci = strstr(line, "ci=");
    if (gi != NULL)
        event->gpuInstanceId = (unsigned int)strtoul(gi + 3, NULL, 0);
    if (ci != NULL)
        event->computeInstanceId = (unsigned int)strtoul(ci + 3, NULL, 0);
    for (unsigned int i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        if (strcmp(kind, kinds[i].kind) == 0 && (s->types[gpu] & kinds[i].type)) {
            event->device = sim_device(gpu);
            event->eventType = kinds[i].type;
            return true;
        }
    }
    return false;
}

// next takes the next event out of the file, whole lines only.
static bool next(struct nvmlEventSet_st *s, nvmlEventData_t *event) {
    char path[PATH_MAX];
    struct stat st;
    sim_path("events", path, sizeof path);
    if (stat(path, &st) != 0 || st.st_size == s->offset)
        return false;
    // A file that shrank was emptied: begin again.
    if (st.st_size < s->offset)
        s->offset = 0;
    FILE *f = fopen(path, "re");
    if (f == NULL)
        return false;
    bool found = false;
    char line[SMALL];
    fseeko(f, s->offset, SEEK_SET);
    while (!found && fgets(line, sizeof line, f) != NULL && strchr(line, '\n') != NULL) {
        s->offset = ftello(f);
        found = parse(s, line, event);
    }
    fclose(f);
    return found;
}

static long long now_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000LL + t.tv_nsec / 1000000;
}

// doze returns when something changed in the control folder, or the time is over.
// Without inotify (its instances and watches are few on a machine) it looks ten times a second.
static void doze(struct nvmlEventSet_st *s, long long left) {
    struct pollfd p = {.fd = s->inotify, .events = POLLIN};
    char changes[4096];
    long long longest = s->inotify >= 0 ? INT_MAX : 100;
    poll(&p, s->inotify >= 0 ? 1 : 0, (int)(left < longest ? left : longest));
    while (s->inotify >= 0 && read(s->inotify, changes, sizeof changes) > 0)
        ;
}

static nvmlReturn_t wait_for(const char *call, nvmlEventSet_t set, nvmlEventData_t *event, unsigned int timeout) {
    WANT(set.handle);
    WANT(event);
    for (long long end = now_ms() + timeout;;) {
        TRY(sim_enter(call, -1));
        pthread_mutex_lock(&set.handle->lock);
        bool found = next(set.handle, event);
        pthread_mutex_unlock(&set.handle->lock);
        if (found)
            return NVML_SUCCESS;
        long long left = end - now_ms();
        if (left <= 0)
            return NVML_ERROR_TIMEOUT;
        doze(set.handle, left);
    }
}
nvmlReturn_t nvmlEventSetWait_v2(nvmlEventSet_t set, nvmlEventData_t *event, unsigned int timeout) { return wait_for(__func__, set, event, timeout); }
nvmlReturn_t nvmlEventSetWait(nvmlEventSet_t set, nvmlEventData_t *event, unsigned int timeout) { return wait_for(__func__, set, event, timeout); }
