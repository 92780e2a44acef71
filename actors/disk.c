/* SPDX-License-Identifier: Apache-2.0
 *
 * The actor: takes messages, and waits for them and for the ring's completions in one place, an eventfd.
 */
#include "disk_state.h"

#include <assert.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/give_way.h"
#include "base/log.h"

#define REAP_MAX 16           /* jobs that end in one poll: each may be verified here */
#define HELD_NS 1000000       /* when the kernel is asked again that took nothing */
#define TICK_NS 250000000     /* how often deadlines are looked at */

static void publish(struct disk_actor *a)
{
	ty_tier_tell(a->tier);
	atomic_store_explicit(&a->tier->stats.chunks, a->index.count, memory_order_relaxed);
	atomic_store_explicit(&a->tier->stats.used_bytes, a->index.bytes, memory_order_relaxed);
	atomic_store_explicit(&a->tier->stats.given_up, a->given_up, memory_order_relaxed);
	atomic_store_explicit(&a->tier->stats.namespaces, a->index.names.count, memory_order_relaxed);
	atomic_store_explicit(&a->tier->stats.quarantine_bytes, a->aside, memory_order_relaxed);
}

void disk_keep_ticking(struct disk_actor *a)
{
	if (!a->ticking)
		ty_timer_start(&a->tick, DISK_TICK, ty_now() + TICK_NS);
	a->ticking = true;
}

/* ---- the actor --------------------------------------------------------------------------------------------- */

static int64_t poll_ring(void *self, int64_t now)
{
	struct disk_actor *a = self;
	struct disk_ring *ring = &a->disk->ring;
	struct disk_job *job = NULL;
	const struct ty_policy_class *policy;

	/* relaxed: it stands alone */
	policy = atomic_load_explicit(&a->tier->policy, memory_order_relaxed);
	if (a->index.order.now->cls != policy)
		(void)disk_order_change(&a->index.order, policy);
	/* More than it may hold, by what the scan found or because it may hold less now: a few at a time. */
	while (a->index.bytes + a->coming > disk_size(a) && disk_evict_one(a))
		;
	disk_begin_held(a);
	for (int i = 0; ring->on && i < REAP_MAX && (job = disk_ring_reap(ring)); i++)
		disk_go_on(a, job);
	if (ring->on)
		disk_ring_submit(ring);
	publish(a);
	return job ? now : a->held || a->index.order.now->cls != policy ? now + HELD_NS : TY_NEVER;
}

static void wait_for_events(void *self, int64_t deadline)
{
	struct disk_actor *a = self;
	struct pollfd p = {.fd = a->disk->event_fd, .events = POLLIN};
	int64_t left = deadline == TY_NEVER ? 0 : deadline - ty_now();
	struct timespec timeout = {left > 0 ? left / 1000000000 : 0, left > 0 ? left % 1000000000 : 0};
	uint64_t n;

	if (ppoll(&p, 1, deadline == TY_NEVER ? NULL : &timeout, NULL) > 0)
		(void)!read(p.fd, &n, sizeof n); /* before the completions are looked at: one that comes now is told again */
}

static void wake(void *self)
{
	struct disk_actor *a = self;
	uint64_t one = 1;

	(void)!write(a->disk->event_fd, &one, sizeof one);
}

static void on_start(void *self, struct ty_msg *msg)
{
	struct disk_actor *a = self;
	struct disk_found *found = calloc(1, sizeof *found);

	(void)msg;
	/* release: pairs with ty_tier_submit's acquire */
	atomic_store_explicit(&a->tier->stats.state, TY_TIER_SERVING, memory_order_release);
	a->scanning = true;
	if (found && ty_send(a->disk->scanner, &found->msg, TY_DISK_SCAN) == TY_OK) {
		return;
	}
	a->scanning = false;
	free(found);
	atomic_store_explicit(&a->tier->stats.scanning, 0, memory_order_relaxed);
	ty_log(TY_LOG_ERROR, "tier", "disk: what is there could not be read");
}

static void on_io(void *self, struct ty_msg *msg)
{
	disk_carry_out(self, ty_container_of(msg, struct ty_tier_io, msg));
}

static void on_packed(void *self, struct ty_msg *msg)
{
	struct disk_actor *a = self;
	struct ty_tier_io *io = ty_tier_packed(a->tier, msg);

	if (io)
		disk_carry_out(a, io);
}

static void on_stop(void *self, struct ty_msg *msg)
{
	struct disk_actor *a = self;

	(void)msg;
	a->stopping = true;
	disk_look_at_lists(a, 0);
	for (struct disk_job *job = a->jobs; job; job = job->next)
		if (job->io && !job->answered)
			disk_give_up(a, job, TY_TIER_STOPPED);
}

static void on_worked(void *self, struct ty_msg *msg)
{
	disk_finish(self, ty_container_of(msg, struct disk_job, msg));
}

static void on_checked(void *self, struct ty_msg *msg)
{
	struct ty_bytework *work = ty_container_of(msg, struct ty_bytework, msg);
	struct disk_job *job = ty_container_of(work, struct disk_job, bytework);

	if (!work->ran)
		disk_job_perform(job);
	disk_go_on(self, job);
}

static void end_scan(struct disk_actor *a)
{
	a->scanning = false;
	disk_look_at_lists(a, ty_now());
	ty_log(TY_LOG_INFO, "tier", "disk: %llu chunks, %llu bytes, are there", (unsigned long long)a->index.count,
		(unsigned long long)a->index.bytes);
	publish(a);
	/* release: whoever sees that it is over sees what was found, too */
	atomic_store_explicit(&a->tier->stats.scanning, 0, memory_order_release);
}

static void on_found(void *self, struct ty_msg *msg)
{
	struct disk_actor *a = self;
	struct disk_found *found = ty_container_of(msg, struct disk_found, msg);
	enum ty_code sent;

	disk_take_found(a, found);
	if (found->at < found->count && !a->stopping) { /* operations come in between */
		sent = ty_send(ty_self(), &found->msg, DISK_FOUND);
	} else if (found->last || a->stopping) {
		end_scan(a);
		sent = TY_STOPPING;
	} else {
		a->gone_count = 0;
		if (++found->hash == DISK_HASH_FOLDERS) {
			found->hash = 0;
			found->folder++;
		}
		a->scanned = found->hash;
		sent = ty_send(a->disk->scanner, &found->msg, TY_DISK_SCAN);
	}
	if (sent != TY_OK)
		disk_found_free(found);
}

static void on_tick(void *self, struct ty_msg *msg)
{
	struct disk_actor *a = self;
	int64_t now = ty_now();

	(void)msg;
	a->ticking = false;
	disk_look_at_lists(a, now);
	if (a->job_count || a->lists)
		disk_keep_ticking(a);
	for (struct disk_job *job = a->jobs; job; job = job->next)
		if (job->io && !job->answered && (a->stopping || now >= job->io->deadline))
			disk_give_up(a, job, a->stopping ? TY_TIER_STOPPED : TY_TIER_LATE);
}

static enum ty_code start(void *self, void *arg)
{
	struct disk_actor *a = self;

	a->tier = arg;
	a->disk = a->tier->state;
	ty_give_way(); /* with the kernel's workers that its ring begins: those who answer requests go first */
	a->aside = atomic_load_explicit(&a->tier->stats.quarantine_bytes, memory_order_relaxed); /* what open() found */
	/* relaxed: as open() set it */
	if (disk_index_init(&a->index, atomic_load_explicit(&a->tier->policy, memory_order_relaxed)))
		return TY_OK;
	ty_log(TY_LOG_ERROR, "tier", "disk: no memory to start with");
	return TY_NO_MEMORY;
}

static void stop(void *self)
{
	struct disk_actor *a = self;

	/* Errands may be out. The kernel has copied the names that it needs; a worker frees what it finds nobody for. */
	for (struct disk_job *job = a->disk->ring.on ? a->jobs : NULL, *next; job; job = next) { /* a worker's may be gone by now */
		next = job->next;
		assert(!job->io);
		disk_job_free(job);
	}
	free(a->gone);
	disk_index_clear(&a->index);
}

static void refuse(void *self, struct ty_msg *msg)
{
	(void)self;
	if (msg->type == DISK_FOUND)
		disk_found_free(ty_container_of(msg, struct disk_found, msg));
	else if (msg->type == DISK_WORKED)
		disk_job_free(ty_container_of(msg, struct disk_job, msg));
}

static const struct ty_handler handlers[] = {
	[TY_TIER_START - TY_TIER_START] = {"start", on_start},
	[TY_TIER_IO - TY_TIER_START] = {"io", on_io},
	[TY_TIER_STOP - TY_TIER_START] = {"stop", on_stop},
	[TY_TIER_PACKED - TY_TIER_START] = {"packed", on_packed},
	[DISK_WORKED - TY_TIER_START] = {"worked", on_worked},
	[DISK_FOUND - TY_TIER_START] = {"found", on_found},
	[DISK_TICK - TY_TIER_START] = {"tick", on_tick},
	[DISK_CHECKED - TY_TIER_START] = {"checked", on_checked},
};

static const struct ty_class disk_class = {
	.name = "disk",
	.state_size = sizeof(struct disk_actor),
	.first_type = TY_TIER_START,
	.type_count = sizeof handlers / sizeof handlers[0],
	.handlers = handlers,
	.start = start,
	.stop = stop,
	.refuse = refuse,
	.poll = poll_ring,
	.wait = {wait_for_events, wake},
};

/* ---- the kind ---------------------------------------------------------------------------------------------- */

static enum ty_code spawn_one(struct ty_tier *tier, const struct ty_class *cls, const char *thread, struct ty_actor **out,
	struct ty_error *err)
{
	struct ty_spawn_options options = {.size = sizeof options, .executor = TY_DEDICATED, .thread_name = thread, .cpu = -1};
	enum ty_code code = ty_spawn(tier->service->rt, cls, tier->state, &options, out);

	return code == TY_OK ? TY_OK : ty_fail(err, code, "could not start the actor %s", cls->name);
}

static enum ty_code spawn_others(struct ty_tier *tier, struct ty_error *err)
{
	struct disk *d = tier->state;
	enum ty_code code = spawn_one(tier, &disk_scanner_class, "disk-scan", &d->scanner, err);

	for (uint32_t i = 0; code == TY_OK && !d->ring.on && i < d->worker_count; i++)
		code = spawn_one(tier, &disk_worker_class, "disk-work", &d->worker[i], err);
	return code;
}

static void resized(struct ty_tier *tier)
{
	struct disk *d = tier->state;
	uint64_t one = 1;

	(void)!write(d->event_fd, &one, sizeof one);
}

static void release_others(struct ty_tier *tier)
{
	struct disk *d = tier->state;

	if (d->scanner)
		ty_actor_unref(d->scanner);
	for (uint32_t i = 0; i < d->worker_count; i++)
		if (d->worker[i])
			ty_actor_unref(d->worker[i]);
}

const struct ty_tier_class ty_disk_tier = {
	.kind = "disk",
	.open = disk_open,
	.close = disk_close,
	.actor = &disk_class,
	.executor = TY_DEDICATED,
	.resized = resized,
	.spawn = spawn_others,
	.release = release_others,
};
