/* SPDX-License-Identifier: Apache-2.0
 *
 * The pools that a client has registered, kept so that they can be registered again with a service that comes back. The user
 * knows them by handles of ours; each service gives them numbers of its own.
 */
#include "client/internal.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "device/layout.h"
#include "wire/pool.h"

static bool waits_to_be_taken_back(const struct ty_kept_pool *kept)
{
	return kept->given_up && !kept->taking_back;
}

static struct ty_kept_pool *to_be_taken_back(const struct ty_client *c)
{
	struct ty_kept_pool *kept = c->given_up != 0 ? c->pools : NULL;

	while (kept != NULL && !waits_to_be_taken_back(kept))
		kept = kept->next;
	return kept;
}

/* A copy on the heap, by way of the message that describes it; its descriptors are duplicates. */
static enum ty_code copy_pool(const struct ty_pool *pool, struct ty_pool **out, struct ty_error *err)
{
	int *theirs[TY_ATTACH_DESCRIPTORS], *ours[TY_ATTACH_DESCRIPTORS];
	uint32_t numbers[TY_ATTACH_DESCRIPTORS], i, count = 0;
	Tyer__V1__Register *reg;
	enum ty_code code;

	*out = NULL;
	if (pool->region_count > TY_MAX_REGIONS)
		return ty_fail(err, TY_LIMIT, "pool.regions has %u entries, expected 1..%d", pool->region_count, TY_MAX_REGIONS);
	for (i = 0; i < TY_ATTACH_DESCRIPTORS; i++)
		numbers[i] = i;
	code = ty_register_from_pool(pool, numbers, &reg, err);
	if (code != TY_OK)
		return code;
	code = ty_pool_from_register(reg, out, err);
	ty_register_free(reg);
	if (code != TY_OK)
		return code;
	ty_pool_descriptors(pool, theirs);
	count = ty_pool_descriptors(*out, ours);
	for (i = 0; i < count; i++)
		*ours[i] = -1;
	for (i = 0; i < count; i++) {
		*ours[i] = fcntl(*theirs[i], F_DUPFD_CLOEXEC, 0);
		if (*ours[i] < 0)
			return ty_fail(err, errno == EBADF ? TY_INVALID : TY_IO, "pool.regions: descriptor %d, the pool's %uth: %s",
				*theirs[i], i, strerror(errno));
	}
	return TY_OK;
}

static void free_pool(struct ty_pool *pool)
{
	int *descriptors[TY_ATTACH_DESCRIPTORS];
	uint32_t count = pool != NULL ? ty_pool_descriptors(pool, descriptors) : 0;

	for (uint32_t i = 0; i < count; i++)
		if (*descriptors[i] >= 0)
			close(*descriptors[i]);
	ty_pool_free(pool);
}

enum ty_code ty_pool_keep(struct ty_client *c, const struct ty_pool *pool, struct ty_kept_pool **out, struct ty_error *err)
{
	struct ty_kept_pool *kept = calloc(1, sizeof *kept), **end = &c->pools;
	enum ty_code code;

	*out = NULL;
	if (kept == NULL)
		return ty_fail(err, TY_NO_MEMORY, "REGISTER: no memory");
	/* it might be of the same memory, and must lie behind the UNREGISTER then */
	if (to_be_taken_back(c) != NULL) {
		free(kept);
		return ty_fail(err, TY_BUSY, "a pool whose REGISTER or UNREGISTER got no answer is not taken back yet");
	}
	code = copy_pool(pool, &kept->pool, err);
	if (code != TY_OK) {
		free_pool(kept->pool);
		free(kept);
		return code;
	}
	kept->handle = ++c->last_handle;
	while (*end != NULL)
		end = &(*end)->next;
	*end = kept;
	*out = kept;
	return TY_OK;
}

void ty_pool_forget(struct ty_client *c, struct ty_kept_pool *kept)
{
	struct ty_kept_pool **link = &c->pools;

	while (*link != kept)
		link = &(*link)->next;
	*link = kept->next;
	c->given_up -= kept->given_up;
	free_pool(kept->pool);
	free(kept);
}

struct ty_kept_pool *ty_pool_find(struct ty_client *c, uint32_t handle)
{
	struct ty_kept_pool *kept = c->pools;

	while (kept != NULL && kept->handle != handle)
		kept = kept->next;
	return kept != NULL && kept->known ? kept : NULL;
}

enum ty_code ty_pool_number(struct ty_client *c, uint32_t handle, uint32_t *number, struct ty_error *err)
{
	const struct ty_kept_pool *kept = ty_pool_find(c, handle);

	*number = kept != NULL ? kept->number : 0;
	if (c->link == TY_LINK_UP && kept == NULL)
		return ty_fail(err, TY_UNKNOWN_REGISTRATION, "registration: this client has none with number %u", handle);
	return TY_OK; /* without a link the request is refused for that */
}

enum ty_code ty_pool_register(struct ty_request_slot *slot, struct ty_kept_pool *kept, ty_done_fn done, void *user,
	struct ty_error *err)
{
	Tyer__V1__Request request = TYER__V1__REQUEST__INIT;
	uint32_t numbers[TY_ATTACH_DESCRIPTORS];
	struct ty_client *c = slot->client;
	Tyer__V1__Register *reg = NULL;
	enum ty_code code = TY_OK;

	if (c->info.client != 0) /* else submit says why not */
		code = ty_attaching_create(c, kept->pool, numbers, &slot->attaching, err);
	if (code == TY_OK)
		code = ty_register_from_pool(kept->pool, numbers, &reg, err);
	if (code == TY_OK) {
		request.verb_case = TYER__V1__REQUEST__VERB_REGISTER;
		request.register_ = reg;
		slot->pool = kept;
		code = ty_slot_submit(slot, &request, done, user, err);
	}
	if (code != TY_OK) {
		ty_attaching_free(c, slot->attaching, true);
		slot->attaching = NULL;
		slot->pool = NULL;
	}
	ty_register_free(reg);
	return code;
}

/* Was the UNREGISTER not even begun? Then the pool is registered as before. */
static bool not_begun(enum ty_code code)
{
	return code == TY_BUSY || code == TY_STOPPING || code == TY_LIMIT || code == TY_INVALID || code == TY_NO_MEMORY;
}

/* Nobody knows whether the service has it: no answer came, or one that says nothing, or one for which it had no memory. What was not even
 * sent it has not. */
static bool is_open_question(const struct ty_request_slot *slot)
{
	enum ty_code code = slot->decoded.result.code;

	return slot->phase == TY_SLOT_OPEN && (slot->decoded.reply == NULL || code == TY_PROTOCOL || code == TY_NO_MEMORY);
}

/* The user has no more to do with it. By its number, or else by the REGISTER it is taken back. */
static void give_up(struct ty_client *c, struct ty_kept_pool *kept, uint64_t request)
{
	kept->known = false;
	kept->given_up = true;
	kept->request = request;
	c->given_up++;
	free_pool(kept->pool);
	kept->pool = NULL;
}

void ty_pool_answered(struct ty_request_slot *slot)
{
	struct ty_result *result = &slot->decoded.result;
	struct ty_kept_pool *kept = slot->pool;

	slot->pool = NULL;
	if (kept == NULL)
		return;
	if (slot->verb == TYER__V1__REQUEST__VERB_REGISTER && result->code == TY_OK) {
		kept->number = result->registered.registration;
		kept->known = true;
		result->registered.registration = kept->handle;
	} else if (slot->verb == TYER__V1__REQUEST__VERB_UNREGISTER && not_begun(result->code)) {
		kept->leaving = false;
	} else if (is_open_question(slot)) {
		give_up(slot->client, kept, slot->id);
	} else {
		ty_pool_forget(slot->client, kept);
	}
}

static void on_taken_back(struct ty_request_slot *slot, const struct ty_decoded *decoded)
{
	struct ty_client *c = slot->client;
	struct ty_kept_pool *kept = slot->pool;

	slot->pool = NULL;
	kept->taking_back = false;
	/* TIMEOUT of the service's own: it is at it, and nobody can use what is still there */
	if (decoded->reply != NULL && !not_begun(decoded->result.code)) {
		ty_pool_forget(c, kept);
		return;
	}
	c->take_back_at = ty_client_now() + TY_CLIENT_TAKE_BACK_NS;
}

void ty_pools_take_back(struct ty_client *c)
{
	struct ty_kept_pool *kept = c->link == TY_LINK_UP ? to_be_taken_back(c) : NULL;
	Tyer__V1__Request request = TYER__V1__REQUEST__INIT;
	Tyer__V1__Unregister unregister = TYER__V1__UNREGISTER__INIT;
	struct ty_request_slot *slot = &c->slots[c->slot_count];
	int64_t now;
	struct ty_error err;

	if (kept == NULL || slot->phase != TY_SLOT_IDLE)
		return;
	now = ty_client_now();
	if (slot->queued && c->take_back_at <= now) /* the last one is not even out */
		c->take_back_at = now + TY_CLIENT_TAKE_BACK_NS;
	if (c->take_back_at > now) {
		ty_client_wake_at(c, c->take_back_at);
		return;
	}
	unregister.registration = kept->number;
	unregister.request = kept->number == 0 ? kept->request : 0;
	request.verb_case = TYER__V1__REQUEST__VERB_UNREGISTER;
	request.unregister = &unregister;
	slot->internal = on_taken_back;
	slot->pool = kept;
	kept->taking_back = true;
	if (ty_slot_submit(slot, &request, NULL, NULL, &err) == TY_OK)
		return; /* and if the link was lost by it, `kept` is gone */
	slot->pool = NULL;
	kept->taking_back = false;
	c->take_back_at = now + TY_CLIENT_TAKE_BACK_NS;
	ty_client_wake_at(c, c->take_back_at);
}

void ty_pools_lost(struct ty_client *c)
{
	struct ty_kept_pool *kept = c->pools, *next;

	for (; kept != NULL; kept = next) {
		next = kept->next;
		kept->number = 0;
		if (kept->leaving || !kept->known)
			ty_pool_forget(c, kept);
	}
}
