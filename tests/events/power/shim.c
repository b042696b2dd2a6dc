/* Stands between a process and its disk (LD_PRELOAD), for files below $SHIM_DIR.
 *
 * With $SHIM_LOG every write, truncation, sync and removal is recorded in the order it happened:
 * from that record the test builds what a disk may hold after a power cut. With shim_kill_after()
 * the process dies by SIGKILL at a chosen call, in the middle of a write if so asked.
 * Shared memory (-shm) is mapped, not written, and not needed: SQLite builds it anew.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static const char *folder;
static int record_fd = -1;
static long calls_left = 0;
static int half_a_write = 0;

static void start(void) {
    if (folder) return;
    folder = getenv("SHIM_DIR");
    if (!folder) folder = "\1 none";
    const char *log = getenv("SHIM_LOG");
    if (log) record_fd = open(log, O_CREAT | O_WRONLY | O_APPEND | O_CLOEXEC, 0644);
}

/* The path of a descriptor, if it is below our folder. */
static int ours(int fd, char *path) {
    start();
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, 511);
    if (length <= 0) return 0;
    path[length] = 0;
    return !strncmp(path, folder, strlen(folder));
}

static void record(char op, const char *path, uint64_t offset, uint64_t length, const void *data) {
    if (record_fd < 0) return;
    struct { char op; uint16_t path_length; uint64_t offset, length; } __attribute__((packed))
        head = {op, (uint16_t)strlen(path), offset, length};
    size_t total = sizeof head + head.path_length + (data ? length : 0);
    char *buffer = malloc(total);
    memcpy(buffer, &head, sizeof head);
    memcpy(buffer + sizeof head, path, head.path_length);
    if (data) memcpy(buffer + sizeof head + head.path_length, data, length);
    if (REAL(write)(record_fd, buffer, total) != (ssize_t)total) abort();
    free(buffer);
}

/* Die at the n-th call from now on; with `half`, after half of it is done when it is a write. */
void shim_kill_after(long calls, int half) {
    calls_left = calls;
    half_a_write = half;
}

static int last_call(void) { return calls_left > 0 && --calls_left == 0; }

static void die(void) { kill(getpid(), SIGKILL); }

ssize_t pwrite64(int fd, const void *data, size_t count, off64_t offset) {
    char path[512];
    int mine = ours(fd, path);
    if (mine && last_call()) {
        if (half_a_write) REAL(pwrite64)(fd, data, count / 2, offset);
        die();
    }
    ssize_t done = REAL(pwrite64)(fd, data, count, offset);
    if (mine && done > 0) record('W', path, offset, done, data);
    return done;
}

ssize_t pwrite(int fd, const void *data, size_t count, off_t offset) { return pwrite64(fd, data, count, offset); }

ssize_t write(int fd, const void *data, size_t count) {
    char path[512];
    int mine = ours(fd, path);
    off_t offset = mine ? lseek(fd, 0, SEEK_CUR) : 0;
    if (mine && last_call()) {
        if (half_a_write && REAL(write)(fd, data, count / 2) < 0) abort();
        die();
    }
    ssize_t done = REAL(write)(fd, data, count);
    if (mine && done > 0) {
        /* an acknowledgement is what somebody outside has seen: it needs no sync */
        const char *name = strrchr(path, '/');
        record(name && !strcmp(name, "/ACK") ? 'A' : 'W', path, offset, done, data);
    }
    return done;
}

static int synced(int fd, int (*real)(int)) {
    char path[512];
    int mine = ours(fd, path);
    if (mine && last_call()) die();
    int result = real(fd);
    if (mine && !result) record('S', path, 0, 0, NULL);
    return result;
}

int fsync(int fd) { return synced(fd, REAL(fsync)); }

int fdatasync(int fd) { return synced(fd, REAL(fdatasync)); }

int ftruncate64(int fd, off64_t length) {
    char path[512];
    int mine = ours(fd, path);
    if (mine && last_call()) die();
    int result = REAL(ftruncate64)(fd, length);
    if (mine && !result) record('T', path, length, 0, NULL);
    return result;
}

int ftruncate(int fd, off_t length) { return ftruncate64(fd, length); }

int unlink(const char *path) {
    start();
    int mine = !strncmp(path, folder, strlen(folder));
    if (mine && last_call()) die();
    int result = REAL(unlink)(path);
    if (mine && !result) record('U', path, 0, 0, NULL);
    return result;
}
