/* SPDX-License-Identifier: Apache-2.0 */
#include <stdbool.h>
#include <string.h>

#include "device/layout.h"
#include "fuzz.h"
#include "samples.h"
#include "wire/attach.h"
#include "wire/pool.h"

/* All that is said of a pool holds, and its way back to the wire and here again changes nothing. */
static void check(const struct ty_pool *pool)
{
	int *places[TY_ATTACH_DESCRIPTORS];
	uint32_t numbers[TY_ATTACH_DESCRIPTORS], count;
	struct ty_layout *layout = NULL;
	Tyer__V1__Register *reg;
	struct ty_pool *again;
	struct ty_error err;

	FUZZ_CHECK(pool->region_count >= 1 && pool->region_count <= TY_MAX_REGIONS);
	FUZZ_CHECK(pool->group_count >= 1 && pool->group_count <= TY_MAX_GROUPS);
	FUZZ_CHECK(pool->parts >= 1 && pool->parts <= TY_MAX_PARTS && pool->part < pool->parts);
	FUZZ_CHECK(strlen(pool->format) <= TY_FORMAT_MAX);
	count = ty_pool_descriptors(pool, places);
	for (uint32_t i = 0; i < count; i++) {
		FUZZ_CHECK(*places[i] >= 0 && *places[i] < TY_ATTACH_DESCRIPTORS);
		numbers[i] = (uint32_t)*places[i];
	}
	FUZZ_CHECK(ty_register_from_pool(pool, numbers, &reg, &err) == TY_OK);
	FUZZ_CHECK(ty_pool_from_register(reg, &again, &err) == TY_OK);
	ty_register_free(reg);
	FUZZ_CHECK(memcmp(again->device, pool->device, TY_UUID_BYTES) == 0);
	FUZZ_CHECK(again->region_count == pool->region_count && again->group_count == pool->group_count);
	for (uint32_t i = 0; i < pool->region_count; i++) {
		const struct ty_region *a = &pool->regions[i], *b = &again->regions[i];

		FUZZ_CHECK(a->is_fd == b->is_fd && a->fd == b->fd && a->length == b->length && a->offset == b->offset);
		FUZZ_CHECK(memcmp(a->ipc_handle, b->ipc_handle, TY_IPC_HANDLE_BYTES) == 0);
		FUZZ_CHECK(a->segment_count == b->segment_count);
		for (uint32_t k = 0; k < a->segment_count; k++)
			FUZZ_CHECK(a->segments[k].fd == b->segments[k].fd && a->segments[k].bytes == b->segments[k].bytes);
	}
	for (uint32_t g = 0; g < pool->group_count; g++) {
		FUZZ_CHECK(again->groups[g].plane_count == pool->groups[g].plane_count);
		for (uint32_t p = 0; p < pool->groups[g].plane_count; p++)
			FUZZ_CHECK(again->groups[g].planes[p].region == pool->groups[g].planes[p].region &&
				   again->groups[g].planes[p].offset == pool->groups[g].planes[p].offset);
	}
	/* and the layout, which is built from it next, refuses or stands */
	if (ty_layout_create(again, 256, 1 << 26, &layout, &err) == TY_OK)
		FUZZ_CHECK(layout->chunk_bytes > 0 && layout->chunk_bytes <= 1 << 26);
	free(layout);
	ty_pool_free(again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	Tyer__V1__Register *reg = tyer__v1__register__unpack(NULL, size, data);
	struct ty_error err = {.code = TY_OK};
	struct ty_pool *pool;
	enum ty_code code;

	if (reg == NULL)
		return 0;
	code = ty_pool_from_register(reg, &pool, &err);
	tyer__v1__register__free_unpacked(reg, NULL);
	if (code == TY_OK) {
		check(pool);
		ty_pool_free(pool);
	} else {
		FUZZ_CHECK(pool == NULL && (code == TY_INVALID || code == TY_LIMIT) && strstr(err.text, "Register.") != NULL);
	}
	return 0;
}

static void pack(const Tyer__V1__Request *request, void *user)
{
	uint8_t **at = user;

	*at += tyer__v1__register__pack(request->register_, *at);
}

size_t fuzz_seed(unsigned index, uint8_t *bytes)
{
	uint8_t *end = bytes;

	return index == 0 && sample_request(0, pack, &end) ? (size_t)(end - bytes) : SIZE_MAX;
}
