/* Preloaded into imgtools and all that it starts: dies at a chosen one of the calls that change
 * something in one folder, with every other process of the run.
 *
 * CRASH_PAGE names a file of a page that all processes share (struct page), CRASH_FOLDER the
 * folder.  Calls that change nothing that is seen afterwards (fsync) do not count.
 */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#define MOST 65536
#define BLOCK 4096

struct page {
    long at;                   /* the number of the call to die in, from 1; 0 for none */
    long torn;                 /* 1: a large write is done to the half */
    long count;                /* how many calls there were */
    long dead;                 /* the process that died: nobody else may change anything then */
    long root;                 /* imgtools itself, which says so (forker.py) */
    unsigned char large[MOST]; /* by its number: a write that can be torn */
};

static struct page *page;
static char folder[4096];
static size_t length;

__attribute__((constructor)) static void begin(void)
{
    const char *name = getenv("CRASH_PAGE");
    const char *where = getenv("CRASH_FOLDER");
    if (!name || !where)
        return;
    snprintf(folder, sizeof folder, "%s", where);
    length = strlen(folder);
    int fd = open(name, O_RDWR | O_CLOEXEC);
    void *found = fd < 0 ? MAP_FAILED
                         : mmap(NULL, sizeof *page, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (found == MAP_FAILED)
        abort();
    close(fd);
    page = found;
}

static void die(void)
{
    page->dead = getpid();
    kill((pid_t)page->root, SIGKILL);
    kill(getpid(), SIGKILL);
    for (;;)
        pause();
}

/* Is this the call?  It is not done then.  ``size``: bytes to be written. */
static int due(const char *path, size_t size)
{
    if (!page || strncmp(path, folder, length) != 0)
        return 0;
    if (page->dead)
        die();
    long number = __sync_add_and_fetch(&page->count, 1);
    if (number < MOST && size >= 2 * BLOCK)
        page->large[number] = 1;
    return number == page->at;
}

static void change_at(int at, const char *path)
{
    char link[64], whole[8192];
    if (path[0] != '/') {
        snprintf(link, sizeof link, at == AT_FDCWD ? "/proc/self/cwd" : "/proc/self/fd/%d", at);
        ssize_t got = readlink(link, whole, 4096);
        if (got < 0)
            return;
        snprintf(whole + got, sizeof whole - (size_t)got, "/%s", path);
        path = whole;
    }
    if (due(path, 0))
        die();
}

static int due_in(int fd, size_t size)
{
    char link[64], path[4096];
    if (!page)
        return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t got = readlink(link, path, sizeof path - 1);
    if (got < 0)
        return 0;
    path[got] = 0;
    return due(path, size);
}

#define REAL(name) static __typeof__(name) *real; if (!real) real = dlsym(RTLD_NEXT, #name)

static size_t size_of(const struct iovec *parts, int count)
{
    size_t size = 0;
    for (int i = 0; i < count; i++)
        size += parts[i].iov_len;
    return size;
}

/* The kernel writes page by page, and a SIGKILL may come between two of them. */
static void tear(int fd, const struct iovec *parts, int count, off_t offset)
{
    size_t left = page->torn ? size_of(parts, count) / 2 / BLOCK * BLOCK : 0;
    REAL(pwrite64);
    for (int i = 0; i < count && left; i++) {
        size_t some = parts[i].iov_len < left ? parts[i].iov_len : left;
        if (real(fd, parts[i].iov_base, some, offset) != (ssize_t)some)
            break;
        offset += (off_t)some;
        left -= some;
    }
    die();
}

#define PWRITE(name) \
    ssize_t name(int fd, const void *data, size_t size, off_t offset) \
    { \
        struct iovec part = {(void *)data, size}; \
        REAL(name); \
        if (due_in(fd, size)) \
            tear(fd, &part, 1, offset); \
        return real(fd, data, size, offset); \
    }
PWRITE(pwrite)
PWRITE(pwrite64)

#define PWRITEV(name) \
    ssize_t name(int fd, const struct iovec *parts, int count, off_t offset) \
    { \
        REAL(name); \
        if (due_in(fd, size_of(parts, count))) \
            tear(fd, parts, count, offset); \
        return real(fd, parts, count, offset); \
    }
PWRITEV(pwritev)
PWRITEV(pwritev64)

ssize_t write(int fd, const void *data, size_t size)
{
    struct iovec part = {(void *)data, size};
    REAL(write);
    if (due_in(fd, size))
        tear(fd, &part, 1, lseek(fd, 0, SEEK_CUR));
    return real(fd, data, size);
}

#define ON_FD(name, parameters, ...) \
    int name parameters \
    { \
        REAL(name); \
        if (due_in(fd, 0)) \
            die(); \
        return real(__VA_ARGS__); \
    }
ON_FD(ftruncate, (int fd, off_t size), fd, size)
ON_FD(ftruncate64, (int fd, off_t size), fd, size)
ON_FD(fallocate, (int fd, int mode, off_t offset, off_t size), fd, mode, offset, size)
ON_FD(fallocate64, (int fd, int mode, off_t offset, off_t size), fd, mode, offset, size)
ON_FD(posix_fallocate64, (int fd, off_t offset, off_t size), fd, offset, size)
ON_FD(posix_fallocate, (int fd, off_t offset, off_t size), fd, offset, size)
ON_FD(futimens, (int fd, const struct timespec times[2]), fd, times)

ssize_t copy_file_range(int in, off64_t *from, int fd, off64_t *to, size_t size, unsigned flags)
{
    REAL(copy_file_range);
    if (due_in(fd, 0))
        die();
    return real(in, from, fd, to, size, flags);
}

#define ON_NAME(name, parameters, at, path, ...) \
    int name parameters \
    { \
        REAL(name); \
        change_at(at, path); \
        return real(__VA_ARGS__); \
    }
ON_NAME(rename, (const char *old, const char *new), AT_FDCWD, new, old, new)
ON_NAME(renameat, (int from, const char *old, int to, const char *new), to, new, from, old, to, new)
ON_NAME(link, (const char *old, const char *new), AT_FDCWD, new, old, new)
ON_NAME(linkat, (int from, const char *old, int to, const char *new, int flags), to, new, from, old,
        to, new, flags)
ON_NAME(unlink, (const char *path), AT_FDCWD, path, path)
ON_NAME(unlinkat, (int at, const char *path, int flags), at, path, at, path, flags)
ON_NAME(mkdir, (const char *path, mode_t mode), AT_FDCWD, path, path, mode)
ON_NAME(mkdirat, (int at, const char *path, mode_t mode), at, path, at, path, mode)
ON_NAME(rmdir, (const char *path), AT_FDCWD, path, path)

/* One that is made; O_TMPFILE has no name yet, and counts when it is linked. */
#define OPEN(name, before, at, call) \
    int name(before const char *path, int flags, ...) \
    { \
        mode_t mode = 0; \
        REAL(name); \
        if (flags & O_CREAT) { \
            va_list rest; \
            va_start(rest, flags); \
            mode = va_arg(rest, mode_t); \
            va_end(rest); \
            change_at(at, path); \
        } else if (flags & O_TRUNC) \
            change_at(at, path); \
        return call; \
    }
#define NOTHING
#define COMMA ,
OPEN(open, NOTHING, AT_FDCWD, real(path, flags, mode))
OPEN(open64, NOTHING, AT_FDCWD, real(path, flags, mode))
OPEN(openat, int dir COMMA, dir, real(dir, path, flags, mode))
OPEN(openat64, int dir COMMA, dir, real(dir, path, flags, mode))
