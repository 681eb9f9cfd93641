"""A wall clock that can be set, for a daemon under test and all its processes, and for nobody else.

    with WallClock(folder) as clock, Victim(app, folder, environment=clock.environment) as victim:
        clock.set(3600)             # for them, it is an hour later now

A small library that the loader puts before libc (LD_PRELOAD) adds an offset to what the system says
the time of day is; processes read it from a file that they share. So C and C++ code sees the step,
too. The monotonic clock is left alone, as a real step leaves it. Waits with a deadline of the day
go on as the kernel would let them: for the rest of the time that they were begun with.

Needs gcc and Linux; the machine's clock is not touched.
"""

from __future__ import annotations

import mmap
import os
import shutil
import struct
import subprocess
from pathlib import Path

from edgeperc.bench.victim import ImpossibleError

SHIM = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const volatile int64_t *offset;  /* ns, set by the test */

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("EDGEPERC_BENCH_WALL_CLOCK");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0) return;
    void *at = mmap(NULL, sizeof *offset, PROT_READ, MAP_SHARED, file, 0);
    close(file);
    if (at != MAP_FAILED) offset = at;
}

static void move(struct timespec *time, int64_t ns) {
    int64_t whole = time->tv_sec * INT64_C(1000000000) + time->tv_nsec + ns;
    if (whole < 0) whole = 0;
    time->tv_sec = whole / 1000000000;
    time->tv_nsec = whole % 1000000000;
}

static int64_t now(void) { return offset ? *offset : 0; }

int clock_gettime(clockid_t clock, struct timespec *time) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    int failed = real ? real(clock, time) : (int)syscall(SYS_clock_gettime, clock, time);
    if (!failed && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) move(time, now());
    return failed;
}

int gettimeofday(struct timeval *restrict time, void *restrict zone) {
    struct timespec precise;
    (void)zone;
    if (clock_gettime(CLOCK_REALTIME, &precise)) return -1;
    time->tv_sec = precise.tv_sec;
    time->tv_usec = precise.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *out) {
    struct timespec precise;
    clock_gettime(CLOCK_REALTIME, &precise);
    if (out) *out = precise.tv_sec;
    return precise.tv_sec;
}

/* Deadlines of the day, that the kernel knows by its own clock. */
int sem_timedwait(sem_t *restrict sem, const struct timespec *restrict until) {
    static int (*real)(sem_t *, const struct timespec *);
    if (!real) real = dlsym(RTLD_NEXT, "sem_timedwait");
    struct timespec end = *until;
    move(&end, -now());
    return real(sem, &end);
}

int pthread_mutex_timedlock(pthread_mutex_t *restrict lock, const struct timespec *restrict until) {
    static int (*real)(pthread_mutex_t *, const struct timespec *);
    if (!real) real = dlsym(RTLD_NEXT, "pthread_mutex_timedlock");
    struct timespec end = *until;
    move(&end, -now());
    return real(lock, &end);
}

int pthread_cond_timedwait(pthread_cond_t *restrict cond, pthread_mutex_t *restrict lock,
                           const struct timespec *restrict until) {
    static int (*real)(pthread_cond_t *, pthread_mutex_t *, const struct timespec *);
    if (!real) real = dlvsym(RTLD_NEXT, "pthread_cond_timedwait", "GLIBC_2.3.2");
    if (!real) real = dlsym(RTLD_NEXT, "pthread_cond_timedwait");
    struct timespec end = *until, real_time;
    /* A condition may go by the monotonic clock: then its deadline is far from any time of day. */
    syscall(SYS_clock_gettime, CLOCK_REALTIME, &real_time);
    int64_t ahead = (int64_t)end.tv_sec - (int64_t)real_time.tv_sec;
    if (ahead > -500000000 && ahead < 500000000) move(&end, -now());
    return real(cond, lock, &end);
}
"""
VARIABLE = "EDGEPERC_BENCH_WALL_CLOCK"


class WallClock:
    """The wall clock of whoever is started with `environment`. Raises ImpossibleError without gcc.

    Only this library reads that variable.
    """

    def __init__(self, folder: Path) -> None:
        compiler = shutil.which("gcc") or shutil.which("cc")
        if compiler is None:
            raise ImpossibleError("setting a daemon's wall clock needs gcc")
        folder.mkdir(parents=True, exist_ok=True)
        source, library = folder / "wall_clock.c", folder / "wall_clock.so"
        source.write_text(SHIM)
        command = [compiler, "-shared", "-fPIC", "-O2", "-o", str(library), str(source)]
        done = subprocess.run(
            [*command, "-ldl", "-lpthread"], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise ImpossibleError(f"the wall clock's library: {done.stderr.strip()[-200:]}")
        path = folder / "wall_clock"
        path.write_bytes(bytes(8))
        with path.open("r+b") as file:
            self._offset = mmap.mmap(file.fileno(), 8)
        before = os.environ.get("LD_PRELOAD", "")
        self.environment = {
            "LD_PRELOAD": f"{library} {before}".strip(),
            VARIABLE: str(path),
        }

    def set(self, seconds: float) -> None:
        """Let it be so much later than it is, at once and from now on."""
        self._offset[:] = struct.pack("=q", round(seconds * 1e9))

    def __enter__(self) -> WallClock:
        return self

    def __exit__(self, *_: object) -> None:
        self._offset.close()
