/* SPDX-License-Identifier: Apache-2.0
 *
 * The service is stopped (SIGSTOP, a machine that swaps, a debugger): requests end by the client's own clock, typed, and when it goes on
 * the same client goes on with it, registered as it was (LMCache 4516: an hour and a half of a "healthy" server that did not answer).
 */
#include "process.h"

#include <poll.h>
#include <signal.h>
#include <string.h>

static void test_stopped(void **state)
{
	struct h_service s;
	struct h_client c;
	uint64_t client;
	pid_t pid;

	(void)state;
	h_prepare(&s);
	pid = p_start(&s, NULL, NULL);
	h_open(&s, &c, NULL, "stopped", 0, 1);
	assert_int_equal(h_lookup(&c, 1, 100, 4), TY_OK);
	h_fill(&c, 100, 4, 0);
	assert_int_equal(h_store(&c, 1, 0, 4, 0), TY_OK);
	client = ty_client_info(c.client)->client;
	p_freeze(pid);
	assert_int_equal(ty_client_set_timeout(c.client, 10000, &c.refused), TY_OK);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(h_lookup(&c, 2, 100, 4), TY_TIMEOUT); /* and nothing hangs */
		assert_int_equal(ty_client_state(c.client, NULL), TY_CLIENT_UP);
	}
	kill(pid, SIGCONT);
	assert_int_equal(ty_client_set_timeout(c.client, 0, &c.refused), TY_OK);
	assert_int_equal(h_lookup(&c, 3, 100, 4), TY_OK);
	assert_int_equal(c.last.lookup.hits, 4);
	assert_int_equal(ty_client_info(c.client)->client, client);
	h_close(&c);
	assert_int_equal(p_stop(pid), 0);
	h_stop(&s);
}

/* A REGISTER that reaches it, and whose answer comes when nobody waits for it any more: nothing of it stays, and the same pool may be
 * registered again as soon as the service goes on. */
static void test_given_up(void **state)
{
	struct h_service s;
	struct h_client c;
	pid_t pid;

	(void)state;
	h_prepare(&s);
	pid = p_start(&s, NULL, NULL);
	h_open(&s, &c, NULL, "given up", 0, 0);
	assert_int_equal(ty_client_set_timeout(c.client, 10000, &c.refused), TY_OK);
	h_send(&c, ty_client_register(c.client, h_pool(&c, 0, 1), h_done, &c, &c.refused));
	/* its descriptor is there, which the client does not know yet: it sends the REGISTER to one that is stopped */
	assert_int_equal(poll(&(struct pollfd){.fd = ty_client_fd(c.client), .events = POLLIN}, 1, -1), 1);
	p_freeze(pid);
	assert_int_equal(h_answer(&c), TY_TIMEOUT);
	kill(pid, SIGCONT);
	assert_int_equal(ty_client_set_timeout(c.client, 0, &c.refused), TY_OK);
	h_ok(&c, h_wait(&c, ty_client_register(c.client, h_pool(&c, 0, 1), h_done, &c, &c.refused)));
	assert_int_equal(c.last.registered.registration, 2);
	h_ok(&c, h_wait(&c, ty_client_unregister(c.client, 2, h_done, &c, &c.refused)));
	assert_int_equal((int)p_counter(&c, "tyer_device_mappings{device=\"host\"}"), 0);
	h_close(&c);
	assert_int_equal(p_stop(pid), 0);
	h_stop(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_stopped), cmocka_unit_test(test_given_up)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
