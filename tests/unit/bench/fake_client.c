/* SPDX-License-Identifier: Apache-2.0 */
#include "fake_client.h"

#include <assert.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <tyer/client.h>

#define CHUNKS_MAX 4096
#define SESSIONS_MAX 64
#define REQUESTS_MAX 64

struct fake fake = {.chunk_tokens = 512, .max_operation_chunks = 4096};

struct chunk {
	uint8_t hash[TY_KEY_BYTES], *bytes;
};

struct session {
	uint64_t id;
	uint8_t *hashes;
	size_t chunks;
	uint32_t leased;
};

enum verb { PING, LOOKUP, RETRIEVE, STORE, END, REGISTER, UNREGISTER, FLUSH };

struct request {
	enum verb verb;
	ty_done_fn done;
	void *user;
	struct ty_transfer t;
	uint32_t *blocks, block_count;
	uint64_t session;
	uint8_t *hashes;
	size_t chunks;
};

struct ty_client {
	struct ty_client_info info;
	struct ty_device_info device;
	_Atomic uint64_t timeline[TY_TIMELINE_WORDS];
	uint8_t *pool, *in_use; /* block by block: a copy may still touch it */
	struct ty_group group;
	struct ty_plane planes[1024];
	uint64_t pool_bytes, chunk_bytes;
	uint32_t per_chunk;
	struct session sessions[SESSIONS_MAX];
	struct request requests[REQUESTS_MAX];
	uint32_t count;
};

static struct chunk chunks[CHUNKS_MAX];
static uint32_t chunk_count, served, candidates, lookups, ends;

/* Is this one to be served badly? */
static bool faulty(enum fake_fault fault)
{
	if (fake.fault != fault || candidates++ < fake.fault_after)
		return false;
	return fake.fault_always || candidates == fake.fault_after + 1;
}

enum ty_code ty_client_open(const struct ty_client_options *options, struct ty_client **out, struct ty_error *err)
{
	struct ty_client *c;

	assert(options->size == sizeof *options && (!options->attach_path || (options->model && options->dtype)));
	if (fake.refuse)
		return ty_fail(err, TY_CLOSED, "nobody listens");
	c = calloc(1, sizeof *c);
	assert(c);
	strcpy(c->device.name, "host");
	c->info = (struct ty_client_info){
		.boot = 1,
		.client = 1,
		.chunk_tokens = fake.chunk_tokens,
		.max_operation_chunks = fake.max_operation_chunks,
		.max_operations = 64,
		.max_chunk_bytes = 64 << 20,
		.device_count = 1,
		.devices = &c->device,
	};
	*out = c;
	return TY_OK;
}

static void drop_request(struct request *r)
{
	free(r->blocks);
	free(r->hashes);
}

void ty_client_close(struct ty_client *c)
{
	if (!c)
		return;
	while (c->count) {
		struct request r = c->requests[--c->count];
		struct ty_result result = {.code = TY_CANCELLED, .error = "closed"};

		r.done(r.user, &result);
		drop_request(&r);
	}
	for (unsigned i = 0; i < SESSIONS_MAX; i++)
		free(c->sessions[i].hashes);
	if (c->pool)
		munmap(c->pool, c->pool_bytes);
	free(c->in_use);
	free(c);
}

const struct ty_client_info *ty_client_info(const struct ty_client *c)
{
	return &c->info;
}

int ty_client_fd(const struct ty_client *c)
{
	(void)c;
	return -1;
}

void ty_client_raise(struct ty_client *c, struct ty_mark mark)
{
	assert(c->timeline[mark.word] < mark.value);
	c->timeline[mark.word] = mark.value;
}

bool ty_client_reached(const struct ty_client *c, struct ty_mark mark)
{
	return c->timeline[mark.word] >= mark.value;
}

static void *copy_of(const void *bytes, size_t size)
{
	void *copy = malloc(size ? size : 1);

	assert(copy);
	if (size)
		memcpy(copy, bytes, size);
	return copy;
}

static enum ty_code add(struct ty_client *c, struct request r)
{
	assert(c->count < REQUESTS_MAX);
	c->requests[c->count++] = r;
	return TY_OK;
}

enum ty_code ty_client_ping(struct ty_client *c, ty_done_fn done, void *user, struct ty_error *err)
{
	(void)err;
	if (fake.interrupt_at && --fake.interrupt_at == 0)
		raise(SIGINT);
	return add(c, (struct request){.verb = PING, .done = done, .user = user});
}

enum ty_code ty_client_register(struct ty_client *c, const struct ty_pool *pool, ty_done_fn done, void *user,
	struct ty_error *err)
{
	const struct ty_group *g = &pool->groups[0];

	(void)err;
	assert(pool->region_count == 1 && pool->group_count == 1 && pool->regions[0].is_fd && g->plane_count <= 1024);
	c->pool_bytes = pool->regions[0].length;
	c->pool = mmap(NULL, c->pool_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, pool->regions[0].fd, 0);
	assert(c->pool != MAP_FAILED);
	c->group = *g;
	memcpy(c->planes, g->planes, g->plane_count * sizeof *g->planes);
	c->in_use = calloc(g->block_count, 1);
	assert(c->in_use);
	c->per_chunk = fake.chunk_tokens / g->block_tokens;
	c->chunk_bytes = (uint64_t)c->per_chunk * g->plane_count * g->run_bytes;
	/* as the service would check it */
	for (uint32_t p = 0; p < g->plane_count; p++)
		assert(c->planes[p].offset + (g->block_count - 1) * g->block_stride + g->run_bytes <= c->pool_bytes);
	return add(c, (struct request){.verb = REGISTER, .done = done, .user = user});
}

enum ty_code ty_client_unregister(struct ty_client *c, uint32_t registration, ty_done_fn done, void *user,
	struct ty_error *err)
{
	(void)err;
	assert(registration == 7);
	return add(c, (struct request){.verb = UNREGISTER, .done = done, .user = user});
}

enum ty_code ty_client_lookup_with(struct ty_client *c, const struct ty_lookup *lookup, ty_done_fn done, void *user,
	struct ty_error *err)
{
	const struct ty_chain *chain = lookup->chain;
	uint64_t session = lookup->session;

	(void)err;
	assert(session && chain->hashes && chain->chunk_count);
	assert(lookup->conversation == (fake.said ? fake.said[lookups].conversation : 0));
	lookups++;
	return add(c, (struct request){.verb = LOOKUP, .done = done, .user = user, .session = session,
				      .hashes = copy_of(chain->hashes, chain->chunk_count * TY_KEY_BYTES),
				      .chunks = chain->chunk_count});
}

enum ty_code ty_client_lookup(struct ty_client *c, uint64_t session, const struct ty_chain *chain, ty_done_fn done,
	void *user, struct ty_error *err)
{
	const struct ty_lookup lookup = {.session = session, .chain = chain};

	return ty_client_lookup_with(c, &lookup, done, user, err);
}

static enum ty_code add_transfer(struct ty_client *c, enum verb verb, const struct ty_transfer *t, ty_done_fn done,
	void *user)
{
	assert(t->registration == 7 && t->count >= 1 && t->count <= fake.max_operation_chunks && t->group_count == 1);
	assert(t->block_counts[0] == t->count * c->per_chunk);
	for (uint32_t i = 0; i < t->block_counts[0]; i++) {
		assert(t->blocks[0][i] < c->group.block_count && !c->in_use[t->blocks[0][i]]);
		for (uint32_t k = 0; k < i; k++)
			assert(t->blocks[0][i] != t->blocks[0][k]);
	}
	return add(c, (struct request){.verb = verb, .done = done, .user = user, .t = *t, .session = t->session,
				      .blocks = copy_of(t->blocks[0], t->block_counts[0] * sizeof(uint32_t)),
				      .block_count = t->block_counts[0]});
}

enum ty_code ty_client_retrieve(struct ty_client *c, const struct ty_transfer *t, ty_done_fn done, void *user,
	struct ty_error *err)
{
	(void)err;
	return add_transfer(c, RETRIEVE, t, done, user);
}

enum ty_code ty_client_store(struct ty_client *c, const struct ty_transfer *t, ty_done_fn done, void *user,
	struct ty_error *err)
{
	(void)err;
	return add_transfer(c, STORE, t, done, user);
}

enum ty_code ty_client_flush(struct ty_client *c, uint32_t registration, const uint32_t *const *blocks, const uint32_t *block_counts,
	uint32_t group_count, ty_done_fn done, void *user, struct ty_error *err)
{
	(void)err;
	assert(registration == 7 && group_count == 1);
	return add(c, (struct request){.verb = FLUSH, .done = done, .user = user, .block_count = block_counts[0],
				      .blocks = copy_of(blocks[0], block_counts[0] * sizeof(uint32_t))});
}

enum ty_code ty_client_end_session_as(struct ty_client *c, uint64_t session, const struct ty_hint_said *hint, ty_done_fn done,
	void *user, struct ty_error *err)
{
	(void)err;
	assert((hint ? hint->kind : TY_HINT_NONE) == (fake.said ? fake.said[ends].hint : TY_HINT_NONE));
	ends++;
	return add(c, (struct request){.verb = END, .done = done, .user = user, .session = session});
}

enum ty_code ty_client_end_session(struct ty_client *c, uint64_t session, ty_done_fn done, void *user,
	struct ty_error *err)
{
	return ty_client_end_session_as(c, session, NULL, done, user, err);
}

/* ---- serving ------------------------------------------------------------------------------- */

static struct chunk *find_chunk(const uint8_t *hash)
{
	for (uint32_t i = 0; i < chunk_count; i++)
		if (memcmp(chunks[i].hash, hash, TY_KEY_BYTES) == 0)
			return &chunks[i];
	return NULL;
}

static struct session *session_of(struct ty_client *c, uint64_t id)
{
	for (unsigned i = 0; i < SESSIONS_MAX; i++)
		if (c->sessions[i].id == id)
			return &c->sessions[i];
	return NULL;
}

static void move_chunk(struct ty_client *c, const uint32_t *blocks, uint8_t *slot, bool to_pool)
{
	for (uint32_t b = 0; b < c->per_chunk; b++) {
		for (uint32_t p = 0; p < c->group.plane_count; p++) {
			uint8_t *run = c->pool + c->planes[p].offset + blocks[b] * c->group.block_stride;

			memcpy(to_pool ? run : slot, to_pool ? slot : run, c->group.run_bytes);
			slot += c->group.run_bytes;
		}
	}
}

static void serve_lookup(struct ty_client *c, struct request *r, struct ty_result *result)
{
	struct session *s = session_of(c, r->session);

	if (!s)
		s = session_of(c, 0);
	assert(s);
	free(s->hashes);
	*s = (struct session){.id = r->session, .hashes = r->hashes, .chunks = r->chunks};
	r->hashes = NULL;
	while (s->leased < s->chunks && find_chunk(s->hashes + s->leased * TY_KEY_BYTES))
		s->leased++;
	if (s->leased > fake.remembered && faulty(FAKE_FORGET))
		s->leased = fake.remembered;
	result->lookup.chunks = (uint32_t)s->chunks;
	result->lookup.hits = s->leased;
}

static void serve_retrieve(struct ty_client *c, struct request *r, struct ty_result *result)
{
	struct session *s = session_of(c, r->session);
	bool swap = r->t.count > 1 && faulty(FAKE_SWAP_CHUNKS), failed = faulty(FAKE_DEVICE_FAILED);

	assert(s && r->t.first + r->t.count <= s->leased);
	if (failed || faulty(FAKE_STALLED)) {
		result->code = failed ? TY_DEVICE_FAILED : TY_DEVICE_STALLED;
		result->error = "as told";
		result->blocks_in_use = fake.in_use;
		for (uint32_t i = 0; i < r->block_count; i++)
			c->in_use[r->blocks[i]] = fake.in_use;
		return;
	}
	for (uint32_t i = 0; i < r->t.count; i++) {
		uint32_t from = r->t.first + (swap && i < 2 ? 1 - i : i), *blocks = r->blocks + i * c->per_chunk;
		struct chunk *chunk = find_chunk(s->hashes + (size_t)from * TY_KEY_BYTES);
		uint8_t *bytes = copy_of(chunk->bytes, c->chunk_bytes);

		if (faulty(FAKE_FLIP_BIT))
			bytes[c->chunk_bytes / 2 + 3] ^= 0x10;
		if (faulty(FAKE_SWAP_BLOCKS)) {
			uint32_t keep = blocks[0];

			blocks[0] = blocks[1];
			blocks[1] = keep;
		}
		if (faulty(FAKE_NOT_WRITTEN))
			c->per_chunk--, move_chunk(c, blocks, bytes, true), c->per_chunk++;
		else
			move_chunk(c, blocks, bytes, true);
		free(bytes);
	}
	result->retrieve.chunks = r->t.count;
	if (!faulty(FAKE_NO_DONE_MARK))
		c->timeline[r->t.done.word] = r->t.done.word ? r->t.done.value : 0;
}

static void serve_store(struct ty_client *c, struct request *r, struct ty_result *result)
{
	struct session *s = session_of(c, r->session);

	assert(s && r->t.first + r->t.count <= s->chunks);
	for (uint32_t i = 0; i < r->t.count; i++) {
		const uint8_t *hash = s->hashes + (r->t.first + i) * (size_t)TY_KEY_BYTES;

		if (find_chunk(hash)) {
			result->store.present++;
		} else if (chunk_count == CHUNKS_MAX || (fake.capacity && chunk_count == fake.capacity)) {
			result->store.dropped++;
		} else {
			struct chunk *chunk = &chunks[chunk_count++];

			memcpy(chunk->hash, hash, TY_KEY_BYTES);
			chunk->bytes = malloc(c->chunk_bytes);
			assert(chunk->bytes);
			move_chunk(c, r->blocks + i * c->per_chunk, chunk->bytes, false);
			result->store.stored++;
		}
	}
	if (result->store.stored + result->store.present == 0) {
		result->code = TY_NO_SPACE;
		result->error = "full";
	}
	if (faulty(FAKE_WRONG_COUNT))
		result->store.stored++;
	c->timeline[r->t.done.word] = r->t.done.word ? r->t.done.value : 0;
}

static void serve_flush(struct ty_client *c, struct request *r, struct ty_result *result)
{
	if (fake.flushes) {
		fake.flushes -= fake.flushes != UINT32_MAX;
		result->code = TY_TIMEOUT;
		result->error = "blocks are in use";
		return;
	}
	for (uint32_t i = 0; i < r->block_count; i++)
		c->in_use[r->blocks[i]] = false;
}

static void serve(struct ty_client *c, struct request *r)
{
	struct ty_result result = {.code = TY_OK, .error = "", .boot = 1};
	bool load = r->verb == LOOKUP || r->verb == RETRIEVE || r->verb == STORE;

	if (load && fake.busy_every && ++served % fake.busy_every == 0) {
		result.code = TY_BUSY;
	} else if (r->verb == REGISTER) {
		result.registered.registration = 7;
		result.registered.chunk_bytes = c->chunk_bytes;
	} else if (r->verb == LOOKUP) {
		if (faulty(FAKE_LOSE_REPLY))
			goto out;
		serve_lookup(c, r, &result);
		if (faulty(FAKE_DOUBLE_REPLY))
			r->done(r->user, &result);
	} else if (r->verb == RETRIEVE) {
		serve_retrieve(c, r, &result);
	} else if (r->verb == STORE) {
		serve_store(c, r, &result);
	} else if (r->verb == FLUSH) {
		serve_flush(c, r, &result);
	} else if (r->verb == END) {
		struct session *s = session_of(c, r->session);

		assert(s);
		free(s->hashes);
		*s = (struct session){0};
	}
	r->done(r->user, &result);
out:
	drop_request(r);
}

static bool may_run(const struct ty_client *c, const struct request *r)
{
	return r->verb != STORE || !r->t.ready.word || fake.fault == FAKE_IGNORE_READY || ty_client_reached(c, r->t.ready);
}

/* Newest first: replies come in another order than the requests. */
uint32_t ty_client_poll(struct ty_client *c, uint32_t max, uint32_t timeout_us)
{
	uint32_t before = c->count, done = 0;

	(void)max;
	for (uint32_t i = before; i-- > 0;) {
		struct request r = c->requests[i];

		if (!may_run(c, &r))
			continue;
		memmove(&c->requests[i], &c->requests[i + 1], (c->count - i - 1) * sizeof r);
		c->count--;
		serve(c, &r);
		done++;
	}
	if (!done && timeout_us) {
		struct timespec wait = {.tv_nsec = timeout_us < 1000 ? timeout_us * 1000l : 1000000l};

		nanosleep(&wait, NULL);
	}
	return done;
}
