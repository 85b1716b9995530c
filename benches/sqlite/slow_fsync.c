/* Makes each fsync and fdatasync take FSYNC_US microseconds more, as a disk does whose cache is not safe by itself. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <time.h>

static void wait_a_little(void) {
    static long us = -1;
    if (us < 0) us = getenv("FSYNC_US") ? atol(getenv("FSYNC_US")) : 0;
    struct timespec time = {us / 1000000, us % 1000000 * 1000};
    nanosleep(&time, 0);
}

#define SLOW(name)                                          \
    int name(int fd) {                                      \
        static int (*real)(int);                            \
        if (!real) *(void **)&real = dlsym(RTLD_NEXT, #name); \
        wait_a_little();                                    \
        return real(fd);                                    \
    }

SLOW(fsync)
SLOW(fdatasync)
