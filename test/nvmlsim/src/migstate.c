// MIG profiles and instances as files. Readers need no lock, because a file is
// only ever replaced whole; whoever changes instances holds a lock from reading to
// replacing, so that two processes cannot give away the same memory slices.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "mig.h"

bool mig_enabled(nvmlDevice_t device) {
    char text[SMALL];
    unsigned int current;
    return sim_gpu_text(device, "mig_mode", text, sizeof text) == NVML_SUCCESS && sscanf(text, "%u", &current) == 1 && current == 1;
}

static void parse_places(char *text, struct profile *p) {
    char *rest;
    for (char *place = strtok_r(text, ",", &rest); place != NULL && p->places < MAX_PLACEMENTS; place = strtok_r(NULL, ",", &rest)) {
        nvmlGpuInstancePlacement_t *to = &p->place[p->places];
        if (sscanf(place, "%u:%u", &to->start, &to->size) == 2)
            p->places++;
    }
}

static bool parse_profile(const char *line, struct profile *p) {
    char places[SMALL];
    int end = 0;
    memset(p, 0, sizeof *p);
    if (sscanf(line, "%u %u %63s %u %u %u %u %u %u %u %u %llu %511s%n", &p->index, &p->id, p->name, &p->takes[COMPUTE_SLICES], &p->instances,
               &p->multiprocessors, &p->takes[COPY], &p->takes[DECODER], &p->takes[ENCODER], &p->takes[JPEG], &p->takes[OFA], &p->memory_mb,
               places, &end) != 13)
        return false;
    parse_places(places, p);
    p->p2p = strstr(line + end, "p2p") != NULL;
    p->gfx = strstr(line + end, "gfx") != NULL;
    return true;
}

nvmlReturn_t mig_profiles(nvmlDevice_t device, struct mig *mig) {
    char text[LARGE], *rest;
    memset(mig, 0, sizeof *mig);
    TRY(sim_gpu_text(device, "mig_profiles", text, sizeof text));
    for (char *line = strtok_r(text, "\n", &rest); line != NULL && mig->profile_count < MAX_PROFILES; line = strtok_r(NULL, "\n", &rest))
        if (parse_profile(line, &mig->profiles[mig->profile_count]))
            mig->profile_count++;
    return NVML_SUCCESS;
}

static bool parse_instance(char *line, struct gpu_instance *g) {
    char *rest, *word = strtok_r(line, " \t", &rest);
    memset(g, 0, sizeof *g);
    char *profile = strtok_r(NULL, " \t", &rest), *place = strtok_r(NULL, " \t", &rest);
    if (word == NULL || place == NULL || sscanf(word, "%u", &g->id) != 1 || sscanf(profile, "%u", &g->profile) != 1 ||
        sscanf(place, "%u:%u", &g->place.start, &g->place.size) != 2 || g->id >= MAX_INSTANCES)
        return false;
    while ((word = strtok_r(NULL, " \t", &rest)) != NULL && g->count < MAX_COMPUTE) {
        struct compute_instance *c = &g->compute[g->count];
        if (sscanf(word, "%u/%u/%u:%u/%79s", &c->id, &c->profile, &c->place.start, &c->place.size, c->uuid) == 5 && c->id < MAX_COMPUTE)
            g->count++;
    }
    return true;
}

nvmlReturn_t mig_load(nvmlDevice_t device, struct mig *mig) {
    if (!mig_enabled(device))
        return NVML_ERROR_NOT_SUPPORTED;
    TRY(mig_profiles(device, mig));
    char text[LARGE] = "", *rest;
    sim_gpu_text(device, "mig_instances", text, sizeof text);
    for (char *line = strtok_r(text, "\n", &rest); line != NULL && mig->count < MAX_INSTANCES; line = strtok_r(NULL, "\n", &rest))
        if (parse_instance(line, &mig->instances[mig->count]))
            mig->count++;
    return NVML_SUCCESS;
}

nvmlReturn_t mig_begin(nvmlDevice_t device, struct mig *mig, int *lock) {
    char name[SMALL], path[PATH_MAX];
    snprintf(name, sizeof name, "gpu%d/.mig_lock", sim_index(device));
    sim_path(name, path, sizeof path);
    if (!mig_enabled(device))
        return NVML_ERROR_NOT_SUPPORTED;
    *lock = open(path, O_CREAT | O_RDWR | O_CLOEXEC, 0666);
    if (*lock < 0)
        return NVML_ERROR_NO_PERMISSION;
    while (flock(*lock, LOCK_EX) != 0)
        if (errno != EINTR) {
            close(*lock);
            return NVML_ERROR_UNKNOWN;
        }
    nvmlReturn_t r = mig_load(device, mig);
    if (r != NVML_SUCCESS)
        close(*lock);
    return r;
}

static int by_id(const void *a, const void *b) {
    const struct gpu_instance *x = a, *y = b;
    return (x->id > y->id) - (x->id < y->id);
}

static bool store(const char *path, const char *temporary, const struct mig *mig) {
    struct mig sorted = *mig;
    qsort(sorted.instances, sorted.count, sizeof sorted.instances[0], by_id);
    FILE *f = fopen(temporary, "we");
    if (f == NULL)
        return false;
    for (unsigned int i = 0; i < sorted.count; i++) {
        const struct gpu_instance *g = &sorted.instances[i];
        fprintf(f, "%u %u %u:%u", g->id, g->profile, g->place.start, g->place.size);
        for (unsigned int j = 0; j < g->count; j++) {
            const struct compute_instance *c = &g->compute[j];
            fprintf(f, " %u/%u/%u:%u/%s", c->id, c->profile, c->place.start, c->place.size, c->uuid);
        }
        fputc('\n', f);
    }
    bool written = ferror(f) == 0;
    return fclose(f) == 0 && written && rename(temporary, path) == 0;
}

// tell appends the event that a driver emits when instances come or go.
static void tell(nvmlDevice_t device) {
    char path[PATH_MAX], line[SMALL];
    sim_path("events", path, sizeof path);
    int length = snprintf(line, sizeof line, "mig_config gpu%d\n", sim_index(device));
    int fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644);
    if (fd < 0)
        return;
    // An event that cannot be written is lost, as a driver's may be.
    if (write(fd, line, (size_t)length) < 0)
        fprintf(stderr, "nvmlsim: an event could not be written to %s\n", path);
    close(fd);
}

nvmlReturn_t mig_end(nvmlDevice_t device, const struct mig *mig, int lock, nvmlReturn_t result) {
    if (result == NVML_SUCCESS) {
        char name[SMALL], path[PATH_MAX], temporary[PATH_MAX + sizeof ".new"];
        snprintf(name, sizeof name, "gpu%d/mig_instances", sim_index(device));
        sim_path(name, path, sizeof path);
        snprintf(temporary, sizeof temporary, "%s.new", path);
        if (!store(path, temporary, mig))
            result = NVML_ERROR_NO_PERMISSION;
        else
            tell(device);
    }
    close(lock);
    return result;
}

const struct profile *mig_profile(const struct mig *mig, unsigned int id) {
    for (unsigned int i = 0; i < mig->profile_count; i++)
        if (mig->profiles[i].id == id)
            return &mig->profiles[i];
    return NULL;
}

struct gpu_instance *mig_gpu_instance(struct mig *mig, unsigned int id) {
    for (unsigned int i = 0; i < mig->count; i++)
        if (mig->instances[i].id == id)
            return &mig->instances[i];
    return NULL;
}

struct compute_instance *mig_compute_instance(struct gpu_instance *instance, unsigned int id) {
    for (unsigned int i = 0; i < instance->count; i++)
        if (instance->compute[i].id == id)
            return &instance->compute[i];
    return NULL;
}

bool mig_busy(nvmlDevice_t device, unsigned int instance, int compute) {
    char text[LARGE], *rest;
    if (sim_gpu_text(device, "processes", text, sizeof text) != NVML_SUCCESS)
        return false;
    for (char *line = strtok_r(text, "\n", &rest); line != NULL; line = strtok_r(NULL, "\n", &rest)) {
        unsigned int pid, gi, ci = 0;
        unsigned long long bytes;
        int found = sscanf(line, "%u %llu gi=%u ci=%u", &pid, &bytes, &gi, &ci);
        if (found >= 3 && gi == instance && (compute == NO_INSTANCE || found == 3 || (int)ci == compute))
            return true;
    }
    return false;
}
