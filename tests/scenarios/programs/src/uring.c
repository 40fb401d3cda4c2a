// SPDX-License-Identifier: GPL-3.0-or-later
// Unlinks, renames and makes files through io_uring where the kernel lets it, by system calls where not. Says which.
#include <fcntl.h>
#include <linux/io_uring.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static int ring = -1;
static struct io_uring_params params;
static char *sq, *cq;
static struct io_uring_sqe *sqes;

static int submit(const struct io_uring_sqe *wanted)
{
    unsigned *tail = (unsigned *)(sq + params.sq_off.tail), *head = (unsigned *)(cq + params.cq_off.head);
    unsigned mask = *(unsigned *)(sq + params.sq_off.ring_mask), at = *tail & mask;
    sqes[at] = *wanted;
    ((unsigned *)(sq + params.sq_off.array))[at] = at;
    __atomic_store_n(tail, *tail + 1, __ATOMIC_RELEASE);
    if (syscall(SYS_io_uring_enter, ring, 1, 1, IORING_ENTER_GETEVENTS, NULL, 0) < 0) {
        perror("io_uring_enter");
        exit(4);
    }
    unsigned cmask = *(unsigned *)(cq + params.cq_off.ring_mask);
    struct io_uring_cqe *done = &((struct io_uring_cqe *)(cq + params.cq_off.cqes))[*head & cmask];
    int result = done->res;
    __atomic_store_n(head, *head + 1, __ATOMIC_RELEASE);
    return result;
}

static int open_ring(void)
{
    ring = (int)syscall(SYS_io_uring_setup, 8, &params);
    if (ring < 0)
        return 0;
    sq = mmap(NULL, params.sq_off.array + params.sq_entries * 4, PROT_READ | PROT_WRITE, MAP_SHARED, ring, IORING_OFF_SQ_RING);
    cq = mmap(NULL, params.cq_off.cqes + params.cq_entries * sizeof(struct io_uring_cqe), PROT_READ | PROT_WRITE, MAP_SHARED, ring, IORING_OFF_CQ_RING);
    sqes = mmap(NULL, params.sq_entries * sizeof(struct io_uring_sqe), PROT_READ | PROT_WRITE, MAP_SHARED, ring, IORING_OFF_SQES);
    return sq != MAP_FAILED && cq != MAP_FAILED && sqes != MAP_FAILED;
}

int main(void)
{
    int by_ring = open_ring(), bad = 0;
    if (chdir("/srv/w/uring"))
        return 2;
    if (by_ring) {
        struct io_uring_sqe unlink_one = {.opcode = IORING_OP_UNLINKAT, .fd = AT_FDCWD, .addr = (uintptr_t)"one"};
        struct io_uring_sqe rename_two = {.opcode = IORING_OP_RENAMEAT, .fd = AT_FDCWD, .addr = (uintptr_t)"two", .len = (unsigned)AT_FDCWD, .off = (uintptr_t)"moved"};
        struct io_uring_sqe make = {.opcode = IORING_OP_MKDIRAT, .fd = AT_FDCWD, .addr = (uintptr_t)"made", .len = 0700};
        bad = submit(&unlink_one) || submit(&rename_two) || submit(&make);
    } else {
        bad = unlink("one") || rename("two", "moved") || mkdir("made", 0700);
    }
    printf("%s\n", by_ring ? "by io_uring" : "by system calls");
    return bad ? 3 : 0;
}
