/* SPDX-License-Identifier: Apache-2.0
 *
 * What an idle actor costs beyond its state: the allocator's part and the registry's included.
 */
#include <malloc.h>
#include <stdlib.h>

#include "runtime_test.h"

#define LIMIT 256
#define MANY (64 * 1023) /* as many as ten chunks of the registry hold */

static struct gate started;

static enum ty_code on_start(void *self, void *arg)
{
	(void)self;
	(void)arg;
	gate_open(&started);
	return TY_OK;
}

static size_t in_use(void)
{
	struct mallinfo2 info = mallinfo2();

	return info.uordblks + info.hblkhd;
}

static void check_class(size_t state_size)
{
	const struct ty_class cls = {.name = "idler", .state_size = state_size, .start = on_start};
	struct ty_runtime_options options = {.size = sizeof options, .workers = 1};
	struct ty_actor **actors = calloc(MANY, sizeof *actors);
	struct ty_runtime *rt;
	size_t before, each;

	assert_non_null(actors);
	assert_int_equal(ty_runtime_create(&options, &rt, NULL), TY_OK);
	atomic_store(&started.open, 0);
	before = in_use();
	for (uint32_t i = 0; i < MANY; i++)
		assert_int_equal(ty_spawn(rt, &cls, NULL, NULL, &actors[i]), TY_OK);
	gate_wait_for(&started, MANY);
	each = (in_use() - before + MANY - 1) / MANY;
	if (before) /* a sanitizer's allocator does not say */
		assert_in_range(each, state_size, state_size + LIMIT);
	print_message("state of %zu bytes: %zu in all\n", state_size, each);
	for (uint32_t i = 0; i < MANY; i++)
		ty_actor_unref(actors[i]);
	ty_runtime_destroy(rt);
	free(actors);
}

static void test_idle_actor(void **unused)
{
	static const size_t sizes[] = {0, 1, 8, 16, 24, 64, 100, 256};

	(void)unused;
	for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++)
		check_class(sizes[i]);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_idle_actor),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
