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
		ty_attaching_free(c, slot->attaching);
		slot->attaching = NULL;
		slot->pool = NULL;
	}
	ty_register_free(reg);
	return code;
}

/* Was the UNREGISTER not even begun? Then the pool is registered as before. */
static bool not_begun(enum ty_code code)
{
	return code == TY_BUSY || code == TY_STOPPING || code == TY_LIMIT || code == TY_INVALID;
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
	} else {
		ty_pool_forget(slot->client, kept);
	}
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
