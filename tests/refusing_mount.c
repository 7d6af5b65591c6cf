/* Makes a folder behave like a mount of an object store through FUSE, for a process that preloads this library.

   Below $REFUSING_MOUNT, files cannot be mapped, appended to, extended with holes, written out of order, linked or
   locked; folders cannot be renamed, permissions cannot be changed, and every process sees other inodes. Files can be
   written from their beginning to their end, renamed and deleted. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static int is_below(const char *path) {
    const char *mount = getenv("REFUSING_MOUNT");
    size_t length = mount ? strlen(mount) : 0;
    return length && path && !strncmp(path, mount, length) && (path[length] == '/' || !path[length]);
}

static int is_descriptor_below(int fd) {
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = fd < 0 ? -1 : readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return is_below(path);
}

static int is_at_below(int fd, const char *path) {
    return is_below(path) || (path && path[0] != '/' && fd != AT_FDCWD && is_descriptor_below(fd));
}

static int refuse(int error) {
    errno = error;
    return -1;
}

#define MAP(name, offset_type)                                                                     \
    void *name(void *address, size_t length, int protection, int flags, int fd, offset_type offset) { \
        if (is_descriptor_below(fd)) {                                                             \
            errno = ENODEV;                                                                        \
            return MAP_FAILED;                                                                     \
        }                                                                                          \
        return NEXT(name)(address, length, protection, flags, fd, offset);                         \
    }
MAP(mmap, off_t)
MAP(mmap64, off64_t)

#define OPEN(name)                                                              \
    int name(const char *path, int flags, ...) {                                \
        va_list arguments;                                                      \
        va_start(arguments, flags);                                             \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(arguments, mode_t) : 0; \
        va_end(arguments);                                                      \
        if (flags & O_APPEND && is_below(path)) return refuse(EOPNOTSUPP);      \
        return NEXT(name)(path, flags, mode);                                   \
    }
OPEN(open)
OPEN(open64)

static int is_out_of_order(int fd, off_t offset) {
    struct stat state;
    return is_descriptor_below(fd) && !NEXT(fstat)(fd, &state) && S_ISREG(state.st_mode) && offset != state.st_size;
}

ssize_t write(int fd, const void *content, size_t size) {
    return is_out_of_order(fd, lseek(fd, 0, SEEK_CUR)) ? refuse(EOPNOTSUPP) : NEXT(write)(fd, content, size);
}

#define PWRITE(name, offset_type)                                                          \
    ssize_t name(int fd, const void *content, size_t size, offset_type offset) {           \
        return is_out_of_order(fd, offset) ? refuse(EOPNOTSUPP) : NEXT(name)(fd, content, size, offset); \
    }
PWRITE(pwrite, off_t)
PWRITE(pwrite64, off64_t)

#define TRUNCATE(name, offset_type)                                                     \
    int name(int fd, offset_type size) {                                                \
        return size && is_descriptor_below(fd) ? refuse(EOPNOTSUPP) : NEXT(name)(fd, size); \
    }
TRUNCATE(ftruncate, off_t)
TRUNCATE(ftruncate64, off64_t)

static int is_folder(const char *path) {
    struct stat state;
    return !NEXT(stat)(path, &state) && S_ISDIR(state.st_mode);
}

int rename(const char *from, const char *to) {
    if (is_below(from) != is_below(to)) return refuse(EXDEV);
    return is_below(from) && is_folder(from) ? refuse(EPERM) : NEXT(rename)(from, to);
}

int chmod(const char *path, mode_t mode) { return is_below(path) ? refuse(EPERM) : NEXT(chmod)(path, mode); }
int fchmod(int fd, mode_t mode) { return is_descriptor_below(fd) ? refuse(EPERM) : NEXT(fchmod)(fd, mode); }
int fchmodat(int fd, const char *path, mode_t mode, int flags) {
    return is_at_below(fd, path) ? refuse(EPERM) : NEXT(fchmodat)(fd, path, mode, flags);
}

int link(const char *from, const char *to) {
    return is_below(from) || is_below(to) ? refuse(EPERM) : NEXT(link)(from, to);
}
int linkat(int from_fd, const char *from, int to_fd, const char *to, int flags) {
    if (is_at_below(from_fd, from) || is_at_below(to_fd, to)) return refuse(EPERM);
    return NEXT(linkat)(from_fd, from, to_fd, to, flags);
}
int flock(int fd, int operation) { return is_descriptor_below(fd) ? refuse(ENOSYS) : NEXT(flock)(fd, operation); }

#define STAT(name, type)                                     \
    int name(const char *path, struct type *state) {         \
        int result = NEXT(name)(path, state);                \
        if (!result && is_below(path)) state->st_ino += getpid(); \
        return result;                                       \
    }
STAT(stat, stat)
STAT(stat64, stat64)
STAT(lstat, stat)
STAT(lstat64, stat64)

#define FSTAT(name, type)                                       \
    int name(int fd, struct type *state) {                      \
        int result = NEXT(name)(fd, state);                     \
        if (!result && is_descriptor_below(fd)) state->st_ino += getpid(); \
        return result;                                          \
    }
FSTAT(fstat, stat)
FSTAT(fstat64, stat64)

#define FSTATAT(name, type)                                                   \
    int name(int fd, const char *path, struct type *state, int flags) {       \
        int result = NEXT(name)(fd, path, state, flags);                      \
        if (!result && is_at_below(fd, path)) state->st_ino += getpid();      \
        return result;                                                        \
    }
FSTATAT(fstatat, stat)
FSTATAT(fstatat64, stat64)
