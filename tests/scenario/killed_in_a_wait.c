/* SPDX-License-Identifier: Apache-2.0
 *
 * An engine is killed while its stream waits for a word of ours, and while a kernel of its never ends, behind which the word waits
 * that we look for (LMCache 4676, 4693: the unmapping waited for a stream that waited for a dead event, for ever, and with it the
 * server). Nothing of ours is queued behind anything of an engine's: its memory, its leases and its operation go, at once.
 */
#include "gpu_house.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <tyer/stream.h>
#include <unistd.h>

#include "actors/service.h"
#include "busy/busy.h"
#include "busy/kernels.h"

#define ROUNDS 3
#define READY 10
#define DONE 11

static struct g_house house;

static void good(enum ty_code code, const struct ty_error *err)
{
	if (code != TY_OK)
		fail_msg("%s", err->text);
}

/* ---- the victim, a process of its own -------------------------------------------------------------------- */

/* Its memory, registered; and the word of a kernel that never ends. */
static void victim_opens(struct h_client *c, struct ty_cuda_client **gpu, uint64_t *word)
{
	struct ty_region region = {.length = (uint64_t)H_BLOCKS * H_PLANES * H_RUN}, other = {.length = 4096};
	uint64_t address;
	struct ty_pool *pool;
	struct ty_error err;

	good(ty_cuda_client_open(getenv("TYER_STANDIN_LIBRARY"), 0, gpu, &err), &err);
	good(ty_cuda_client_alloc(*gpu, region.length, &address, &region, &err), &err);
	good(ty_cuda_client_alloc(*gpu, other.length, word, &other, &err), &err);
	pool = h_pool(c, 0, 1);
	pool->regions = &region;
	memcpy(pool->device, ty_client_info(c->client)->devices[0].uuid, sizeof pool->device);
	h_ok(c, h_wait(c, ty_client_register(c->client, pool, h_done, c, &c->refused)));
	c->registration = c->last.registered.registration;
}

/* A lease, and a store whose ready word comes never; then the stream waits, or hangs; and it stops, to be killed. */
_Noreturn static void victim(char **argv)
{
	struct h_service s = {0};
	struct ty_stream_words *words;
	struct ty_cuda_client *gpu;
	struct ty_transfer t;
	struct ty_error err;
	struct h_client c;
	uint64_t word, id;
	bool done;

	snprintf(s.url, sizeof s.url, "%s", argv[1]);
	snprintf(s.config.attach, sizeof s.config.attach, "%s", argv[2]);
	h_open(&s, &c, NULL, "a", 0, 0);
	victim_opens(&c, &gpu, &word);
	h_ok(&c, h_lookup(&c, 2, 3000, 4));
	h_ok(&c, h_lookup(&c, 1, 4000, 4));
	t = h_transfer(&c, 1, 0, 4, 0);
	t.ready = (struct ty_mark){READY, 1};
	t.done = (struct ty_mark){DONE, 1};
	h_send(&c, ty_client_store(c.client, &t, h_done, &c, &c.refused));
	id = ty_client_last_id(c.client);
	while (h_ask(&c, id).operation.state != TY_OPERATION_WAITING)
		;
	good(ty_stream_words_open(c.client, getenv("TYER_STANDIN_LIBRARY"), &words, &err), &err);
	if (strcmp(argv[0], "waits") == 0) {
		good(ty_stream_wait(words, ty_cuda_client_stream(gpu, true), t.done, &err), &err);
	} else {
		good(ty_busy_hang(gpu, word, &err), &err);
		good(ty_stream_raise(words, ty_cuda_client_stream(gpu, true), t.ready, &err), &err);
	}
	for (int i = 0; i < 50; i++) /* each of them lets the stream go on, if it can */
		good(ty_cuda_client_done(gpu, true, &done, &err), &err);
	assert_false(done);
	raise(SIGSTOP);
	_exit(1);
}

static pid_t start_victim(const char *what)
{
	pid_t pid = fork();
	int status;

	if (pid == 0) { /* only what a fresh process may do */
		execl("/proc/self/exe", "killed_in_a_wait", what, house.service.url, house.service.config.attach, NULL);
		_exit(127);
	}
	assert_int_equal(waitpid(pid, &status, WUNTRACED), pid);
	assert_true(WIFSTOPPED(status));
	return pid;
}

/* ---- scenarios ------------------------------------------------------------------------------------------- */

static void kill_it(const char *what)
{
	struct ty_service *service;
	struct h_client c;

	g_start(&house, 1);
	service = house.service.service;
	g_open(&house, &c, 0);
	h_ok(&c, g_register(&c));
	h_ok(&c, h_lookup(&c, 1, 3000, 4));
	h_fill(&c, 3000, 4, 0);
	h_ok(&c, h_store(&c, 1, 0, 4, 0));
	for (int round = 0; round < ROUNDS; round++) {
		pid_t pid = start_victim(what);

		assert_int_equal(atomic_load(&service->operations.used), 1);
		assert_int_equal(atomic_load(&service->lookup_stats.leases), 4);
		assert_int_equal(atomic_load(&service->gpu_stats[0].mappings), 2);
		kill(pid, SIGKILL);
		waitpid(pid, NULL, 0);
		while (atomic_load(&service->operations.used) || atomic_load(&service->lookup_stats.leases) ||
			atomic_load(&service->gpu_stats[0].mappings) != 1)
			ty_client_poll(c.client, 0, 1000);
		/* whoever is left is as before, and of what was to be stored nothing is there */
		h_ok(&c, h_lookup(&c, 2, 3000, 4));
		h_wipe(&c, 4, 64);
		h_ok(&c, h_retrieve(&c, 2, 0, 4, 64));
		assert_int_equal(h_wrong(&c, 3000, 4, 64), 0);
		h_ok(&c, h_end(&c, 2));
		h_ok(&c, h_lookup(&c, 2, 4000, 4));
		assert_int_equal(c.last.lookup.hits, 0);
		h_ok(&c, h_end(&c, 2));
	}
	g_close(&c);
	g_stop(&house); /* the driver has nothing of the dead any more */
}

static void test_stream_waits(void **state)
{
	(void)state;
	kill_it("waits");
}

static void test_kernel_never_ends(void **state)
{
	(void)state;
	if (!ty_busy_image_bytes)
		skip(); /* no kernels in this build */
	kill_it("hangs");
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_stream_waits),
		cmocka_unit_test(test_kernel_never_ends),
	};
	char devices[32];
	int failed;

	snprintf(devices, sizeof devices, "devices=%d", G_DEVICES); /* the same ones for all of these processes */
	setenv("TYER_STANDIN", devices, 1);
	if (argc == 4)
		victim(argv + 1);
	g_prepare(&house);
	failed = cmocka_run_group_tests(tests, NULL, NULL);
	g_finish();
	return failed;
}
