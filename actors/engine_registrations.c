/* SPDX-License-Identifier: Apache-2.0
 *
 * REGISTER and UNREGISTER: a client's pool is checked here, mapped and unmapped by the device's owner.
 */
#include "engine_state.h"

#include <assert.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "wire/attach.h"
#include "wire/pool.h"

struct registration *engine_find_registration(struct engine *e, const struct peer *peer, uint32_t id)
{
	for (struct registration *r = e->registrations; r; r = r->next)
		if (r->id == id && r->peer == peer)
			return r;
	return NULL;
}

/* The one of a REGISTER with this id, whatever has become of it since. */
static struct registration *find_registering(struct engine *e, const struct peer *peer, uint64_t request)
{
	for (struct registration *r = e->registrations; r; r = r->next)
		if (r->request == request && r->peer == peer)
			return r;
	return NULL;
}

static void close_descriptors(struct registration *r)
{
	int *descriptors[TY_ATTACH_DESCRIPTORS];
	uint32_t count = r->taken ? ty_pool_descriptors(r->pool, descriptors) : 0;

	for (uint32_t i = 0; i < count; i++) {
		if (*descriptors[i] >= 0)
			close(*descriptors[i]);
		*descriptors[i] = -1;
	}
}

static void free_registration(struct engine *e, struct registration *r)
{
	struct registration **link = &e->registrations;

	while (*link && *link != r)
		link = &(*link)->next;
	if (*link) {
		*link = r->next;
		e->registration_count--;
		r->peer->uses--;
	}
	e->pool_bytes -= r->bytes;
	ty_share_give(&e->service->pool_bytes, r->bytes);
	close_descriptors(r);
	ty_pool_free(r->pool);
	free(r->layout);
	free(r);
}

#define UUID_TEXT 41

/* As nvidia-smi prints it. */
static void print_uuid(const uint8_t u[TY_UUID_BYTES], char out[UUID_TEXT])
{
	snprintf(out, UUID_TEXT, "GPU-%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", u[0], u[1], u[2], u[3], u[4],
		u[5], u[6], u[7], u[8], u[9], u[10], u[11], u[12], u[13], u[14], u[15]);
}

static const char *why_failed(const struct ty_gpu_stats *stats)
{
	return stats->fault[0] ? stats->fault : stats->note;
}

static enum ty_code find_device(const struct engine *e, const uint8_t uuid[TY_UUID_BYTES], uint32_t *device, struct ty_error *err)
{
	char asked[UUID_TEXT], one[UUID_TEXT], have[200] = "";
	const struct ty_gpu_stats *failed = NULL;
	size_t at = 0;

	for (uint32_t i = 0; i < e->service->gpu_count; i++) {
		struct ty_gpu_stats *stats = &e->service->gpu_stats[i];

		/* acquire: info before state; pairs with the owner's release */
		int state = atomic_load_explicit(&stats->state, memory_order_acquire);

		if (state == TY_GPU_STARTING || memcmp(stats->info.uuid, uuid, TY_UUID_BYTES) != 0)
			continue;
		/* one that never opened has the host device's: none */
		if (state == TY_GPU_FAILED) {
			failed = stats;
			continue;
		}
		*device = i;
		return TY_OK;
	}
	if (failed)
		return ty_fail(err, TY_DEVICE_FAILED, "device: %s has failed: %s", failed->info.name, why_failed(failed));
	print_uuid(uuid, asked);
	for (uint32_t i = 0; i < e->service->gpu_count && at < sizeof have; i++) {
		const struct ty_gpu_stats *stats = &e->service->gpu_stats[i];
		const char *between = i ? ", " : "", *name = e->service->config->device[i];
		int state = atomic_load_explicit(&stats->state, memory_order_acquire); /* as above */

		if (state == TY_GPU_STARTING) {
			at += (size_t)snprintf(have + at, sizeof have - at, "%s%.32s, which is not open yet", between, name);
		} else if (state == TY_GPU_FAILED) {
			at += (size_t)snprintf(have + at, sizeof have - at, "%s%.32s, which failed (%s)", between, name, why_failed(stats));
		} else {
			print_uuid(stats->info.uuid, one);
			at += (size_t)snprintf(have + at, sizeof have - at, "%s%s %s", between, stats->info.name, one);
		}
	}
	return ty_fail(err, TY_NO_DEVICE, "device: %s is none of this service's: %s", asked, have);
}

/* The descriptors that the client sent over its attach connection, by their numbers. */
static enum ty_code take_descriptors(struct registration *r, struct ty_error *err)
{
	struct ty_descriptor_box *box = r->peer->member->descriptors;
	int *descriptors[TY_ATTACH_DESCRIPTORS], numbers[TY_ATTACH_DESCRIPTORS];
	uint32_t count = ty_pool_descriptors(r->pool, descriptors);
	struct stat st;

	for (uint32_t i = 0; i < count; i++) {
		numbers[i] = *descriptors[i];
		*descriptors[i] = -1; /* until it is ours: cleanup closes what was taken */
	}
	r->taken = true;
	for (uint32_t i = 0; i < count; i++) {
		assert(numbers[i] >= 0 && numbers[i] < TY_CLIENT_FDS);
		/* acquire: pairs with the release of clients, which put it there */
		int taken = atomic_exchange_explicit(&box->place[numbers[i]], 0, memory_order_acquire);

		if (!taken)
			return ty_fail(err, TY_INVALID, "regions: no descriptor with number %d was sent (attached_fd)", numbers[i]);
		*descriptors[i] = taken - 1;
	}
	/* A memfd is known by its inode; a driver's descriptors all have one. */
	if (count && fcntl(*descriptors[0], F_GET_SEALS) >= 0 && fstat(*descriptors[0], &st) == 0) {
		r->identity[0] = st.st_dev;
		r->identity[1] = st.st_ino;
	}
	return TY_OK;
}

static void drop_descriptor(struct ty_descriptor_box *box, uint32_t number)
{
	/* acquire: as where they are taken */
	int taken = number < TY_CLIENT_FDS ? atomic_exchange_explicit(&box->place[number], 0, memory_order_acquire) : 0;

	if (taken)
		close(taken - 1);
}

/* A REGISTER that is refused, before it took all of its descriptors maybe: they were sent for it, and keep the client's memory. However many
 * it names, there are places for TY_CLIENT_FDS. */
static void drop_descriptors(const struct peer *peer, const Tyer__V1__Register *request)
{
	struct ty_descriptor_box *box = peer->member->descriptors;
	uint32_t left = TY_CLIENT_FDS;

	for (size_t i = 0; i < request->n_regions; i++) {
		const Tyer__V1__Region *region = request->regions[i];
		const Tyer__V1__Segments *segments = region->memory_case == TYER__V1__REGION__MEMORY_SEGMENTS ? region->segments : NULL;

		if (region->memory_case == TYER__V1__REGION__MEMORY_ATTACHED_FD && left) {
			drop_descriptor(box, region->attached_fd);
			left--;
		}
		for (size_t j = 0; segments && j < segments->n_segments && left; j++, left--)
			drop_descriptor(box, segments->segments[j]->attached_fd);
	}
}

/* Do they begin with the same memory, for all that can be told? */
static bool same_memory(const struct registration *a, const struct registration *b)
{
	const struct ty_region *x = &a->map.regions[0], *y = &b->map.regions[0];
	bool x_fd = x->is_fd || x->segment_count, y_fd = y->is_fd || y->segment_count;

	if (a->device == TY_EMBEDDED_DEVICE)
		return a->pool->memory == b->pool->memory && memcmp(a->pool->owner, b->pool->owner, TY_OWNER_BYTES) == 0;
	if (x_fd != y_fd || x->offset != y->offset)
		return false;
	return x_fd ? a->identity[1] && memcmp(a->identity, b->identity, sizeof a->identity) == 0
		    : memcmp(x->ipc_handle, y->ipc_handle, TY_IPC_HANDLE_BYTES) == 0;
}

static enum ty_code check_duplicate(const struct engine *e, const struct registration *r, struct ty_error *err)
{
	for (const struct registration *o = e->registrations; o; o = o->next)
		if (o->peer == r->peer && o->device == r->device && o->state <= REG_READY && same_memory(o, r))
			return ty_fail(err, TY_EXISTS, "regions[0]: registered already, as registration %u; UNREGISTER it first", o->id);
	return TY_OK;
}

/* All pools that the engine has, and those that are being registered, have one layout. REGISTERs that fail bind nobody, and nor does what
 * UNREGISTER has taken away: an engine may come back with another layout. */
static enum ty_code check_fingerprint(const struct engine *e, const struct registration *r, struct ty_error *err)
{
	for (const struct registration *o = e->registrations; o; o = o->next)
		if (o->state <= REG_READY && memcmp(o->layout->fingerprint, r->layout->fingerprint, TY_KEY_BYTES) != 0)
			return ty_fail(err, TY_INVALID,
				"groups: another layout than of a pool that this engine %s; all pools of an engine share their "
				"groups' block_tokens, run_bytes, plane counts, parts and format",
				o->state == REG_READY ? "has registered" : "is registering");
	return TY_OK;
}

/* Sessions are of the layout before: their keys are other ones, and what they lease has another shape. */
static void bind_layout(struct engine *e, const struct registration *r)
{
	if (e->has_fingerprint && memcmp(e->fingerprint, r->layout->fingerprint, TY_KEY_BYTES) != 0)
		engine_drop_sessions(e, NULL);
	e->has_fingerprint = true;
	memcpy(e->fingerprint, r->layout->fingerprint, TY_KEY_BYTES);
	e->parts = r->layout->parts;
	e->part_bytes = r->layout->chunk_bytes;
}

/* Of a GPU's pieces all are mapped, of other memory the region. */
static uint64_t space_of(const struct engine *e, uint32_t device, const struct ty_region *r)
{
	return (r->is_fd || r->segment_count) && e->service->registrars >> device & 1 ? r->allocation_bytes : r->length;
}

/* What is mapped for it takes address space, as much as it says, whether there is memory behind it or not. */
static enum ty_code take_space(struct engine *e, struct registration *r, struct ty_error *err)
{
	struct ty_share *share = &e->service->pool_bytes;
	uint64_t bytes = 0;

	for (uint32_t i = 0; i < r->pool->region_count; i++)
		if (__builtin_add_overflow(bytes, space_of(e, r->device, &r->pool->regions[i]), &bytes))
			bytes = UINT64_MAX;
	if (!ty_share_take(share, e->pool_bytes, bytes))
		return ty_fail(err, TY_LIMIT, "regions: %llu bytes; %llu of at most %llu are in the pools of all engines, %llu of them in this one's",
			(unsigned long long)bytes, (unsigned long long)atomic_load_explicit(&share->used, memory_order_relaxed),
			(unsigned long long)atomic_load_explicit(&share->all, memory_order_relaxed), (unsigned long long)e->pool_bytes);
	e->pool_bytes += bytes;
	r->bytes = bytes;
	return TY_OK;
}

static enum ty_code prepare(struct engine *e, struct registration *r, const Tyer__V1__Register *request, struct ty_error *err)
{
	const struct ty_config *config = e->service->config;
	enum ty_code code = ty_pool_from_register(request, &r->pool, err);

	if (code != TY_OK)
		return code;
	r->map.pool = r->pool;
	r->map.pid = r->peer->member->slot->pid;
	r->map.regions = r->pool->regions;
	r->map.region_count = r->pool->region_count;
	if (ty_pool_has_owner(r->pool))
		r->device = TY_EMBEDDED_DEVICE;
	else
		code = find_device(e, r->pool->device, &r->device, err);
	if (code == TY_OK)
		code = ty_layout_create(r->pool, config->chunk_tokens, TY_PIECE_BYTES, &r->layout, err);
	if (code == TY_OK)
		code = check_fingerprint(e, r, err);
	if (code == TY_OK && r->device != TY_EMBEDDED_DEVICE)
		code = take_space(e, r, err);
	if (code == TY_OK)
		code = take_descriptors(r, err);
	return code == TY_OK ? check_duplicate(e, r, err) : code;
}

/* Nothing stays of it. */
static void refuse_register(const struct peer *peer, struct ty_exchange *x, const struct ty_error *err)
{
	drop_descriptors(peer, x->request->register_);
	ty_exchange_refuse(x, err->code, "%s", err->text);
}

void engine_register(struct engine *e, struct peer *peer, struct ty_exchange *x)
{
	const struct ty_config *config = e->service->config;
	struct registration *r;
	struct ty_error err;

	if (e->registration_count >= config->max_registrations) {
		(void)ty_fail(&err, TY_LIMIT, "max-registrations: this engine has %u already", e->registration_count);
		refuse_register(peer, x, &err);
		return;
	}
	r = calloc(1, sizeof *r);
	if (!r) {
		(void)ty_fail(&err, TY_NO_MEMORY, "no memory for a registration");
		refuse_register(peer, x, &err);
		return;
	}
	r->peer = peer;
	if (prepare(e, r, x->request->register_, &err) != TY_OK) {
		refuse_register(peer, x, &err);
		free_registration(e, r);
		return;
	}
	r->id = ++e->last_registration;
	r->request = x->request->id;
	r->state = REG_MAPPING;
	r->exchange = x;
	r->map.home = ty_self();
	r->map.home_type = TY_ENGINE_MAPPED;
	r->map.registration = r->id;
	r->map.layout = r->layout;
	r->next = e->registrations;
	e->registrations = r;
	e->registration_count++;
	peer->uses++;
	engine_watch(e);
	r->away = true;
	enum ty_code sent = ty_send(e->service->gpu[r->device], &r->map.msg, TY_GPU_MAP);
	assert(sent == TY_OK); /* owners outlive engines */
}

void engine_mapped(struct engine *e, struct registration *r)
{
	struct ty_exchange *x = r->exchange;

	r->away = false;
	close_descriptors(r);
	if (r->map.code != TY_OK) {
		if (x && r->state == REG_MAPPING)
			ty_exchange_refuse(x, r->map.code, "%s", r->map.error.text);
		else if (x) /* UNREGISTER: there is nothing */
			ty_exchange_answer(x);
		free_registration(e, r);
		return;
	}
	if (r->state == REG_CLOSING) { /* its client left, or gave it up, or its deadline passed */
		engine_close_registration(e, r);
		return;
	}
	bind_layout(e, r);
	r->state = REG_READY;
	r->exchange = NULL;
	x->reply.registered.registration = r->id;
	x->reply.registered.device = r->device;
	x->reply.registered.chunk_bytes = r->layout->chunk_bytes;
	memcpy(x->reply.registered.fingerprint, r->layout->fingerprint, TY_KEY_BYTES);
	ty_exchange_answer(x);
}

void engine_close_registration(struct engine *e, struct registration *r)
{
	(void)e;
	if (r->state == REG_UNMAPPING)
		return;
	r->state = REG_CLOSING;
	if (r->flights || r->away) /* the last flight, or engine_mapped, comes back here */
		return;
	r->state = REG_UNMAPPING;
	r->away = true;
	r->map.home_type = TY_ENGINE_UNMAPPED;
	enum ty_code sent = ty_send(e->service->gpu[r->device], &r->map.msg, TY_GPU_UNMAP);
	assert(sent == TY_OK);
}

void engine_unmapped(struct engine *e, struct registration *r)
{
	if (r->exchange)
		ty_exchange_answer(r->exchange);
	free_registration(e, r);
}

void engine_unregister(struct engine *e, struct peer *peer, struct ty_exchange *x)
{
	const Tyer__V1__Unregister *q = x->request->unregister;
	bool by_request = q->request != 0;
	struct registration *r = by_request ? find_registering(e, peer, q->request) : engine_find_registration(e, peer, q->registration);

	if (by_request && q->registration) {
		ty_exchange_refuse(x, TY_INVALID, "registration, request: both are there; expected one of them");
		return;
	}
	if (by_request && !r) {
		ty_exchange_refuse(x, TY_UNKNOWN_REGISTRATION, "request: this client has no registration by a REGISTER with id %llu",
			(unsigned long long)q->request);
		return;
	}
	if (!r || (!by_request && r->state != REG_READY)) {
		ty_exchange_refuse(x, TY_UNKNOWN_REGISTRATION, "registration: this client has none with number %u", q->registration);
		return;
	}
	if (r->exchange && r->state != REG_MAPPING) {
		ty_exchange_refuse(x, TY_UNKNOWN_REGISTRATION, "request: an UNREGISTER of registration %u is under way", r->id);
		return;
	}
	if (r->exchange)
		ty_exchange_refuse(r->exchange, TY_CANCELLED, "its client gave it up");
	r->exchange = x;
	engine_watch(e);
	engine_close_registration(e, r);
}
