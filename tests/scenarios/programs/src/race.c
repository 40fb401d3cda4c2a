// SPDX-License-Identifier: GPL-3.0-or-later
// THREADS threads rename, unlink, create and make directories over ten names for ROUNDS rounds in all. race DIR ROUNDS THREADS SEED
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static atomic_long left;
static int directory;

static void *work(void *argument)
{
    unsigned state = (unsigned)(long)argument;
    while (atomic_fetch_sub(&left, 1) > 0) {
        char one[16], other[16];
        snprintf(one, sizeof one, "name%d", rand_r(&state) % 10);
        snprintf(other, sizeof other, "name%d", rand_r(&state) % 10);
        int kind = rand_r(&state) % 10, fd;
        if (kind < 4) {
            renameat(directory, one, directory, other);
        } else if (kind < 6) {
            unlinkat(directory, one, 0);
        } else if (kind == 6) {
            if (mkdirat(directory, one, 0700))
                unlinkat(directory, one, AT_REMOVEDIR);
        } else if (kind == 7) {
            linkat(directory, one, directory, other, 0);
        } else if ((fd = openat(directory, one, O_WRONLY | O_CREAT | (kind == 8 ? O_TRUNC : O_APPEND), 0644)) >= 0) {
            dprintf(fd, "%s %u\n", other, state);
            close(fd);
        }
    }
    return NULL;
}

int main(int argc, char **argv)
{
    if (argc != 5)
        return 2;
    directory = open(argv[1], O_RDONLY | O_DIRECTORY);
    atomic_store(&left, atol(argv[2]));
    int threads = atoi(argv[3]);
    pthread_t *all = calloc((size_t)threads, sizeof *all);
    for (long i = 0; i < threads; i++)
        pthread_create(&all[i], NULL, work, (void *)(atol(argv[4]) + i));
    for (int i = 0; i < threads; i++)
        pthread_join(all[i], NULL);
    return 0;
}
