/* SPDX-License-Identifier: Apache-2.0
 *
 * Preloaded into a service: its clocks are ahead by as many nanoseconds as the file in $TYER_SHIFT_CLOCK says, two 64-bit numbers: for
 * the monotonic clocks, and for that on the wall. They may change at any time, the first one only forwards, as such clocks do.
 */
#include <fcntl.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* the test writes, every thread here reads; relaxed: it stands alone */
static _Atomic int64_t *shift;

__attribute__((constructor)) static void open_shift(void)
{
	const char *path = getenv("TYER_SHIFT_CLOCK");
	int fd = path != NULL ? open(path, O_RDONLY | O_CLOEXEC) : -1;
	void *at = fd >= 0 ? mmap(NULL, 2 * sizeof *shift, PROT_READ, MAP_SHARED, fd, 0) : MAP_FAILED;

	if (fd >= 0)
		close(fd);
	if (at != MAP_FAILED)
		shift = at;
}

__attribute__((visibility("default"))) int clock_gettime(clockid_t clock, struct timespec *ts)
{
	bool wall = clock == CLOCK_REALTIME;
	int64_t ns = shift != NULL ? atomic_load_explicit(&shift[wall], memory_order_relaxed) : 0;
	long rv = syscall(SYS_clock_gettime, clock, ts);

	if (rv == 0 && ns != 0 && (wall || clock == CLOCK_MONOTONIC || clock == CLOCK_BOOTTIME)) {
		ns += ts->tv_nsec;
		ts->tv_sec += ns / 1000000000;
		ts->tv_nsec = ns % 1000000000;
	}
	return (int)rv;
}
