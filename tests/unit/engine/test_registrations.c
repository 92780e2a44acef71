/* SPDX-License-Identifier: Apache-2.0
 *
 * REGISTERs that fail, or that their client gave up: nothing of them stays.
 */
#include "house.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* A LOOKUP beside a REGISTER, which then fails: the engine is free for another layout. */
static void test_failed_binds_nobody(void **state)
{
	struct house *h = *state;
	struct ty_member *m = house_join(h);
	struct call *call = house_register(h, m, 0, -1, "NHD", H_FOR_EVER), *other;
	uint32_t pool;

	assert_int_equal(house_end(h, house_lookup(h, m, 1, 4)).code, TY_UNKNOWN_REGISTRATION); /* nobody knows whether there will be one */
	other = house_register(h, m, 4096, -1, "HND", H_FOR_EVER); /* of two at once it is the first one */
	assert_int_equal(house_end(h, other).code, TY_INVALID);
	house_send_map(h, TY_NO_MEMORY);
	assert_int_equal(house_end(h, call).code, TY_NO_MEMORY);
	pool = house_have_pool(h, m, 0, "HND");
	assert_int_equal(house_end(h, house_lookup(h, m, 1, 4)).code, TY_OK);
	assert_int_equal(house_end(h, house_register(h, m, 4096, -1, "NHD", H_FOR_EVER)).code, TY_INVALID);
	call = house_unregister(h, m, pool, 0);
	house_run(h);
	house_send_map(h, TY_OK);
	assert_int_equal(house_end(h, call).code, TY_OK);
	house_leave(h, m);
}

static uint32_t replace_pool(struct house *h, const struct ty_member *m, uint32_t pool, const char *format)
{
	struct call *call = house_unregister(h, m, pool, 0), *other = house_register(h, m, 4096, -1, format, H_FOR_EVER);
	struct call answer;

	house_run(h);
	house_send_map(h, TY_OK); /* the UNMAP */
	assert_int_equal(house_end(h, call).code, TY_OK);
	house_send_map(h, TY_OK);
	answer = house_end(h, other);
	assert_int_equal(answer.code, TY_OK);
	return answer.registration;
}

static enum ty_code store_of(struct house *h, const struct ty_member *m, uint64_t session, uint32_t pool)
{
	struct call *store = house_store(h, m, session, pool, 0);

	house_run(h);
	if (h->op_count)
		house_land(h, h->ops[0]->id);
	return house_end(h, store).code;
}

/* With its last pool an engine's layout goes, too: it may have another one then, and sessions of the one before are over. With the same one they
 * go on. */
static void test_unregistered_binds_nobody(void **state)
{
	struct house *h = *state;
	struct ty_member *m = house_join(h), *scheduler = house_join(h);
	uint32_t pool = house_have_pool(h, m, 0, "NHD"), second;
	struct call *call;

	assert_int_equal(house_end(h, house_lookup(h, scheduler, 1, H_OP_CHUNKS)).code, TY_OK);
	pool = replace_pool(h, m, pool, "NHD");
	assert_int_equal(store_of(h, m, 1, pool), TY_OK);

	second = house_have_pool(h, m, 8192, "NHD");
	call = house_unregister(h, m, second, 0);
	house_run(h);
	house_send_map(h, TY_OK);
	assert_int_equal(house_end(h, call).code, TY_OK);
	assert_int_equal(house_end(h, house_register(h, m, 8192, -1, "HND", H_FOR_EVER)).code, TY_INVALID); /* that was not the last one */

	pool = replace_pool(h, m, pool, "HND");
	assert_int_equal(store_of(h, m, 1, pool), TY_UNKNOWN_SESSION);
	assert_int_equal(house_end(h, house_lookup(h, scheduler, 1, H_OP_CHUNKS)).code, TY_OK);
	assert_int_equal(store_of(h, m, 1, pool), TY_OK);
	house_leave(h, m);
	house_leave(h, scheduler);
	house_run(h);
	while (h->map_count)
		house_send_map(h, TY_OK);
}

/* What has left, and has a copy under way, holds nobody to its layout. */
static void test_left_binds_nobody(void **state)
{
	struct house *h = *state;
	struct ty_member *m = house_join(h), *other;
	uint32_t pool = house_have_pool(h, m, 0, "NHD");
	struct call *store;

	assert_int_equal(house_end(h, house_lookup(h, m, 1, H_OP_CHUNKS)).code, TY_OK);
	store = house_store(h, m, 1, pool, 0);
	house_run(h);
	house_leave(h, m);
	assert_int_equal(house_end(h, store).code, TY_CANCELLED);
	other = house_join(h);
	house_have_pool(h, other, 0, "HND");
	assert_int_equal(house_end(h, house_lookup(h, other, 1, 4)).code, TY_OK);
	house_land(h, h->ops[0]->id);
	house_leave(h, other);
	house_run(h);
	while (h->map_count)
		house_send_map(h, TY_OK);
}

/* It has a number of its own in the box, and is closed if this is true. */
static int put(struct ty_member *m, uint32_t number)
{
	int fd = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	assert_true(fd >= 0);
	atomic_store(&m->descriptors->place[number], fd + 1);
	return fd;
}

static bool is_closed(int fd)
{
	return fcntl(fd, F_GETFD) < 0;
}

/* However a REGISTER fails: the descriptors that it names are closed. */
static void test_failed_keeps_no_descriptor(void **state)
{
	struct house *h = *state;
	struct ty_member *m = house_join(h);
	int fd = put(m, 7), other = put(m, 8);

	h->service->gpu_stats[0].info.uuid[0] = 1; /* no such device */
	assert_int_equal(house_end(h, house_register(h, m, 0, 7, "", H_FOR_EVER)).code, TY_NO_DEVICE);
	assert_true(is_closed(fd));
	assert_false(is_closed(other));
	h->service->gpu_stats[0].info.uuid[0] = 0;

	fd = put(m, 7);
	assert_int_equal(house_end(h, house_register(h, m, 0, 7, "a format whose name is longer than the 64 bytes that there are for such names",
		H_FOR_EVER)).code, TY_INVALID);
	assert_true(is_closed(fd));

	fd = put(m, 7);
	h->config.max_registrations = 0;
	assert_int_equal(house_end(h, house_register(h, m, 0, 7, "", H_FOR_EVER)).code, TY_LIMIT);
	assert_true(is_closed(fd));
	h->config.max_registrations = 8;
	assert_int_equal(house_end(h, house_register(h, m, 0, 100000, "", H_FOR_EVER)).code, TY_INVALID); /* no number at all */

	assert_false(is_closed(other)); /* nobody named it */
	h->more_fd = 8; /* behind one that was not sent */
	assert_int_equal(house_end(h, house_register(h, m, 0, 9, "", H_FOR_EVER)).code, TY_INVALID);
	assert_true(is_closed(other));
	h->more_fd = 0;
	house_leave(h, m);
}

/* ---- given up ------------------------------------------------------------------------------------------------------------ */

/* Answered, but too late for its client: it is there by the number that the client has. */
static void test_given_up_when_ready(void **state)
{
	struct house *h = *state;
	struct ty_member *m = house_join(h), *stranger = house_join(h);
	struct call *call, *again;
	uint64_t id;

	house_have_pool(h, m, 0, "");
	id = h->last_id;
	assert_int_equal(house_end(h, house_register(h, m, 0, -1, "", H_FOR_EVER)).code, TY_EXISTS);
	assert_int_equal(house_end(h, house_unregister(h, stranger, 0, id)).code, TY_UNKNOWN_REGISTRATION);
	assert_int_equal(house_end(h, house_unregister(h, m, 1, id)).code, TY_INVALID);
	call = house_unregister(h, m, 0, id);
	again = house_register(h, m, 0, -1, "", H_FOR_EVER); /* behind it, and of the same memory */
	assert_int_equal(again->answers, 0);
	house_send_map(h, TY_OK);
	assert_int_equal(house_end(h, call).code, TY_OK);
	house_send_map(h, TY_OK);
	assert_int_equal(house_end(h, again).code, TY_OK);
	assert_int_equal(house_end(h, house_unregister(h, m, 0, id)).code, TY_UNKNOWN_REGISTRATION);
	house_leave(h, m);
	house_leave(h, stranger);
	house_run(h);
	while (h->map_count)
		house_send_map(h, TY_OK);
}

/* In the slow lane: its own answer says so, and UNREGISTER's comes when nothing is mapped any more. The same memory may be registered
 * at once. */
static void test_given_up_while_mapping(void **state)
{
	struct house *h = *state;
	struct ty_member *m = house_join(h);

	for (int fails = 0; fails < 2; fails++) {
		struct call *call = house_register(h, m, 0, -1, "", H_FOR_EVER), *back, *again;
		uint64_t id = h->last_id;

		back = house_unregister(h, m, 0, id);
		assert_int_equal(house_end(h, call).code, TY_CANCELLED);
		assert_int_equal(house_end(h, house_unregister(h, m, 0, id)).code, TY_UNKNOWN_REGISTRATION); /* one of them is enough */
		again = house_register(h, m, 0, -1, "", H_FOR_EVER);
		assert_int_equal(again->answers, 0);
		assert_int_equal(back->answers, 0);
		house_send_map(h, fails ? TY_NO_MEMORY : TY_OK);
		house_run(h);
		assert_int_equal(back->answers, fails);
		house_send_map(h, TY_OK); /* the second REGISTER's */
		if (!fails) {
			house_run(h);
			assert_int_equal(back->answers, 0);
			assert_true(h->unmap[0]);
			house_send_map(h, TY_OK);
		}
		assert_int_equal(house_end(h, back).code, TY_OK);
		call = house_unregister(h, m, house_end(h, again).registration, 0);
		house_run(h);
		house_send_map(h, TY_OK);
		assert_int_equal(house_end(h, call).code, TY_OK);
	}
	house_leave(h, m);
}

/* After its own deadline, which has closed it already: UNREGISTER waits for that. Its client may go meanwhile. */
static void test_given_up_after_its_deadline(void **state)
{
	struct house *h = *state;
	struct ty_member *m = house_join(h);
	struct call *call = house_register(h, m, 0, -1, "", 20000000), *back;
	uint64_t id = h->last_id;

	house_pass(h, 30000000);
	assert_int_equal(house_end(h, call).code, TY_TIMEOUT);
	back = house_unregister(h, m, 0, id);
	house_run(h);
	assert_int_equal(back->answers, 0);
	house_leave(h, m);
	assert_int_equal(house_end(h, back).code, TY_CANCELLED);
	house_send_map(h, TY_OK);
	house_run(h);
	assert_true(h->unmap[0]);
	house_send_map(h, TY_OK);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_failed_binds_nobody, house_open, house_close),
		cmocka_unit_test_setup_teardown(test_unregistered_binds_nobody, house_open, house_close),
		cmocka_unit_test_setup_teardown(test_left_binds_nobody, house_open, house_close),
		cmocka_unit_test_setup_teardown(test_failed_keeps_no_descriptor, house_open, house_close),
		cmocka_unit_test_setup_teardown(test_given_up_when_ready, house_open, house_close),
		cmocka_unit_test_setup_teardown(test_given_up_while_mapping, house_open, house_close),
		cmocka_unit_test_setup_teardown(test_given_up_after_its_deadline, house_open, house_close),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
