// What the files of the control folder hold, kept from one call to the next, as
// a driver keeps its state: an agent that measures eight GPUs makes a hundred calls
// a second, each of which looks at six files. inotify queues a change before the
// system call that made it returns, and whoever looks takes what is queued first: the
// next call sees what was written before it. What cannot be watched is read each time.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include "sim.h"

// A folder that is watched is a GPU's, by its number, or the control folder itself.
enum { ROOT = MAX_GPUS, FOLDERS, BUCKETS = 512, UNKNOWN = -1 };

static const uint32_t changes_of_a_folder =
    IN_MODIFY | IN_ATTRIB | IN_CREATE | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO | IN_DELETE_SELF | IN_MOVE_SELF;

struct text {
    struct text *next;
    size_t length;
    bool exists;
    char *content; // not terminated
    char path[];
};

// All of it is about one control folder, and belongs to whoever holds the lock, also
// while a file is read: what is kept is never older than the changes already taken.
static struct {
    pthread_mutex_t lock;
    const char *control;
    int inotify;
    int watches[FOLDERS];
    int gpus;
    struct text *buckets[BUCKETS];
} kept = {.lock = PTHREAD_MUTEX_INITIALIZER, .inotify = UNKNOWN};

static struct text **bucket(const char *path) {
    unsigned int hash = 5381;
    for (const char *c = path; *c != '\0'; c++)
        hash = hash * 33 + (unsigned char)*c;
    return &kept.buckets[hash % BUCKETS];
}

static struct text **find(const char *path) {
    struct text **at = bucket(path);
    while (*at != NULL && strcmp((*at)->path, path) != 0)
        at = &(*at)->next;
    return at;
}

static void drop(struct text **at) {
    struct text *gone = *at;
    if (gone == NULL)
        return;
    *at = gone->next;
    free(gone->content);
    free(gone);
}

// forget begins anew, with what the path of the control folder leads to now.
static void forget(void) {
    if (kept.inotify >= 0)
        close(kept.inotify);
    for (unsigned int i = 0; i < BUCKETS; i++)
        while (kept.buckets[i] != NULL)
            drop(&kept.buckets[i]);
    for (unsigned int i = 0; i < FOLDERS; i++)
        kept.watches[i] = UNKNOWN;
    kept.gpus = UNKNOWN;
    kept.control = sim_control();
    kept.inotify = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
}

// take drops what one change made untrue; false if that may be everything: changes
// were lost, or a folder came, went or is another.
static bool take(const struct inotify_event *change) {
    if (change->len == 0 || (change->mask & (IN_Q_OVERFLOW | IN_IGNORED | IN_UNMOUNT)))
        return false;
    if (change->wd == kept.watches[ROOT]) {
        drop(find(change->name));
        return strncmp(change->name, "gpu", 3) != 0;
    }
    for (int gpu = 0; gpu < MAX_GPUS; gpu++) {
        if (kept.watches[gpu] != change->wd)
            continue;
        char path[SMALL];
        snprintf(path, sizeof path, "gpu%d/%s", gpu, change->name);
        drop(find(path));
        return true;
    }
    return false;
}

static void take_changes(void) {
    _Alignas(struct inotify_event) char changes[4096];
    if (kept.control != sim_control() || kept.inotify < 0) {
        forget();
        return;
    }
    for (ssize_t n; (n = read(kept.inotify, changes, sizeof changes)) > 0;) {
        for (char *at = changes; at < changes + n;) {
            const struct inotify_event *change = (void *)at;
            if (!take(change)) {
                forget();
                return;
            }
            at += sizeof *change + change->len;
        }
    }
}

// watched makes sure that changes in the folder of a file will be known.
static bool watched(const char *path) {
    int folder = ROOT, end = 0;
    char name[SMALL] = "", absolute[PATH_MAX];
    if (sscanf(path, "gpu%d/%n", &folder, &end) == 1 && end > 0 && folder >= 0 && folder < MAX_GPUS)
        snprintf(name, sizeof name, "gpu%d", folder);
    else
        folder = ROOT;
    if (kept.watches[folder] == UNKNOWN && kept.inotify >= 0) {
        sim_path(name, absolute, sizeof absolute);
        kept.watches[folder] = inotify_add_watch(kept.inotify, absolute, changes_of_a_folder | IN_ONLYDIR);
    }
    return kept.watches[folder] != UNKNOWN;
}

// read_file reads as much as fits; -1 if the file cannot be opened. A file with another
// name, or a link to one, may be written where no watch sees it: it is not simple.
static ssize_t read_file(const char *name, char *buffer, size_t size, bool *simple) {
    char path[PATH_MAX];
    struct stat st;
    sim_path(name, path, sizeof path);
    *simple = lstat(path, &st) == 0 ? S_ISREG(st.st_mode) && st.st_nlink == 1 : errno == ENOENT;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    size_t length = 0;
    while (length < size) {
        ssize_t n = read(fd, buffer + length, size - length);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            break;
        length += (size_t)n;
    }
    close(fd);
    return (ssize_t)length;
}

// keep remembers what a file holds, or that there is none.
static void keep(const char *path, const char *content, ssize_t length) {
    struct text *text = calloc(1, sizeof *text + strlen(path) + 1);
    if (text == NULL)
        return;
    strcpy(text->path, path);
    text->exists = length >= 0;
    text->length = length > 0 ? (size_t)length : 0;
    text->content = malloc(text->length + 1);
    if (text->content == NULL) {
        free(text);
        return;
    }
    memcpy(text->content, content, text->length);
    struct text **at = bucket(path);
    text->next = *at;
    *at = text;
}

// look_up copies at most size bytes of a file; -1 if there is none.
static ssize_t look_up(const char *path, char *buffer, size_t size) {
    char content[LARGE];
    const struct text *text = *find(path);
    if (text != NULL) {
        size_t length = text->length < size ? text->length : size;
        memcpy(buffer, text->content, length);
        return text->exists ? (ssize_t)length : -1;
    }
    bool lasting = watched(path); // before the file is read, so that no change is missed
    bool simple;
    ssize_t length = read_file(path, content, sizeof content, &simple);
    if (lasting && simple && (length >= 0 || errno == ENOENT))
        keep(path, content, length);
    if (length > (ssize_t)size)
        length = (ssize_t)size;
    if (length > 0)
        memcpy(buffer, content, (size_t)length);
    return length;
}

bool sim_read(const char *path, char *buffer, size_t size) {
    pthread_mutex_lock(&kept.lock);
    take_changes();
    ssize_t length = look_up(path, buffer, size - 1);
    pthread_mutex_unlock(&kept.lock);
    if (length < 0)
        return false;
    while (length > 0 && strchr(" \t\r\n", buffer[length - 1]) != NULL)
        length--;
    buffer[length] = '\0';
    return true;
}

unsigned int sim_gpu_count(void) {
    pthread_mutex_lock(&kept.lock);
    take_changes();
    int count = kept.gpus;
    if (count == UNKNOWN) {
        bool lasting = watched("gpu0");
        char name[SMALL], path[PATH_MAX];
        for (count = 0; count < MAX_GPUS; count++) {
            snprintf(name, sizeof name, "gpu%d", count);
            sim_path(name, path, sizeof path);
            if (access(path, F_OK) != 0)
                break;
        }
        if (lasting)
            kept.gpus = count;
    }
    pthread_mutex_unlock(&kept.lock);
    return (unsigned int)count;
}

void sim_read_anew(void) {
    pthread_mutex_lock(&kept.lock);
    forget();
    pthread_mutex_unlock(&kept.lock);
}
