/* SPDX-License-Identifier: GPL-3.0-or-later
 * Preloaded into the processes of a small host (small.py): counts the state-changing calls of the processes that have a role, over all of
 * them together, and at the N-th does what it was armed for. Compiled by gcc when the programme runs; no part of the collection.
 *
 * Calls are counted where they are made through libc: Python, SQLite and ctypes do so. Stores into the mapped undo log are none; what they
 * wrote is seen at the next call.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

enum { COUNT, KILL_ALL, KILL_SELF, ERRNO, POWER, HALF_KILL, HALF_POWER, COMPANY };
enum { FILES = 1, TALK = 2 };
enum { SYNCED_LOG = 1, SYNCED_COPY, MADE_COPY, WROTE_HEAD, SYNCED_HEAD, ANSWERED };
#define EVENTS 65536
#define NAMES 8192
#define PAGE 4096 /* a write within one is whole or not at all: no signal ends it half way, and a sector is not torn */

struct event { int32_t kind; int32_t fd; int64_t log, inode; };
struct shared {
  int64_t count, at, length, fired, on;
  int32_t mode, error, roles, classes, recording, asked, answered, pad;
  char last[64];
  int64_t events;
  struct event event[EVENTS];
  char names[NAMES][16];
};
static struct shared *S;
static int role;
static int log_fd = -1;
static int64_t log_end;
static ino_t log_inode, head_inode;

struct shared *fault_memory(void) {
  S = mmap(0, sizeof *S, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  return S;
}
void fault_role(int r) { role = r; }
long fault_size(void) { return sizeof *S; }

static void die(int power) {
  if (power) {
    uint32_t flag = 2;
    int fd = syscall(SYS_openat, AT_FDCWD, "/", O_RDONLY | O_CLOEXEC, 0);
    syscall(SYS_ioctl, fd, 0x8004587dUL, &flag);
  }
  if (S->mode != KILL_SELF) syscall(SYS_kill, -1, SIGKILL);
  syscall(SYS_kill, getpid(), SIGKILL);
  for (;;) pause();
}

/* 0: go on; 1: fail with errno; 2: do half of it, then die */
static int hit(const char *name, int class, int writes) {
  if (!role || !S || !S->on || !(S->roles & role) || !(S->classes & class)) return 0;
  int64_t n = __atomic_add_fetch(&S->count, 1, __ATOMIC_SEQ_CST);
  if (n < NAMES) strncpy(S->names[n], name, 15);
  if (n < S->at || n >= S->at + S->length || S->mode == COUNT || !S->at) return 0;
  if (!S->fired) strncpy(S->last, name, sizeof S->last - 1);
  __atomic_add_fetch(&S->fired, 1, __ATOMIC_SEQ_CST);
  switch (S->mode) {
  case ERRNO: errno = S->error; return 1;
  case COMPANY: /* somebody else acts meanwhile (company.py) */
    __atomic_store_n(&S->asked, 1, __ATOMIC_SEQ_CST);
    for (int i = 0; i < 20000 && S->on && !__atomic_load_n(&S->answered, __ATOMIC_SEQ_CST); i++) usleep(500);
    return 0;
  case HALF_KILL: case HALF_POWER: if (writes) return 2; die(S->mode == HALF_POWER);
  default: die(S->mode == POWER);
  }
  return 0;
}

/* How far the undo log is filled: frames are length (u32, highest bit while being copied), number (u64), kind, payload, chain (16). */
static int64_t filled(void) {
  uint32_t length;
  if (log_fd < 0) return 0;
  while (pread(log_fd, &length, 4, log_end) == 4 && !(length & 0x80000000u)) {
    unsigned char prefix[13];
    if (pread(log_fd, prefix, 13, log_end) != 13) break;
    int any = 0;
    for (int i = 0; i < 13; i++) any |= prefix[i];
    if (!any) break;
    log_end += 13 + length + 16;
  }
  return log_end;
}
static void note_at(int kind, int fd, ino_t inode, int64_t log) {
  if (!S || !S->recording || role != 1) return;
  int64_t n = __atomic_fetch_add(&S->events, 1, __ATOMIC_SEQ_CST);
  if (n < EVENTS) S->event[n] = (struct event){kind, fd, log, (int64_t)inode};
}
static int64_t filled_now(void) { return S && S->recording && role == 1 ? filled() : 0; }
static void note(int kind, int fd, ino_t inode) { note_at(kind, fd, inode, filled_now()); }
static ino_t inode_of(int fd) { struct stat s; return fstat(fd, &s) ? 0 : s.st_ino; }
static const char *base(const char *p) { const char *s = strrchr(p, '/'); return s ? s + 1 : p; }
static void opened(int fd, const char *path, int flags) {
  if (fd < 0 || !S || !S->recording || role != 1 || !(flags & O_CREAT)) return;
  const char *b = base(path);
  if (!strcmp(b, "log") && strstr(path, "/tx/")) {
    char own[64];
    log_inode = inode_of(fd);
    strcpy(own, "/proc/self/fd/");
    int at = strlen(own), d = fd, k = 0; char digits[12];
    do digits[k++] = '0' + d % 10; while (d /= 10);
    while (k) own[at++] = digits[--k];
    own[at] = 0;
    log_fd = syscall(SYS_openat, AT_FDCWD, own, O_RDONLY | O_CLOEXEC, 0);
    log_end = 0;
  } else if (!strcmp(b, "head") && strstr(path, "/tx/")) head_inode = inode_of(fd);
  else if (b[0] == 'c' && b[1] >= '0' && b[1] <= '9' && (flags & O_EXCL)) note(MADE_COPY, fd, inode_of(fd));
}
static void synced(int fd, int64_t log) {
  if (!S || !S->recording || role != 1) return;
  ino_t i = inode_of(fd);
  if (i == log_inode) note_at(SYNCED_LOG, fd, i, log);
  else if (i == head_inode) note(SYNCED_HEAD, fd, i);
  else note(SYNCED_COPY, fd, i);
}

#define REAL(type, name, ...) static type (*real)(__VA_ARGS__); if (!real) real = dlsym(RTLD_NEXT, #name)
#define WRAP(type, name, params, args, types) \
  type name params { static type (*real) types; if (!real) real = (type (*) types)dlsym(RTLD_NEXT, #name); \
    if (hit(#name, FILES, 0)) return -1; return real args; }

WRAP(int, rename, (const char *a, const char *b), (a, b), (const char *, const char *))
WRAP(int, renameat, (int d, const char *a, int e, const char *b), (d, a, e, b), (int, const char *, int, const char *))
WRAP(int, renameat2, (int d, const char *a, int e, const char *b, unsigned f), (d, a, e, b, f), (int, const char *, int, const char *, unsigned))
WRAP(int, link, (const char *a, const char *b), (a, b), (const char *, const char *))
WRAP(int, linkat, (int d, const char *a, int e, const char *b, int f), (d, a, e, b, f), (int, const char *, int, const char *, int))
WRAP(int, unlink, (const char *a), (a), (const char *))
WRAP(int, unlinkat, (int d, const char *a, int f), (d, a, f), (int, const char *, int))
WRAP(int, mkdir, (const char *a, mode_t m), (a, m), (const char *, mode_t))
WRAP(int, mkdirat, (int d, const char *a, mode_t m), (d, a, m), (int, const char *, mode_t))
WRAP(int, rmdir, (const char *a), (a), (const char *))
WRAP(int, symlink, (const char *a, const char *b), (a, b), (const char *, const char *))
WRAP(int, symlinkat, (const char *a, int d, const char *b), (a, d, b), (const char *, int, const char *))
WRAP(int, mknod, (const char *a, mode_t m, dev_t v), (a, m, v), (const char *, mode_t, dev_t))
WRAP(int, mknodat, (int d, const char *a, mode_t m, dev_t v), (d, a, m, v), (int, const char *, mode_t, dev_t))
WRAP(int, chmod, (const char *a, mode_t m), (a, m), (const char *, mode_t))
WRAP(int, fchmod, (int d, mode_t m), (d, m), (int, mode_t))
WRAP(int, fchmodat, (int d, const char *a, mode_t m, int f), (d, a, m, f), (int, const char *, mode_t, int))
WRAP(int, chown, (const char *a, uid_t u, gid_t g), (a, u, g), (const char *, uid_t, gid_t))
WRAP(int, lchown, (const char *a, uid_t u, gid_t g), (a, u, g), (const char *, uid_t, gid_t))
WRAP(int, fchown, (int d, uid_t u, gid_t g), (d, u, g), (int, uid_t, gid_t))
WRAP(int, fchownat, (int d, const char *a, uid_t u, gid_t g, int f), (d, a, u, g, f), (int, const char *, uid_t, gid_t, int))
WRAP(int, utimensat, (int d, const char *a, const struct timespec t[2], int f), (d, a, t, f), (int, const char *, const struct timespec *, int))
WRAP(int, futimens, (int d, const struct timespec t[2]), (d, t), (int, const struct timespec *))
WRAP(int, setxattr, (const char *a, const char *n, const void *v, size_t s, int f), (a, n, v, s, f), (const char *, const char *, const void *, size_t, int))
WRAP(int, lsetxattr, (const char *a, const char *n, const void *v, size_t s, int f), (a, n, v, s, f), (const char *, const char *, const void *, size_t, int))
WRAP(int, fsetxattr, (int a, const char *n, const void *v, size_t s, int f), (a, n, v, s, f), (int, const char *, const void *, size_t, int))
WRAP(int, removexattr, (const char *a, const char *n), (a, n), (const char *, const char *))
WRAP(int, lremovexattr, (const char *a, const char *n), (a, n), (const char *, const char *))
WRAP(int, fremovexattr, (int a, const char *n), (a, n), (int, const char *))
WRAP(int, truncate, (const char *a, off_t s), (a, s), (const char *, off_t))
WRAP(int, truncate64, (const char *a, off64_t s), (a, s), (const char *, off64_t))
WRAP(int, ftruncate, (int d, off_t s), (d, s), (int, off_t))
WRAP(int, ftruncate64, (int d, off64_t s), (d, s), (int, off64_t))
WRAP(int, fallocate, (int d, int m, off_t o, off_t s), (d, m, o, s), (int, int, off_t, off_t))
WRAP(int, fallocate64, (int d, int m, off64_t o, off64_t s), (d, m, o, s), (int, int, off64_t, off64_t))
WRAP(int, syncfs, (int d), (d), (int))
WRAP(ssize_t, copy_file_range, (int a, off64_t *o, int b, off64_t *p, size_t n, unsigned f), (a, o, b, p, n, f), (int, off64_t *, int, off64_t *, size_t, unsigned))

#define FALLOCATE(name, off) \
  int name(int d, off o, off s) { static int (*real)(int, off, off); if (!real) real = (int (*)(int, off, off))dlsym(RTLD_NEXT, #name); \
    if (hit(#name, FILES, 0)) return errno; return real(d, o, s); }
FALLOCATE(posix_fallocate, off_t)
FALLOCATE(posix_fallocate64, off64_t)

#define SYNC(name) \
  int name(int d) { static int (*real)(int); if (!real) real = (int (*)(int))dlsym(RTLD_NEXT, #name); \
    if (hit(#name, FILES, 0)) return -1; int64_t log = filled_now(); int r = real(d); if (!r) synced(d, log); return r; }
SYNC(fsync)
SYNC(fdatasync)

static int is_file(int d) { struct stat s; return !fstat(d, &s) && S_ISREG(s.st_mode); }
ssize_t write(int d, const void *b, size_t n) {
  static ssize_t (*real)(int, const void *, size_t);
  if (!real) real = (ssize_t (*)(int, const void *, size_t))dlsym(RTLD_NEXT, "write");
  if (role && is_file(d)) switch (hit("write", FILES, n > PAGE)) {
    case 1: return -1;
    case 2: real(d, b, n / 2 & ~(size_t)(PAGE - 1)); die(S->mode == HALF_POWER);
  }
  return real(d, b, n);
}
#define PWRITE(name, off) \
  ssize_t name(int d, const void *b, size_t n, off o) { static ssize_t (*real)(int, const void *, size_t, off); \
    if (!real) real = (ssize_t (*)(int, const void *, size_t, off))dlsym(RTLD_NEXT, #name); \
    switch (hit(#name, FILES, n > PAGE)) { case 1: return -1; case 2: real(d, b, n / 2 & ~(size_t)(PAGE - 1), o); die(S->mode == HALF_POWER); } \
    ssize_t r = real(d, b, n, o); if (S && S->recording && role == 1 && head_inode && inode_of(d) == head_inode) note(WROTE_HEAD, d, head_inode); return r; }
PWRITE(pwrite, off_t)
PWRITE(pwrite64, off64_t)

#define OPEN(name) \
  int name(const char *p, int f, ...) { static int (*real)(const char *, int, ...); if (!real) real = (int (*)(const char *, int, ...))dlsym(RTLD_NEXT, #name); \
    va_list v; va_start(v, f); mode_t m = va_arg(v, mode_t); va_end(v); \
    if ((f & (O_CREAT | O_TRUNC)) && hit(#name, FILES, 0)) return -1; int r = real(p, f, m); opened(r, p, f); return r; }
#define OPENAT(name) \
  int name(int d, const char *p, int f, ...) { static int (*real)(int, const char *, int, ...); if (!real) real = (int (*)(int, const char *, int, ...))dlsym(RTLD_NEXT, #name); \
    va_list v; va_start(v, f); mode_t m = va_arg(v, mode_t); va_end(v); \
    if ((f & (O_CREAT | O_TRUNC)) && hit(#name, FILES, 0)) return -1; int r = real(d, p, f, m); opened(r, p, f); return r; }
OPEN(open)
OPEN(open64)
OPENAT(openat)
OPENAT(openat64)

int ioctl(int d, unsigned long q, ...) {
  static int (*real)(int, unsigned long, ...);
  if (!real) real = (int (*)(int, unsigned long, ...))dlsym(RTLD_NEXT, "ioctl");
  va_list v; va_start(v, q); void *a = va_arg(v, void *); va_end(v);
  q &= 0xffffffffUL;
  if (q == 0xC0502100UL || q == 0xC0182101UL) { /* SECCOMP_IOCTL_NOTIF_RECV, SEND */
    hit(q == 0xC0182101UL ? "ioctl(SEND)" : "ioctl(RECV)", TALK, 0);
    if (q == 0xC0182101UL && a && ((uint32_t *)a)[5] == 1) note(ANSWERED, d, 0);
  } else if (q == 0x40086602UL || q == 0x40049409UL) { /* FS_IOC_SETFLAGS, FICLONE */
    if (hit("ioctl", FILES, 0)) return -1;
  }
  return real(d, q, a);
}
#define SEND(name, params, args, types) \
  ssize_t name params { static ssize_t (*real) types; if (!real) real = (ssize_t (*) types)dlsym(RTLD_NEXT, #name); \
    hit(#name, TALK, 0); return real args; }
SEND(send, (int d, const void *b, size_t n, int f), (d, b, n, f), (int, const void *, size_t, int))
SEND(sendmsg, (int d, const struct msghdr *m, int f), (d, m, f), (int, const struct msghdr *, int))
