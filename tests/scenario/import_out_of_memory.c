/* SPDX-License-Identifier: Apache-2.0
 *
 * The driver has no memory left for what a client wants to share (LMCache 4631: a rolling update ran out of it while the dead held
 * theirs; rtx6kpro 46: what failed was used all the same). REGISTER says so, nothing of it stays, everybody else goes on, and it works
 * as soon as there is memory.
 */
#include "gpu_house.h"

#include "actors/service.h"

#define OUT_OF_MEMORY 2 /* CUDA_ERROR_OUT_OF_MEMORY */
#define PIECES 2        /* of the pool that lies in pieces */

static struct g_house house;

static void round_trip(struct h_client *c, uint32_t base)
{
	assert_int_equal(h_lookup(c, 1, base, 4), TY_OK);
	h_fill(c, base, 4, 0);
	assert_int_equal(h_store(c, 1, 0, 4, 0), TY_OK);
	assert_int_equal(h_lookup(c, 1, base, 4), TY_OK);
	h_wipe(c, 4, 64);
	assert_int_equal(h_retrieve(c, 1, 0, 4, 64), TY_OK);
	assert_int_equal(h_wrong(c, base, 4, 64), 0);
	assert_int_equal(h_end(c, 1), TY_OK);
}

/* The nth call of each of these, in one REGISTER, finds no memory. */
static void fail_each(const char *const *names, uint32_t times, bool pieces)
{
	struct h_client c, other;
	uint32_t base = 1000;

	g_open(&house, &other, 0);
	if (g_register(&other) != TY_OK)
		fail_msg("%s", other.error);
	round_trip(&other, base);
	for (; *names; names++) {
		for (uint32_t nth = 1; nth <= times; nth++) {
			uint64_t calls = house.driver.count(*names);

			(pieces ? g_open_pieces : g_open)(&house, &c, 0);
			house.driver.inject(*names, nth, OUT_OF_MEMORY);
			if (g_register(&c) != TY_NO_MEMORY)
				fail_msg("%s, call %u: %s %s", *names, nth, ty_code_name(c.last.code), c.error);
			assert_int_equal(house.driver.count(*names), calls + nth);
			assert_int_equal(atomic_load(&house.service.service->gpu_stats[0].mappings), 1);
			round_trip(&other, base += 4);
			if (g_register(&c) != TY_OK)
				fail_msg("%s", c.error);
			round_trip(&c, base += 4);
			g_close(&c);
			while (atomic_load(&house.service.service->gpu_stats[0].mappings) != 1)
				ty_client_poll(other.client, 0, 1000);
		}
	}
	g_close(&other);
}

static void test_allocation(void **state)
{
	static const char *const names[] = {"cuIpcOpenMemHandle", NULL};

	(void)state;
	fail_each(names, 1, false);
}

static void test_pieces(void **state)
{
	static const char *const names[] = {"cuMemImportFromShareableHandle", "cuMemMap", NULL}, *const once[] = {"cuMemAddressReserve", NULL};

	(void)state;
	fail_each(once, 1, true);
	fail_each(names, PIECES, true);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		G_TEST(test_allocation),
		G_TEST(test_pieces),
	};
	int failed;

	g_prepare(&house);
	failed = cmocka_run_group_tests(tests, NULL, NULL);
	g_finish();
	return failed;
}
