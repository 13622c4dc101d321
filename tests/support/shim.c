/* Lets system calls of a program fail, and its clock go wrong, as a file mapped by somebody else says.

   Preloaded into the program (LD_PRELOAD). The file named by SHIM_CONTROL holds one rule for each
   kind of call; a rule without an error lets everything pass. A rule counts only calls on files whose
   path begins with its `under`. See shim.py, which has the same layout. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

enum call { OPEN, READ, WRITE, SYNC, ALLOCATE, MAP, RENAME, UNLINK, CALLS };

struct rule {
    int32_t error; /* an errno; 0 lets pass */
    int32_t skip;  /* so many calls pass first */
    int32_t times; /* so many calls fail then; negative: all */
    int32_t met;   /* so many have failed */
    char under[496];
};

struct control {
    int64_t clock; /* nanoseconds that the wall clock is ahead */
    int64_t unused[7];
    struct rule rules[CALLS];
};

static struct control nothing;
static struct control *control = &nothing;

__attribute__((constructor)) static void begin(void)
{
    const char *path = getenv("SHIM_CONTROL");
    int fd = path ? (int)syscall(SYS_openat, AT_FDCWD, path, O_RDWR | O_CLOEXEC) : -1;
    if (fd < 0)
        return;
    void *found = mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (found != MAP_FAILED)
        control = found;
}

/* The errno with which this call is to fail; 0 where it is to pass. */
static int denied(enum call call, const char *path)
{
    struct rule *rule = &control->rules[call];
    int error = __atomic_load_n(&rule->error, __ATOMIC_ACQUIRE);
    if (!error || strncmp(path, rule->under, strlen(rule->under)))
        return 0;
    if (__atomic_load_n(&rule->skip, __ATOMIC_RELAXED) > 0
        && __atomic_fetch_sub(&rule->skip, 1, __ATOMIC_RELAXED) > 0)
        return 0;
    if (__atomic_load_n(&rule->times, __ATOMIC_RELAXED) >= 0
        && __atomic_fetch_sub(&rule->times, 1, __ATOMIC_RELAXED) <= 0) {
        __atomic_store_n(&rule->times, 0, __ATOMIC_RELAXED);
        return 0;
    }
    __atomic_fetch_add(&rule->met, 1, __ATOMIC_RELAXED);
    return error;
}

static int denied_by_fd(enum call call, int fd)
{
    if (!__atomic_load_n(&control->rules[call].error, __ATOMIC_ACQUIRE))
        return 0;
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    long length = syscall(SYS_readlinkat, AT_FDCWD, link, path, sizeof path - 1);
    if (length < 0)
        return 0;
    path[length] = 0;
    return denied(call, path);
}

#define REAL(result, name, ...)                                                                    \
    static result (*real)(__VA_ARGS__);                                                            \
    if (!real)                                                                                     \
        real = (result(*)(__VA_ARGS__))dlsym(RTLD_NEXT, name)

#define FAIL_IF(denial, answer)                                                                    \
    do {                                                                                           \
        int error = denial;                                                                        \
        if (error) {                                                                               \
            errno = error;                                                                         \
            return answer;                                                                         \
        }                                                                                          \
    } while (0)

#define OPENER(name)                                                                               \
    int name(const char *path, int flags, ...)                                                     \
    {                                                                                              \
        REAL(int, #name, const char *, int, ...);                                                  \
        va_list rest;                                                                              \
        va_start(rest, flags);                                                                     \
        mode_t mode = flags & (O_CREAT | __O_TMPFILE) ? va_arg(rest, mode_t) : 0;                  \
        va_end(rest);                                                                              \
        FAIL_IF(denied(OPEN, path), -1);                                                           \
        return real(path, flags, mode);                                                            \
    }
OPENER(open)
OPENER(open64)

#define READER(name)                                                                               \
    ssize_t name(int fd, void *data, size_t size, off64_t offset)                                  \
    {                                                                                              \
        REAL(ssize_t, #name, int, void *, size_t, off64_t);                                        \
        FAIL_IF(denied_by_fd(READ, fd), -1);                                                       \
        return real(fd, data, size, offset);                                                       \
    }
READER(pread)
READER(pread64)

#define WRITER(name)                                                                               \
    ssize_t name(int fd, const void *data, size_t size, off64_t offset)                            \
    {                                                                                              \
        REAL(ssize_t, #name, int, const void *, size_t, off64_t);                                  \
        FAIL_IF(denied_by_fd(WRITE, fd), -1);                                                      \
        return real(fd, data, size, offset);                                                       \
    }
WRITER(pwrite)
WRITER(pwrite64)

ssize_t read(int fd, void *data, size_t size)
{
    REAL(ssize_t, "read", int, void *, size_t);
    FAIL_IF(denied_by_fd(READ, fd), -1);
    return real(fd, data, size);
}

ssize_t write(int fd, const void *data, size_t size)
{
    REAL(ssize_t, "write", int, const void *, size_t);
    FAIL_IF(denied_by_fd(WRITE, fd), -1);
    return real(fd, data, size);
}

#define SYNCER(name)                                                                               \
    int name(int fd)                                                                               \
    {                                                                                              \
        REAL(int, #name, int);                                                                     \
        FAIL_IF(denied_by_fd(SYNC, fd), -1);                                                       \
        return real(fd);                                                                           \
    }
SYNCER(fsync)
SYNCER(fdatasync)

#define ALLOCATOR(name)                                                                            \
    int name(int fd, off64_t offset, off64_t size)                                                 \
    {                                                                                              \
        REAL(int, #name, int, off64_t, off64_t);                                                   \
        int error = denied_by_fd(ALLOCATE, fd);                                                    \
        return error ? error : real(fd, offset, size);                                             \
    }
ALLOCATOR(posix_fallocate)
ALLOCATOR(posix_fallocate64)

#define MAPPER(name)                                                                               \
    void *name(void *at, size_t size, int protection, int flags, int fd, off64_t offset)           \
    {                                                                                              \
        REAL(void *, #name, void *, size_t, int, int, int, off64_t);                               \
        FAIL_IF(fd < 0 ? 0 : denied_by_fd(MAP, fd), MAP_FAILED);                                   \
        return real(at, size, protection, flags, fd, offset);                                      \
    }
MAPPER(mmap)
MAPPER(mmap64)

int rename(const char *from, const char *to)
{
    REAL(int, "rename", const char *, const char *);
    FAIL_IF(denied(RENAME, to), -1);
    return real(from, to);
}

int unlink(const char *path)
{
    REAL(int, "unlink", const char *);
    FAIL_IF(denied(UNLINK, path), -1);
    return real(path);
}

static void step(struct timespec *now)
{
    int64_t total = now->tv_sec * 1000000000LL + now->tv_nsec
        + __atomic_load_n(&control->clock, __ATOMIC_RELAXED);
    now->tv_sec = total / 1000000000LL;
    now->tv_nsec = total % 1000000000LL;
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
    REAL(int, "clock_gettime", clockid_t, struct timespec *);
    int answer = real(clock, now);
    if (!answer && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        step(now);
    return answer;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone)
{
    struct timespec found;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &found);
    now->tv_sec = found.tv_sec;
    now->tv_usec = found.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *now)
{
    struct timespec found;
    clock_gettime(CLOCK_REALTIME, &found);
    if (now)
        *now = found.tv_sec;
    return found.tv_sec;
}
