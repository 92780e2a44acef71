/* SPDX-License-Identifier: Apache-2.0
 *
 * REGISTER and UNREGISTER: a client's pool is checked here, mapped and unmapped by the device's owner.
 */
#include "engine_state.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "wire/pool.h"

struct registration *engine_find_registration(struct engine *e, const struct peer *peer, uint32_t id)
{
	for (struct registration *r = e->registrations; r; r = r->next)
		if (r->id == id && r->peer == peer)
			return r;
	return NULL;
}

static void close_descriptors(struct registration *r)
{
	for (uint32_t i = 0; i < r->map.region_count; i++) {
		if (r->map.regions[i].is_fd && r->map.regions[i].fd >= 0) {
			close(r->map.regions[i].fd);
			r->map.regions[i].fd = -1;
		}
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
	close_descriptors(r);
	free(r->map.regions);
	free(r->identities);
	free(r->layout);
	free(r);
}

static enum ty_code find_device(const struct engine *e, const uint8_t uuid[TY_UUID_BYTES], uint32_t *device, struct ty_error *err)
{
	for (uint32_t i = 0; i < e->service->gpu_count; i++) {
		struct ty_gpu_stats *stats = &e->service->gpu_stats[i];

		/* acquire: info before state; pairs with the owner's release */
		int state = atomic_load_explicit(&stats->state, memory_order_acquire);

		if (state == TY_GPU_STARTING || memcmp(stats->info.uuid, uuid, TY_UUID_BYTES) != 0)
			continue;
		if (state == TY_GPU_FAILED)
			return ty_fail(err, TY_DEVICE_FAILED, "device: %s has failed: %s", stats->info.name, stats->note);
		*device = i;
		return TY_OK;
	}
	return ty_fail(err, TY_INVALID, "device: no device of this service has that UUID; HELLO's reply lists them");
}

/* The descriptors that the client sent over its attach connection, by their numbers. */
static enum ty_code take_descriptors(struct registration *r, struct ty_error *err)
{
	struct ty_descriptor_box *box = r->peer->member->descriptors;

	for (uint32_t i = 0; i < r->map.region_count; i++) {
		struct ty_region *region = &r->map.regions[i];
		int number = region->fd;
		struct stat st;

		if (!region->is_fd)
			continue;
		region->fd = -1; /* until it is ours: cleanup closes what was taken */
		assert(number >= 0 && number < TY_CLIENT_FDS);
		/* acquire: pairs with the release of clients, which put it there */
		int taken = atomic_exchange_explicit(&box->place[number], 0, memory_order_acquire);

		if (!taken) {
			/* So that close_descriptors does not take later regions' numbers for descriptors. */
			for (uint32_t k = i + 1; k < r->map.region_count; k++)
				if (r->map.regions[k].is_fd)
					r->map.regions[k].fd = -1;
			return ty_fail(err, TY_INVALID, "regions[%u].attached_fd: no descriptor with number %d was sent", i, number);
		}
		region->fd = taken - 1;
		if (fstat(region->fd, &st) == 0) {
			r->identities[i][0] = st.st_dev;
			r->identities[i][1] = st.st_ino;
		}
	}
	return TY_OK;
}

static bool same_region(const struct registration *a, const struct registration *b, uint32_t i)
{
	const struct ty_region *x = &a->map.regions[i], *y = &b->map.regions[i];

	if (x->is_fd != y->is_fd || x->offset != y->offset)
		return false;
	return x->is_fd ? memcmp(a->identities[i], b->identities[i], sizeof a->identities[i]) == 0
			: memcmp(x->ipc_handle, y->ipc_handle, TY_IPC_HANDLE_BYTES) == 0;
}

static enum ty_code check_duplicate(const struct engine *e, const struct registration *r, struct ty_error *err)
{
	for (const struct registration *o = e->registrations; o; o = o->next)
		if (o->peer == r->peer && o->device == r->device && o->state <= REG_READY && same_region(o, r, 0))
			return ty_fail(err, TY_EXISTS, "regions[0]: registered already, as registration %u; UNREGISTER it first", o->id);
	return TY_OK;
}

static enum ty_code check_fingerprint(const struct engine *e, const struct registration *r, struct ty_error *err)
{
	if (e->has_fingerprint && memcmp(e->fingerprint, r->layout->fingerprint, TY_KEY_BYTES) != 0)
		return ty_fail(err, TY_INVALID,
			"groups: another layout than this engine registered before; all pools of an engine share their "
			"groups' block_tokens, run_bytes, plane counts, parts and format");
	return TY_OK;
}

static enum ty_code prepare(struct engine *e, struct registration *r, const Tyer__V1__Register *request, struct ty_error *err)
{
	const struct ty_config *config = e->service->config;
	struct ty_pool *pool;
	enum ty_code code = ty_pool_from_register(request, &pool, err);

	if (code != TY_OK)
		return code;
	r->map.regions = calloc(pool->region_count, sizeof *r->map.regions);
	r->identities = calloc(pool->region_count, sizeof *r->identities);
	if (!r->map.regions || !r->identities) {
		code = ty_fail(err, TY_NO_MEMORY, "no memory for a registration of %u regions", pool->region_count);
		ty_pool_free(pool);
		return code;
	}
	r->map.region_count = pool->region_count;
	memcpy(r->map.regions, pool->regions, pool->region_count * sizeof pool->regions[0]);
	code = find_device(e, pool->device, &r->device, err);
	if (code == TY_OK)
		code = ty_layout_create(pool, config->chunk_tokens, TY_PIECE_BYTES, &r->layout, err);
	ty_pool_free(pool);
	if (code == TY_OK)
		code = check_fingerprint(e, r, err);
	if (code != TY_OK) {
		for (uint32_t i = 0; i < r->map.region_count; i++)
			r->map.regions[i].fd = -1; /* still numbers */
		return code;
	}
	code = take_descriptors(r, err);
	return code == TY_OK ? check_duplicate(e, r, err) : code;
}

void engine_register(struct engine *e, struct peer *peer, struct ty_exchange *x)
{
	const struct ty_config *config = e->service->config;
	struct registration *r;
	struct ty_error err;

	if (e->registration_count >= config->max_registrations) {
		ty_exchange_refuse(x, TY_LIMIT, "max-registrations: this engine has %u already", e->registration_count);
		return;
	}
	r = calloc(1, sizeof *r);
	if (!r) {
		ty_exchange_refuse(x, TY_NO_MEMORY, "no memory for a registration");
		return;
	}
	r->peer = peer;
	enum ty_code code = prepare(e, r, x->request->register_, &err);

	if (code != TY_OK) {
		ty_exchange_refuse(x, code, "%s", err.text);
		free_registration(e, r);
		return;
	}
	r->id = ++e->last_registration;
	r->state = REG_MAPPING;
	r->exchange = x;
	r->map.engine = ty_self();
	r->map.registration = r->id;
	r->map.layout = r->layout;
	r->next = e->registrations;
	e->registrations = r;
	e->registration_count++;
	peer->uses++;
	if (!e->has_fingerprint) {
		e->has_fingerprint = true;
		memcpy(e->fingerprint, r->layout->fingerprint, TY_KEY_BYTES);
	}
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
	r->exchange = NULL;
	if (r->map.code != TY_OK) {
		if (x)
			ty_exchange_refuse(x, r->map.code, "%s", r->map.error.text);
		free_registration(e, r);
		return;
	}
	if (r->state == REG_CLOSING) { /* its client left, or its deadline passed */
		engine_close_registration(e, r);
		return;
	}
	r->state = REG_READY;
	x->reply.registered.registration = r->id;
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
	uint32_t id = x->request->unregister->registration;
	struct registration *r = engine_find_registration(e, peer, id);

	if (!r || r->state != REG_READY) {
		ty_exchange_refuse(x, TY_UNKNOWN_REGISTRATION, "registration: this client has none with number %u", id);
		return;
	}
	r->exchange = x;
	engine_watch(e);
	engine_close_registration(e, r);
}
