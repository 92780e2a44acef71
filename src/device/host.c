/* SPDX-License-Identifier: Apache-2.0
 *
 * The host device: a client's pool is shared memory, and ty_device_poll is the copy engine. Where faults are injected.
 *
 * A pool's regions are memfds that can no longer shrink, so that no access past their end can ever fault in our process; nor are they of
 * huge pages, which may run out.
 */
#include "device_private.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "kernels/gather.h"

#define SLICE_BYTES ((uint64_t)1 << 20) /* copied by one poll: about 100 us */
#define QUEUE_MAX 64                    /* batches of one direction */
#define BATCH_BYTES ((uint64_t)4 << 20) /* a batch: enough for a few polls, so that both directions and all clients take turns */

/* Faults. Counted over all batches in the order of their submission, from 1. */
struct faults {
	uint64_t delay_us;   /* each batch is done at least this long after its submission */
	uint64_t fail_every; /* the batches with numbers divisible by this fail, and move nothing; 0 = none */
	uint64_t hang_after; /* batches past this number are never done; UINT64_MAX = none */
	uint64_t hold_fd;    /* whose first 64-bit word holds everything up, as enum hold says; UINT64_MAX = none */
};

enum hold { HOLD_NOTHING, HOLD_DONE, HOLD_ALL }; /* all goes on; what is copied is not done; nothing is copied either */

/* How far the first batch of a queue has come: units [unit, ...) of blocks [block, ...) of group, of copies[copy]. */
struct cursor {
	uint32_t copy, group, block;
	uint64_t unit;
	bool loaded; /* job holds the blocks from `block` on */
	struct ty_gather_job job;
};

struct host_device {
	struct ty_device base;
	struct faults faults;
	const _Atomic uint64_t *hold; /* a test writes it, relaxed: it stands alone. Null: nothing is ever held */
	uint64_t submitted;
	struct ty_batch_queue queue[2];  /* by direction: being copied */
	struct ty_batch_queue copied[2]; /* copied (or failed), waiting for their time */
	struct ty_batch_queue hung;
	struct cursor cursor[2];
	unsigned turn; /* the direction that copies next, when both can */
};

struct host_mapping {
	struct ty_mapping base;
	void *memory[TY_MAX_REGIONS];
	size_t bytes[TY_MAX_REGIONS];
	uint64_t planes[]; /* addresses of block 0 */
};

static const struct ty_device_kind host_kind;

static enum ty_code parse_fault(struct faults *faults, const char *text, size_t length, unsigned *seen,
	struct ty_error *err)
{
	static const struct {
		const char *name;
		size_t offset;
		uint64_t least, most;
	} known[] = {
		{"delay-us", offsetof(struct faults, delay_us), 0, 600000000},
		{"fail-every", offsetof(struct faults, fail_every), 1, UINT32_MAX},
		{"hang-after", offsetof(struct faults, hang_after), 0, UINT32_MAX},
		{"hold-fd", offsetof(struct faults, hold_fd), 0, INT32_MAX},
	};
	const char *equals = memchr(text, '=', length);
	size_t name_length = equals ? (size_t)(equals - text) : length;

	for (unsigned i = 0; i < sizeof known / sizeof known[0]; i++) {
		uint64_t value = 0;
		const char *digit = equals ? equals + 1 : text + length;

		if (name_length != strlen(known[i].name) || memcmp(text, known[i].name, name_length))
			continue;
		if (*seen & 1u << i)
			return ty_fail(err, TY_INVALID, "fault: %s is given twice", known[i].name);
		if (digit == text + length)
			return ty_fail(err, TY_INVALID, "fault: %s has no number", known[i].name);
		for (; digit < text + length; digit++) {
			if (*digit < '0' || *digit > '9' || (value = value * 10 + (uint64_t)(*digit - '0')) > known[i].most)
				return ty_fail(err, TY_INVALID, "fault: \"%.*s\", expected a number of %llu..%llu",
					(int)(length > 64 ? 64 : length), text, (unsigned long long)known[i].least,
					(unsigned long long)known[i].most);
		}
		if (value < known[i].least)
			return ty_fail(err, TY_INVALID, "fault: %s must be at least %llu", known[i].name,
				(unsigned long long)known[i].least);
		memcpy((char *)faults + known[i].offset, &value, sizeof value);
		*seen |= 1u << i;
		return TY_OK;
	}
	return ty_fail(err, TY_INVALID, "fault: \"%.*s\", expected delay-us=N, fail-every=N, hang-after=N or hold-fd=N",
		(int)(length > 64 ? 64 : length), text);
}

static enum ty_code parse_faults(struct faults *faults, const char *text, struct ty_error *err)
{
	unsigned seen = 0;
	enum ty_code code = TY_OK;

	faults->hang_after = faults->hold_fd = UINT64_MAX;
	if (!text || !*text)
		return TY_OK;
	while (code == TY_OK) {
		size_t length = strcspn(text, ",");

		code = parse_fault(faults, text, length, &seen, err);
		if (!text[length])
			break;
		text += length + 1;
	}
	return code;
}

static enum ty_code open_hold(struct host_device *dev, struct ty_error *err)
{
	void *at = mmap(NULL, sizeof *dev->hold, PROT_READ, MAP_SHARED, (int)dev->faults.hold_fd, 0);

	if (at == MAP_FAILED)
		return ty_fail(err, TY_INVALID, "fault: hold-fd=%llu: %s", (unsigned long long)dev->faults.hold_fd,
			strerror(errno));
	dev->hold = at;
	return TY_OK;
}

static enum hold held(const struct host_device *dev)
{
	return dev->hold ? (enum hold)atomic_load_explicit(dev->hold, memory_order_relaxed) : HOLD_NOTHING;
}

enum ty_code ty_host_open(const struct ty_device_options *options, struct ty_device_call *call, struct ty_device **out,
	struct ty_error *err)
{
	struct host_device *dev = calloc(1, sizeof *dev);
	enum ty_code code;

	if (!dev)
		return ty_fail(err, TY_NO_MEMORY, "no memory for the host device");
	code = parse_faults(&dev->faults, options->fault, err);
	if (code == TY_OK && dev->faults.hold_fd != UINT64_MAX)
		code = open_hold(dev, err);
	if (code != TY_OK) {
		free(dev);
		return code;
	}
	dev->base.kind = &host_kind;
	dev->base.owner = ty_device_thread();
	dev->base.call = call;
	strcpy(dev->base.info.name, "host");
	strcpy(dev->base.info.model, "host memory");
	*out = &dev->base;
	return TY_OK;
}

/* Batches that hang are dropped: that is what they are for. */
static void host_close(struct ty_device *base)
{
	struct host_device *dev = (struct host_device *)base;

	assert(!dev->queue[0].count && !dev->queue[1].count && !dev->copied[0].count && !dev->copied[1].count);
	if (dev->hold)
		munmap((void *)(uintptr_t)dev->hold, sizeof *dev->hold);
	free(dev);
}

static void host_end_part(struct ty_mapping *part)
{
	free(part);
}

static struct ty_mapping *host_make_part(struct ty_mapping *whole, const struct ty_layout *layout, uint32_t first)
{
	const struct host_mapping *of = (const struct host_mapping *)whole;
	struct host_mapping *m = calloc(1, sizeof *m + layout->plane_count * sizeof m->planes[0]);

	if (!m)
		return NULL;
	m->base.device = whole->device;
	m->base.layout = layout;
	memcpy(m->planes, of->planes + first, layout->plane_count * sizeof m->planes[0]);
	return &m->base;
}

static bool host_unmap(struct ty_device *base, struct ty_mapping *mapping)
{
	struct host_mapping *m = (struct host_mapping *)mapping;

	(void)base;
	ty_mapping_join(mapping, host_end_part);
	for (uint32_t i = 0; i < TY_MAX_REGIONS; i++)
		if (m->memory[i])
			munmap(m->memory[i], m->bytes[i]);
	free(m);
	return true;
}

/* A descriptor from outside: is it memory that keeps its size, and as large as it is said to be? Of huge pages an owner can punch out
 * those that we were promised, and then there may be none to fault in. */
static enum ty_code check_descriptor(const struct ty_region *r, uint32_t index, struct ty_error *err)
{
	struct statfs fs;
	struct stat st;
	int seals;

	if (!r->is_fd || r->segment_count)
		return ty_fail(err, TY_INVALID, "regions[%u]: GPU memory, expected a descriptor: this is the host device", index);
	seals = fcntl(r->fd, F_GET_SEALS);
	if (seals < 0)
		return ty_fail(err, TY_INVALID, "regions[%u]: the descriptor has no seals (%s), expected a memfd", index,
			strerror(errno));
	if (!(seals & F_SEAL_SHRINK))
		return ty_fail(err, TY_INVALID, "regions[%u]: the memfd is not sealed against shrinking (F_SEAL_SHRINK)",
			index);
	if (fstatfs(r->fd, &fs) || fstat(r->fd, &st))
		return ty_fail(err, TY_IO, "regions[%u]: fstat: %s", index, strerror(errno));
	if (fs.f_type == HUGETLBFS_MAGIC)
		return ty_fail(err, TY_UNSUPPORTED, "regions[%u]: a memfd of huge pages (MFD_HUGETLB), expected an ordinary one", index);
	if (st.st_size < 0 || (uint64_t)st.st_size < r->allocation_bytes)
		return ty_fail(err, TY_INVALID, "regions[%u].allocation_bytes: %llu, but the memfd has %lld", index,
			(unsigned long long)r->allocation_bytes, (long long)st.st_size);
	return TY_OK;
}

static enum ty_code check_extent(const struct ty_region *r, uint32_t index, uint64_t length, struct ty_error *err)
{
	if (r->offset > r->allocation_bytes || r->length > r->allocation_bytes - r->offset)
		return ty_fail(err, TY_INVALID, "regions[%u]: offset %llu + length %llu passes allocation_bytes %llu", index,
			(unsigned long long)r->offset, (unsigned long long)r->length,
			(unsigned long long)r->allocation_bytes);
	if (r->length != length)
		return ty_fail(err, TY_INVALID, "regions[%u].length: %llu, but the layout was checked with %llu", index,
			(unsigned long long)r->length, (unsigned long long)length);
	return TY_OK;
}

/* A region's memory as the processor reaches it: this process's already, or mapped now. */
static enum ty_code reach(struct host_mapping *m, const struct ty_layout *layout, const struct ty_region *r, uint32_t i,
	uint64_t *address, struct ty_error *err)
{
	uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE), from = r->offset - r->offset % page;
	enum ty_code code = r->address ? TY_OK : check_descriptor(r, i, err);
	void *memory;

	if (code == TY_OK)
		code = check_extent(r, i, layout->region_length[i], err);
	if (code != TY_OK)
		return code;
	if (r->address) {
		*address = r->address + r->offset;
		return TY_OK;
	}
	m->bytes[i] = r->offset - from + r->length;
	memory = mmap(NULL, m->bytes[i], PROT_READ | PROT_WRITE, MAP_SHARED, r->fd, (off_t)from);
	if (memory == MAP_FAILED)
		return ty_fail(err, errno == ENOMEM ? TY_NO_MEMORY : TY_INVALID,
			"regions[%u]: mmap of %zu bytes for reading and writing: %s", i, m->bytes[i], strerror(errno));
	m->memory[i] = memory;
	*address = (uint64_t)(uintptr_t)memory + (r->offset - from);
	return TY_OK;
}

static enum ty_code host_map(struct ty_device *base, const struct ty_layout *layout, const struct ty_region *regions,
	struct ty_mapping **out, struct ty_error *err)
{
	struct host_mapping *m = calloc(1, sizeof *m + layout->plane_count * sizeof m->planes[0]);
	uint64_t address[TY_MAX_REGIONS];
	enum ty_code code = TY_OK;

	if (!m)
		return ty_fail(err, TY_NO_MEMORY, "no memory for a mapping of %u planes", layout->plane_count);
	m->base.device = base;
	m->base.layout = layout;
	for (uint32_t i = 0; i < layout->region_count && code == TY_OK; i++)
		code = reach(m, layout, &regions[i], i, &address[i], err);
	if (code != TY_OK)
		goto out;
	for (uint32_t i = 0; i < layout->plane_count; i++)
		m->planes[i] = address[layout->planes[i].region] + layout->planes[i].offset;
	code = ty_mapping_split(&m->base, host_make_part, err);
	if (code == TY_OK)
		*out = &m->base;
out:
	if (code != TY_OK)
		(void)host_unmap(base, &m->base);
	return code;
}

/* The processor reaches any memory. */
static enum ty_code host_register(struct ty_device *base, void *memory, size_t bytes, struct ty_error *err)
{
	(void)base, (void)memory, (void)bytes, (void)err;
	return TY_OK;
}

static void host_unregister(struct ty_device *base, void *memory)
{
	(void)base, (void)memory;
}

static uint32_t host_batch_limit(const struct ty_device *base, const struct ty_layout *layout)
{
	uint64_t chunks = BATCH_BYTES / layout->chunk_bytes;

	(void)base;
	return chunks < 1 ? 1 : chunks > TY_BATCH_CHUNKS ? TY_BATCH_CHUNKS : (uint32_t)chunks;
}

/* device_private[1] is when the batch may be done. */
static int64_t due(const struct ty_batch *batch)
{
	return (int64_t)(intptr_t)batch->device_private[1];
}

static enum ty_code host_submit(struct ty_device *base, struct ty_batch *batch)
{
	struct host_device *dev = (struct host_device *)base;
	struct ty_batch_queue *queue = &dev->queue[batch->direction], *copied = &dev->copied[batch->direction];

	if (queue->count + copied->count + dev->hung.count >= QUEUE_MAX)
		return TY_BUSY;
	batch->client_free = false;
	batch->code = TY_OK;
	batch->device_private[1] = (void *)(intptr_t)(ty_device_clock() + (int64_t)dev->faults.delay_us * 1000);
	dev->submitted++;
	if (dev->submitted > dev->faults.hang_after) {
		ty_batch_push(&dev->hung, batch);
	} else if (dev->faults.fail_every && dev->submitted % dev->faults.fail_every == 0) {
		batch->code = TY_DEVICE_FAILED;
		ty_batch_push(copied, batch);
	} else {
		ty_batch_push(queue, batch);
	}
	return TY_OK;
}

/* The job of the blocks from cursor->block on, as many as a job takes. */
static void load_job(struct cursor *at, const struct ty_batch *batch)
{
	const struct host_mapping *m = (const struct host_mapping *)batch->mapping;
	const struct ty_layout_group *g = &m->base.layout->groups[at->group];
	const struct ty_copy *copy = &batch->copies[at->copy];
	uint32_t left = g->blocks_per_chunk - at->block;
	struct ty_gather_job *job = &at->job;

	job->planes = (uint64_t)(uintptr_t)(m->planes + g->first_plane);
	job->tile = (uint64_t)(uintptr_t)copy->host + g->tile_offset +
		(uint64_t)at->block * g->plane_count * g->run_bytes;
	job->block_stride = g->block_stride;
	job->run_units = g->run_bytes / TY_GATHER_UNIT;
	job->plane_count = g->plane_count;
	job->block_limit = g->block_count;
	job->block_count = left < TY_GATHER_BLOCKS ? left : TY_GATHER_BLOCKS;
	memcpy(job->blocks, copy->blocks + g->first_block + at->block, job->block_count * sizeof job->blocks[0]);
	at->unit = 0;
	at->loaded = true;
}

/* Past the job: to the next blocks, group or chunk. False: that was the batch's last. */
static bool advance(struct cursor *at, const struct ty_batch *batch)
{
	const struct ty_layout *layout = batch->mapping->layout;

	at->loaded = false;
	at->block += at->job.block_count;
	if (at->block < layout->groups[at->group].blocks_per_chunk)
		return true;
	at->block = 0;
	if (++at->group < layout->group_count)
		return true;
	at->group = 0;
	if (++at->copy < batch->count)
		return true;
	at->copy = 0;
	return false;
}

/* Copy up to `bytes` for one direction; returns what is left of them. */
static uint64_t copy_some(struct host_device *dev, unsigned direction, uint64_t bytes)
{
	struct ty_batch_queue *queue = &dev->queue[direction];
	struct cursor *at = &dev->cursor[direction];

	while (bytes >= TY_GATHER_UNIT && queue->first) {
		struct ty_batch *batch = queue->first;
		uint64_t units;

		if (!at->loaded)
			load_job(at, batch);
		units = ty_gather_units(&at->job) - at->unit;
		if (units > bytes / TY_GATHER_UNIT)
			units = bytes / TY_GATHER_UNIT;
		if (direction == TY_TO_HOST)
			ty_gather_c(&at->job, at->unit, units);
		else
			ty_scatter_c(&at->job, at->unit, units);
		ty_device_count(&dev->base.stats.copies, 1);
		at->unit += units;
		bytes -= units * TY_GATHER_UNIT;
		if (at->unit == ty_gather_units(&at->job) && !advance(at, batch)) {
			ty_batch_pop(queue);
			batch->client_free = true;
			ty_batch_push(&dev->copied[direction], batch);
		}
	}
	return bytes;
}

static uint32_t host_poll(struct ty_device *base, struct ty_batch **done, uint32_t max)
{
	struct host_device *dev = (struct host_device *)base;
	enum hold hold = held(dev);
	uint32_t count = 0;
	int64_t now;

	if (hold < HOLD_ALL && (dev->queue[0].first || dev->queue[1].first)) {
		int64_t since = ty_call_begin(base, "copy");
		bool both = dev->queue[0].first && dev->queue[1].first;
		uint64_t left = copy_some(dev, dev->turn, both ? SLICE_BYTES / 2 : SLICE_BYTES);

		copy_some(dev, !dev->turn, both ? SLICE_BYTES / 2 : left);
		dev->turn = !dev->turn;
		ty_call_end(base, 0, "copy", since);
	}
	now = ty_device_clock();
	for (unsigned i = 0; i < 2 && hold == HOLD_NOTHING; i++) {
		struct ty_batch_queue *copied = &dev->copied[i];

		while (count < max && copied->first && due(copied->first) <= now) {
			done[count] = ty_batch_pop(copied);
			done[count++]->client_free = true;
		}
	}
	return count;
}

static const struct ty_device_kind host_kind = {
	.close = host_close,
	.map = host_map,
	.unmap = host_unmap,
	.register_host = host_register,
	.unregister_host = host_unregister,
	.submit = host_submit,
	.batch_limit = host_batch_limit,
	.poll = host_poll,
};
