/* SPDX-License-Identifier: Apache-2.0
 *
 * REGISTER and pools: one into the other and back, and every count and length that is out of bounds.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "device/layout.h"
#include "wire/pool.h"

static const struct ty_plane planes[3] = {{0, 0}, {1, UINT64_MAX}, {UINT32_MAX, 16}};
static const struct ty_group groups[2] = {{16, 100, UINT64_MAX, 256, 2, planes}, {UINT32_MAX, 0, 512, 0, 1, planes + 2}};
static struct ty_region regions[2];
static struct ty_pool pool;
static const uint32_t numbers[1] = {63};

static int setup(void **state)
{
	(void)state;
	memset(regions, 0, sizeof regions);
	regions[0].allocation_bytes = UINT64_MAX;
	regions[0].fd = -1;
	memset(regions[0].ipc_handle, 0x5a, TY_IPC_HANDLE_BYTES);
	regions[1] = (struct ty_region){.is_fd = true, .fd = 5, .allocation_bytes = 4096, .offset = 1, .length = 2};
	pool = (struct ty_pool){.device = {1, 2}, .region_count = 2, .group_count = 2, .regions = regions, .groups = groups,
		.part = 63, .parts = 64, .format = "NHD"};
	return 0;
}

static void test_there_and_back(void **state)
{
	Tyer__V1__Register *reg, *unpacked;
	struct ty_pool *back;
	struct ty_error err;
	uint8_t bytes[1024];
	size_t length;

	(void)state;
	assert_int_equal(ty_register_from_pool(&pool, numbers, &reg, &err), TY_OK);
	length = tyer__v1__register__pack(reg, bytes);
	ty_register_free(reg);
	unpacked = tyer__v1__register__unpack(NULL, length, bytes);
	assert_int_equal(ty_pool_from_register(unpacked, &back, &err), TY_OK);
	tyer__v1__register__free_unpacked(unpacked, NULL); /* the pool is a copy */
	assert_memory_equal(back->device, pool.device, TY_UUID_BYTES);
	assert_int_equal(back->part, 63);
	assert_int_equal(back->parts, 64);
	assert_string_equal(back->format, "NHD");
	assert_int_equal(back->region_count, 2);
	assert_false(back->regions[0].is_fd);
	assert_memory_equal(back->regions[0].ipc_handle, regions[0].ipc_handle, TY_IPC_HANDLE_BYTES);
	assert_int_equal(back->regions[0].allocation_bytes, UINT64_MAX);
	assert_true(back->regions[1].is_fd);
	assert_int_equal(back->regions[1].fd, 63); /* the number, not a descriptor */
	assert_int_equal(back->regions[1].offset, 1);
	assert_int_equal(back->regions[1].length, 2);
	assert_int_equal(back->group_count, 2);
	for (int g = 0; g < 2; g++) {
		assert_int_equal(back->groups[g].block_tokens, groups[g].block_tokens);
		assert_int_equal(back->groups[g].block_count, groups[g].block_count);
		assert_int_equal(back->groups[g].block_stride, groups[g].block_stride);
		assert_int_equal(back->groups[g].run_bytes, groups[g].run_bytes);
		assert_int_equal(back->groups[g].plane_count, groups[g].plane_count);
		for (uint32_t p = 0; p < groups[g].plane_count; p++) {
			assert_int_equal(back->groups[g].planes[p].region, groups[g].planes[p].region);
			assert_int_equal(back->groups[g].planes[p].offset, groups[g].planes[p].offset);
		}
	}
	ty_pool_free(back);
	ty_pool_free(NULL);
	ty_register_free(NULL);
}

/* A good REGISTER with one thing made wrong. */
static void expect_register(void (*spoil)(Tyer__V1__Register *), enum ty_code code, const char *words)
{
	Tyer__V1__Register *reg;
	struct ty_pool *back;
	struct ty_error err;

	assert_int_equal(ty_register_from_pool(&pool, numbers, &reg, &err), TY_OK);
	spoil(reg);
	assert_int_equal(ty_pool_from_register(reg, &back, &err), code);
	if (strstr(err.text, words) == NULL)
		fail_msg("\"%s\" does not say \"%s\"", err.text, words);
	assert_null(back);
	ty_register_free(reg);
}

static Tyer__V1__Plane *many_planes[TY_MAX_PLANES + 1];
static Tyer__V1__Region *many_regions[TY_MAX_REGIONS + 1];
static Tyer__V1__Group *many_groups[TY_MAX_GROUPS + 1];
static char long_format[TY_FORMAT_MAX + 2];

static void spoil_device(Tyer__V1__Register *r) { r->device.len = 15; }
static void spoil_no_device(Tyer__V1__Register *r) { r->device = (ProtobufCBinaryData){0}; }
static void spoil_parts(Tyer__V1__Register *r) { r->parts = 65; }
static void spoil_no_parts(Tyer__V1__Register *r) { r->parts = 0; }
static void spoil_part(Tyer__V1__Register *r) { r->part = 64; }
static void spoil_no_regions(Tyer__V1__Register *r) { r->n_regions = 0; }
static void spoil_no_groups(Tyer__V1__Register *r) { r->n_groups = 0; }
static void spoil_no_planes(Tyer__V1__Register *r) { r->groups[1]->n_planes = 0; }
static void spoil_handle(Tyer__V1__Register *r) { r->regions[0]->ipc_handle.len = 63; }
static void spoil_no_memory(Tyer__V1__Register *r) { r->regions[0]->memory_case = TYER__V1__REGION__MEMORY__NOT_SET; }
static void spoil_number(Tyer__V1__Register *r) { r->regions[1]->attached_fd = 1024; }
static void spoil_format(Tyer__V1__Register *r) { r->format = long_format; }
static void spoil_format_bytes(Tyer__V1__Register *r) { r->format[0] = '\n'; }

static void spoil_twice(Tyer__V1__Register *r)
{
	r->regions[0]->memory_case = TYER__V1__REGION__MEMORY_ATTACHED_FD;
	r->regions[0]->attached_fd = 63;
}

static void spoil_many_regions(Tyer__V1__Register *r)
{
	for (int i = 0; i <= TY_MAX_REGIONS; i++)
		many_regions[i] = r->regions[0];
	r->regions = many_regions;
	r->n_regions = TY_MAX_REGIONS + 1;
}

static void spoil_many_groups(Tyer__V1__Register *r)
{
	for (int i = 0; i <= TY_MAX_GROUPS; i++)
		many_groups[i] = r->groups[0];
	r->groups = many_groups;
	r->n_groups = TY_MAX_GROUPS + 1;
}

static void spoil_many_planes(Tyer__V1__Register *r)
{
	for (int i = 0; i <= TY_MAX_PLANES; i++)
		many_planes[i] = r->groups[0]->planes[0];
	r->groups[0]->planes = many_planes;
	r->groups[0]->n_planes = TY_MAX_PLANES + 1;
}

static void test_refused(void **state)
{
	(void)state;
	memset(long_format, 'f', TY_FORMAT_MAX + 1);
	expect_register(spoil_device, TY_INVALID, "Register.device has 15 bytes, expected 16");
	expect_register(spoil_no_device, TY_INVALID, "Register.device has 0 bytes");
	expect_register(spoil_parts, TY_INVALID, "Register.parts is 65, expected 1..64");
	expect_register(spoil_no_parts, TY_INVALID, "Register.parts is 0");
	expect_register(spoil_part, TY_INVALID, "Register.part is 64, expected 0..63");
	expect_register(spoil_no_regions, TY_INVALID, "Register.regions is empty");
	expect_register(spoil_no_groups, TY_INVALID, "Register.groups is empty");
	expect_register(spoil_no_planes, TY_INVALID, "Register.groups[1].planes is empty");
	expect_register(spoil_many_regions, TY_LIMIT, "Register.regions has 257 entries");
	expect_register(spoil_many_groups, TY_LIMIT, "Register.groups has 9 entries");
	expect_register(spoil_many_planes, TY_LIMIT, "Register.groups[0].planes has 1025 entries");
	expect_register(spoil_handle, TY_INVALID, "Register.regions[0].ipc_handle has 63 bytes, expected 64");
	expect_register(spoil_no_memory, TY_INVALID, "Register.regions[0].memory is absent");
	expect_register(spoil_number, TY_INVALID, "Register.regions[1].attached_fd is 1024, expected 0..1023");
	expect_register(spoil_twice, TY_INVALID, "Register.regions[1].attached_fd is 63, as another one's");
	expect_register(spoil_format, TY_INVALID, "Register.format is 65 bytes");
	expect_register(spoil_format_bytes, TY_INVALID, "Register.format");
}

static void expect_pool(const struct ty_pool *bad, enum ty_code code, const char *words)
{
	Tyer__V1__Register *reg;
	struct ty_error err;

	assert_int_equal(ty_register_from_pool(bad, numbers, &reg, &err), code);
	assert_null(reg);
	if (strstr(err.text, words) == NULL)
		fail_msg("\"%s\" does not say \"%s\"", err.text, words);
}

static void test_refused_pools(void **state)
{
	struct ty_group many = groups[0];
	struct ty_pool bad = pool;

	(void)state;
	bad.region_count = TY_MAX_REGIONS + 1;
	expect_pool(&bad, TY_LIMIT, "pool.regions");
	bad = pool;
	bad.group_count = 0;
	expect_pool(&bad, TY_INVALID, "pool.groups");
	bad = pool;
	many.plane_count = TY_MAX_PLANES + 1;
	bad.groups = &many;
	bad.group_count = 1;
	expect_pool(&bad, TY_LIMIT, "pool.groups[0].planes");
	bad = pool;
	bad.part = 64;
	expect_pool(&bad, TY_INVALID, "part");
	bad = pool;
	bad.format = long_format;
	memset(long_format, 'f', TY_FORMAT_MAX + 1);
	expect_pool(&bad, TY_INVALID, "pool.format");
}

/* A count that is right says nothing of the array. */
static void test_null_arrays(void **state)
{
	struct ty_group no_planes[2] = {groups[0], groups[1]};
	struct ty_pool bad = pool;

	(void)state;
	bad.regions = NULL;
	expect_pool(&bad, TY_INVALID, "pool.regions is null, expected 2 entries");
	bad = pool;
	bad.groups = NULL;
	expect_pool(&bad, TY_INVALID, "pool.groups is null, expected 2 entries");
	bad = pool;
	no_planes[1].planes = NULL;
	bad.groups = no_planes;
	expect_pool(&bad, TY_INVALID, "pool.groups[1].planes is null, expected 1 entries");
	bad = pool;
	bad.step_count = 1;
	expect_pool(&bad, TY_INVALID, "pool.steps is null, expected 1 entries");
	bad = pool;
	regions[0].segment_count = 3;
	expect_pool(&bad, TY_INVALID, "pool.regions[0].segments is null, expected 3 entries");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_there_and_back, setup),
		cmocka_unit_test_setup(test_refused, setup),
		cmocka_unit_test_setup(test_refused_pools, setup),
		cmocka_unit_test_setup(test_null_arrays, setup),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
