/* SPDX-License-Identifier: Apache-2.0
 *
 * Linked around the service's own objects (--wrap), with nothing changed in them: the process can be killed before or after what
 * a chunk goes through on its way. Which point, and at its how-manieth arrival, stands in a file that $TYER_POINTS names, written
 * by the test at any time; how often each point was passed is found in it.
 */
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "actors/disk.h"
#include "actors/eviction_state.h"
#include "actors/gpu_state.h"
#include "actors/operations.h"
#include "actors/rpc_connection.h"
#include "actors/service.h"
#include "cache/checksum.h"
#include "cache/slots_private.h"
#include "wire/request.h"

#define POINTS 256
#define NAME 56

/* worker_killed_at_each_point.py knows this layout. */
struct points {
	_Atomic uint64_t countdown; /* 0: nobody dies. Written after `armed`, release; the arrival that takes it to 0 dies */
	char armed[NAME];
	struct {
		_Atomic uint64_t passed; /* 0: nobody has it, or its name is being written; release, after the name */
		char name[NAME];         /* two threads that pass it first may both enter it */
	} seen[POINTS];
	_Atomic uint64_t count;
};

static struct points *points;

__attribute__((constructor)) static void open_points(void)
{
	const char *path = getenv("TYER_POINTS");
	int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
	void *at = fd >= 0 ? mmap(NULL, sizeof *points, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) : MAP_FAILED;

	if (fd >= 0)
		close(fd);
	if (at != MAP_FAILED)
		points = at;
}

static void count(const char *name)
{
	uint64_t n = atomic_load_explicit(&points->count, memory_order_relaxed);

	for (uint64_t i = 0; i < n && i < POINTS; i++) {
		/* acquire: pairs with the release below */
		if (atomic_load_explicit(&points->seen[i].passed, memory_order_acquire) && strcmp(points->seen[i].name, name) == 0) {
			atomic_fetch_add_explicit(&points->seen[i].passed, 1, memory_order_relaxed);
			return;
		}
	}
	n = atomic_fetch_add_explicit(&points->count, 1, memory_order_relaxed);
	if (n < POINTS) {
		snprintf(points->seen[n].name, NAME, "%s", name);
		atomic_store_explicit(&points->seen[n].passed, 1, memory_order_release);
	}
}

/* Is this where the process is to die? */
static bool at(const char *name)
{
	uint64_t left;

	if (!points)
		return false;
	count(name);
	/* acquire: `armed` belongs to it. Several threads may arrive at once: it never goes below 0, which says that somebody died. */
	left = atomic_load_explicit(&points->countdown, memory_order_acquire);
	while (left && strcmp(points->armed, name) == 0)
		if (atomic_compare_exchange_weak_explicit(&points->countdown, &left, left - 1, memory_order_acquire, memory_order_acquire))
			return left == 1;
	return false;
}

_Noreturn static void die(void)
{
	kill(getpid(), SIGKILL);
	for (;;)
		pause();
}

static void point(const char *name)
{
	if (at(name))
		die();
}

/* ---- what is wrapped ------------------------------------------------------------------------------------- */

#define DECLARE(name) extern __typeof__(name) __real_##name, __wrap_##name
#define AROUND(type, name, params, args)   \
	DECLARE(name);                     \
	type __wrap_##name params          \
	{                                  \
		type result;               \
                                           \
		point("before " #name);    \
		result = __real_##name args; \
		point("after " #name);     \
		return result;             \
	}
#define AROUND_VOID(name, params, args)    \
	DECLARE(name);                     \
	void __wrap_##name params          \
	{                                  \
		point("before " #name);    \
		__real_##name args;        \
		point("after " #name);     \
	}

/* It comes, is admitted, and gets its slots. */
AROUND(enum ty_code, ty_request_check, (const Tyer__V1__Request *request, uint32_t most, struct ty_error *err), (request, most, err))
AROUND(enum ty_code, ty_op_table_take,
	(struct ty_op_table *t, uint64_t bytes, uint32_t count_, uint64_t engine_bytes, struct ty_op_row **row, struct ty_error *err),
	(t, bytes, count_, engine_bytes, row, err))
AROUND(uint32_t, ty_slots_take,
	(struct ty_slots *slots, uint64_t bytes, const struct ty_key *key, uint32_t part, uint32_t parts, uint16_t space),
	(slots, bytes, key, part, parts, space))
AROUND(struct ty_chunk *, ty_index_add, (struct ty_index *index, const struct ty_key *key, uint32_t parts), (index, key, parts))
AROUND_VOID(eviction_set_slot, (struct eviction *e, struct ty_chunk *chunk, uint32_t part, uint32_t slot), (e, chunk, part, slot))
AROUND(struct ty_chunk *, ty_index_pin, (struct ty_index *index, const struct ty_key *key), (index, key))

/* It is copied. */
AROUND_VOID(gpu_take, (struct gpu *g, struct ty_op *op), (g, op))
AROUND(bool, ty_op_begin, (struct ty_op *op), (op))
AROUND(enum ty_code, ty_device_submit, (struct ty_device *dev, struct ty_batch *batch), (dev, batch))
AROUND_VOID(ty_op_clear, (struct ty_op *op), (op))
AROUND_VOID(ty_op_raise_done, (struct ty_op *op), (op))

DECLARE(ty_device_poll);
uint32_t __wrap_ty_device_poll(struct ty_device *dev, struct ty_batch **done, uint32_t max)
{
	uint32_t n = __real_ty_device_poll(dev, done, max);

	if (n)
		point("copy done");
	return n;
}

/* It is committed. */
AROUND_VOID(eviction_commit_part, (struct eviction *e, const struct ty_op *op, const struct ty_op_chunk *c), (e, op, c))
AROUND_VOID(ty_slots_commit, (struct ty_slots *slots, uint32_t slot, uint64_t checksum), (slots, slot, checksum))
AROUND_VOID(ty_chunk_publish, (struct ty_chunk *chunk), (chunk))
AROUND_VOID(ty_op_table_give, (struct ty_op_table *t, struct ty_op_row *row, uint64_t bytes), (t, row, bytes))

/* A record in the middle of being written: its first word says FREE, and some, or all, of the rest is there. */
DECLARE(ty_slot_record_write);
void __wrap_ty_slot_record_write(struct ty_slot_record *to, const struct ty_slot_record *from)
{
	struct ty_slot_record part = *from;

	part.state = TY_SLOT_FREE;
	if (at(from->state == TY_SLOT_READY ? "half a READY record" : "half a FILLING record")) {
		memset(&part.key, 0x5a, sizeof part.key / 2);
		__real_ty_slot_record_write(to, &part);
		to->check = 0;
		die();
	}
	if (at(from->state == TY_SLOT_READY ? "READY but for the state" : "FILLING but for the state")) {
		__real_ty_slot_record_write(to, &part);
		die();
	}
	__real_ty_slot_record_write(to, from);
}

/* It is answered. */
AROUND_VOID(ty_exchange_answer, (struct ty_exchange *exchange), (exchange))
AROUND_VOID(ty_rpc_edge_send, (struct ty_rpc_connection *connection, struct ty_rpc_reply *reply), (connection, reply))

/* Its checksums are made, by threads beside all that. */
AROUND_VOID(ty_checksum_add, (struct ty_checksum *sum, const void *data, size_t bytes), (sum, data, bytes))
AROUND_VOID(ty_slots_set_checksum, (struct ty_slots *slots, uint32_t slot, uint64_t checksum), (slots, slot, checksum))

/* It goes down to the disk. */
static void disk_point(const char *when, const struct disk_job *job)
{
	static const char *const works[] = {
		[DISK_PUT] = "PUT", [DISK_GET] = "GET", [DISK_REMOVE] = "REMOVE", [DISK_ISOLATE] = "ISOLATE"};
	static const char *const steps[] = {[DISK_OPEN] = "open", [DISK_MOVE] = "move", [DISK_SYNC] = "sync", [DISK_CLOSE] = "close",
		[DISK_CHECK] = "check", [DISK_RENAME] = "rename", [DISK_UNLINK] = "unlink", [DISK_OVER] = "over"};
	char name[NAME];

	snprintf(name, sizeof name, "%s disk %s %s", when, works[job->work], steps[job->step]);
	point(name);
}

DECLARE(disk_job_perform);
void __wrap_disk_job_perform(struct disk_job *job)
{
	disk_point("before", job);
	__real_disk_job_perform(job);
	disk_point("after", job);
}

static _Thread_local bool begun; /* something of this thread's waits for the ring's submission */

DECLARE(disk_ring_begin);
bool __wrap_disk_ring_begin(struct disk_ring *r, struct disk_job *job)
{
	begun = true;
	return __real_disk_ring_begin(r, job);
}

DECLARE(disk_ring_submit);
void __wrap_disk_ring_submit(struct disk_ring *r)
{
	if (begun)
		point("before disk_ring_submit");
	__real_disk_ring_submit(r);
	if (begun)
		point("after disk_ring_submit"); /* the kernel is in the middle of it, or through */
	begun = false;
}

DECLARE(disk_ring_reap);
struct disk_job *__wrap_disk_ring_reap(struct disk_ring *r)
{
	struct disk_job *job = __real_disk_ring_reap(r);

	if (job)
		point("disk_ring_reap");
	return job;
}

AROUND(struct disk_entry *, disk_index_put, (struct disk_index *x, const struct disk_shape *shape, const struct ty_identity *whose, uint32_t folder,
	bool oldest),
	(x, shape, whose, folder, oldest))

/* The next process takes it over, and stops for the one after it. */
AROUND(enum ty_code, ty_slots_adopt,
	(const struct ty_arena *arena, int fd, struct ty_slots **out, struct ty_slots_found *found, struct ty_error *err),
	(arena, fd, out, found, err))
AROUND_VOID(ty_slots_add_piece, (struct ty_slots *slots, uint32_t piece), (slots, piece))
AROUND(bool, eviction_return_part, (struct eviction *e, uint32_t slot), (e, slot))
AROUND_VOID(ty_service_stop, (struct ty_service *service), (service))
AROUND_VOID(ty_arena_close, (struct ty_arena *arena), (arena))
