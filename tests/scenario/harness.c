/* SPDX-License-Identifier: Apache-2.0 */
#include "harness.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "actors/service.h"
#include "kernels/pattern.h"

#define SEED 0x7ab1e7ull

void h_prepare(struct h_service *s)
{
	char *argv[] = {(char *)"test", NULL};
	bool help, version;
	struct ty_error err;

	memset(s, 0, sizeof *s);
	if (ty_config_parse(&s->config, 1, argv, &help, &version, &err) != TY_OK)
		fail_msg("%s", err.text);
	snprintf(s->dir, sizeof s->dir, "/tmp/tyer-test-XXXXXX");
	assert_non_null(mkdtemp(s->dir));
	snprintf(s->config.listen, sizeof s->config.listen, "ipc://%s/rpc.sock", s->dir);
	snprintf(s->config.attach, sizeof s->config.attach, "%s/attach.sock", s->dir);
	snprintf(s->config.http, sizeof s->config.http, "off");
	snprintf(s->config.admin, sizeof s->config.admin, "off");
	snprintf(s->config.device[0], sizeof s->config.device[0], "host");
	s->config.device_count = 1;
	s->config.chunk_tokens = H_CHUNK_TOKENS;
	s->config.l1_size = 2 * TY_PIECE_BYTES;
	s->config.l1_ahead = TY_PIECE_BYTES;
	s->config.workers = 2;
	s->config.log_level = 0;
}

void h_prepare_held(struct h_service *s)
{
	int fd = memfd_create("hold", 0); /* inherited by a service of its own process */

	h_prepare(s);
	assert_true(fd >= 0 && ftruncate(fd, sizeof *s->hold) == 0);
	s->hold = mmap(NULL, sizeof *s->hold, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	assert_ptr_not_equal(s->hold, MAP_FAILED);
	s->hold_fd = fd;
	snprintf(s->config.device[0], sizeof s->config.device[0], "host:hold-fd=%d", fd);
}

/* With TYER_PING_BESIDE, a folder, and TYER_BENCH, tyer-bench: PINGs to the service from a process of their own. */
static void begin_pings(struct h_service *s)
{
	const char *folder = getenv("TYER_PING_BESIDE"), *bench = getenv("TYER_BENCH");
	char report[256];
	const char *argv[] = {bench, "ping", "--connect", s->url, "--rate", "1000", "--duration", "3000s", "--json", report, NULL};
	posix_spawn_file_actions_t quiet;

	if (!folder || !bench)
		return;
	snprintf(report, sizeof report, "%s/%s.json", folder, strrchr(s->dir, '/') + 1);
	posix_spawn_file_actions_init(&quiet);
	posix_spawn_file_actions_addopen(&quiet, 1, "/dev/null", O_WRONLY, 0);
	posix_spawn_file_actions_adddup2(&quiet, 1, 2);
	assert_int_equal(posix_spawn(&s->pinger, bench, &quiet, NULL, (char **)(uintptr_t)argv, environ), 0);
	posix_spawn_file_actions_destroy(&quiet);
}

static void end_pings(struct h_service *s)
{
	if (!s->pinger)
		return;
	kill(s->pinger, SIGINT);
	waitpid(s->pinger, NULL, 0);
	s->pinger = 0;
}

void h_start(struct h_service *s)
{
	struct ty_error err = {.code = TY_OK};

	snprintf(s->url, sizeof s->url, "%.127s", s->config.listen);
	if (ty_service_start(&s->config, NULL, &s->service, &err) != TY_OK)
		fail_msg("%s", err.text);
	begin_pings(s);
}

void h_restart(struct h_service *s, void (*between)(int arena, int slots))
{
	struct ty_heritage heritage = {
		.arena = dup(s->service->arena.fd), .slots = dup(ty_slots_fd(s->service->slots)), .record = -1, .http = -1, .restarts = 1, .reason = "a test",
	};
	struct ty_error err = {.code = TY_OK};

	ty_service_stop(s->service);
	s->service = NULL;
	if (between)
		between(heritage.arena, heritage.slots);
	if (ty_service_start(&s->config, &heritage, &s->service, &err) != TY_OK)
		fail_msg("%s", err.text);
}

void h_idle(struct h_service *s, bool leases)
{
	struct ty_service *service = s->service;

	while (atomic_load(&service->operations.used) || atomic_load(&service->operations.used_bytes) ||
		(leases && atomic_load(&service->lookup_stats.leases)))
		poll(NULL, 0, 1);
}

void h_stop(struct h_service *s)
{
	DIR *dir;

	end_pings(s);
	if (s->hold)
		atomic_store(s->hold, H_GO);
	if (s->service)
		ty_service_stop(s->service);
	s->service = NULL;
	dir = opendir(s->dir);
	for (struct dirent *d; dir && (d = readdir(dir));)
		unlinkat(dirfd(dir), d->d_name, 0);
	if (dir)
		closedir(dir);
	rmdir(s->dir);
	if (s->hold) {
		munmap((void *)(uintptr_t)s->hold, sizeof *s->hold);
		close(s->hold_fd);
	}
}

int h_setup(void **state)
{
	h_prepare(*state);
	h_start(*state);
	return 0;
}

int h_setup_held(void **state)
{
	h_prepare_held(*state);
	h_start(*state);
	return 0;
}

int h_teardown(void **state)
{
	h_stop(*state);
	return 0;
}

struct ty_pool *h_pool(struct h_client *c, uint32_t part, uint32_t parts)
{
	static struct ty_region region;
	static struct ty_plane planes[H_PLANES];
	static struct ty_group group;
	static struct ty_pool pool;

	region = (struct ty_region){.is_fd = true, .fd = c->fd, .allocation_bytes = H_POOL_BYTES, .length = H_POOL_BYTES};
	for (uint32_t i = 0; i < H_PLANES; i++)
		planes[i] = (struct ty_plane){0, (uint64_t)i * H_BLOCKS * H_RUN};
	group = (struct ty_group){H_BLOCK_TOKENS, H_BLOCKS, H_RUN, H_RUN, H_PLANES, planes};
	pool = (struct ty_pool){.region_count = 1, .group_count = 1, .regions = &region, .groups = &group, .part = part,
		.parts = parts, .format = "test"};
	return &pool;
}

enum ty_code h_try_open(struct h_service *s, struct h_client *c, const uint8_t engine[16], const char *tenant, uint32_t part,
	uint32_t parts)
{
	struct ty_client_options o = {
		.size = sizeof o, .url = s->url, .attach_path = s->config.attach, .name = "test", .tenant = tenant,
		.model = "m", .revision = "1", .dtype = "bf16",
	};
	enum ty_code code;

	memset(c, 0, sizeof *c);
	if (engine)
		memcpy(o.engine, engine, sizeof o.engine);
	code = ty_client_open(&o, &c->client, &c->refused);
	if (code != TY_OK)
		return code;
	c->fd = memfd_create("pool", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	assert_true(c->fd >= 0);
	assert_int_equal(ftruncate(c->fd, (off_t)H_POOL_BYTES), 0);
	assert_int_equal(fcntl(c->fd, F_ADD_SEALS, F_SEAL_SHRINK), 0);
	c->pool = mmap(NULL, H_POOL_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, c->fd, 0);
	assert_ptr_not_equal(c->pool, MAP_FAILED);
	if (!parts)
		return TY_OK;
	code = h_wait(c, ty_client_register(c->client, h_pool(c, part, parts), h_done, c, &c->refused));
	if (code != TY_OK) {
		(void)ty_fail(&c->refused, code, "%s", c->error);
		h_close(c);
		return code;
	}
	assert_int_equal(c->last.registered.chunk_bytes, H_CHUNK_BYTES);
	c->registration = c->last.registered.registration;
	return TY_OK;
}

void h_open(struct h_service *s, struct h_client *c, const uint8_t engine[16], const char *tenant, uint32_t part,
	uint32_t parts)
{
	if (h_try_open(s, c, engine, tenant, part, parts) != TY_OK)
		fail_msg("%s", c->refused.text);
}

void h_close(struct h_client *c)
{
	ty_client_close(c->client);
	munmap(c->pool, H_POOL_BYTES);
	close(c->fd);
}

void h_ok(const struct h_client *c, enum ty_code code)
{
	if (code != TY_OK)
		fail_msg("%s: %s", ty_code_name(code), c->error);
}

void h_expect(const struct h_client *c, enum ty_code code, enum ty_code expected, const char *words)
{
	if (code != expected || !strstr(c->error, words))
		fail_msg("got %s \"%s\", expected %s \"%s\"", ty_code_name(code), c->error, ty_code_name(expected), words);
}

void h_done(void *user, const struct ty_result *result)
{
	struct h_client *c = user;

	c->last = *result;
	snprintf(c->error, sizeof c->error, "%s", result->error ? result->error : "");
	c->last.error = c->error;
}

static const uint64_t PENDING = 99;

enum ty_code h_wait(struct h_client *c, enum ty_code sent)
{
	if (sent != TY_OK) {
		snprintf(c->error, sizeof c->error, "%s", c->refused.text);
		return sent;
	}
	h_send(c, sent);
	return h_answer(c);
}

void h_send(struct h_client *c, enum ty_code sent)
{
	if (sent != TY_OK)
		fail_msg("%s", c->refused.text);
	c->last.code = (enum ty_code)PENDING; /* completions come in ty_client_poll alone */
}

bool h_answered(const struct h_client *c)
{
	return (uint64_t)c->last.code != PENDING;
}

enum ty_code h_answer(struct h_client *c)
{
	while (!h_answered(c))
		ty_client_poll(c->client, 0, 100000);
	return c->last.code;
}

const struct ty_chain *h_chain(uint32_t base, uint32_t count)
{
	static uint8_t hashes[4096][TY_KEY_BYTES];
	static struct ty_chain chain;

	assert_true(count <= 4096);
	memset(hashes, 0, count * sizeof hashes[0]);
	for (uint32_t i = 0; i < count; i++) {
		uint32_t id = base + i;

		memcpy(hashes[i], &id, sizeof id);
	}
	chain = (struct ty_chain){.hashes = hashes[0], .chunk_count = count};
	return &chain;
}

enum ty_code h_lookup(struct h_client *c, uint64_t session, uint32_t base, uint32_t count)
{
	return h_wait(c, ty_client_lookup(c->client, session, h_chain(base, count), h_done, c, &c->refused));
}

struct ty_transfer h_transfer(const struct h_client *c, uint64_t session, uint32_t first, uint32_t count, uint32_t block)
{
	static uint32_t ids[H_BLOCKS * 64], length;
	static const uint32_t *lists[1] = {ids};

	length = count * H_PER_CHUNK;
	assert_true(length <= sizeof ids / sizeof ids[0]);
	for (uint32_t i = 0; i < length; i++)
		ids[i] = block + i;
	return (struct ty_transfer){.session = session, .registration = c->registration, .first = first, .count = count,
		.blocks = lists, .block_counts = &length, .group_count = 1};
}

enum ty_code h_store(struct h_client *c, uint64_t session, uint32_t first, uint32_t count, uint32_t block)
{
	struct ty_transfer t = h_transfer(c, session, first, count, block);

	return h_wait(c, ty_client_store(c->client, &t, h_done, c, &c->refused));
}

enum ty_code h_retrieve(struct h_client *c, uint64_t session, uint32_t first, uint32_t count, uint32_t block)
{
	struct ty_transfer t = h_transfer(c, session, first, count, block);

	return h_wait(c, ty_client_retrieve(c->client, &t, h_done, c, &c->refused));
}

enum ty_code h_end(struct h_client *c, uint64_t session)
{
	return h_wait(c, ty_client_end_session(c->client, session, h_done, c, &c->refused));
}

/* ---- operations ------------------------------------------------------------------------------------------- */

static void on_told(void *user, const struct ty_result *result)
{
	struct h_told *t = user;

	t->there = true;
	t->code = result->code;
	t->count = result->code == TY_OK ? result->operations.count : 0;
	if (t->count)
		t->operation = result->operations.list[0];
}

static struct h_told wait_told(struct h_client *c, struct h_told *t, enum ty_code sent)
{
	assert_int_equal(sent, TY_OK);
	while (!t->there)
		ty_client_poll(c->client, 0, 100000);
	assert_int_equal(t->code, TY_OK);
	return *t;
}

struct h_told h_ask(struct h_client *c, uint64_t id)
{
	struct h_told t = {.there = false};

	return wait_told(c, &t, ty_client_operations(c->client, &id, 1, on_told, &t, NULL));
}

struct h_told h_cancel(struct h_client *c, uint64_t id)
{
	struct h_told t = {.there = false};

	return wait_told(c, &t, ty_client_cancel(c->client, id, on_told, &t, NULL));
}

uint32_t h_operations(struct h_client *c)
{
	struct h_told t = {.there = false};

	return wait_told(c, &t, ty_client_operations(c->client, NULL, 0, on_told, &t, NULL)).count;
}

/* ---- contents: split layout, each plane an array of blocks ------------------------------------------------ */

static uint64_t *run_at(struct h_client *c, uint32_t block, uint32_t plane)
{
	return (uint64_t *)(void *)(c->pool + ((uint64_t)plane * H_BLOCKS + block) * H_RUN);
}

uint64_t h_mask = UINT64_MAX;

static uint64_t each_word(struct h_client *c, uint32_t tag, uint32_t count, uint32_t block, uint32_t plane, bool write)
{
	uint64_t wrong = 0;

	for (uint32_t k = 0; k < count * H_PER_CHUNK; k++) {
		uint64_t *words = run_at(c, block + k, plane);
		uint32_t at = ((k % H_PER_CHUNK) * H_PLANES + plane) * (H_RUN / 8);

		for (uint32_t i = 0; i < H_RUN / 8; i++) {
			uint64_t expected = ty_pattern_word(SEED, tag + k / H_PER_CHUNK, at + i) & h_mask;

			if (write)
				words[i] = expected;
			else
				wrong += words[i] != expected;
		}
	}
	return wrong;
}

void h_fill(struct h_client *c, uint32_t tag, uint32_t count, uint32_t block)
{
	for (uint32_t plane = 0; plane < H_PLANES; plane++)
		each_word(c, tag, count, block, plane, true);
}

uint64_t h_wrong_in_plane(struct h_client *c, uint32_t tag, uint32_t count, uint32_t block, uint32_t plane)
{
	return each_word(c, tag, count, block, plane, false);
}

uint64_t h_wrong(struct h_client *c, uint32_t tag, uint32_t count, uint32_t block)
{
	uint64_t wrong = 0;

	for (uint32_t plane = 0; plane < H_PLANES; plane++)
		wrong += h_wrong_in_plane(c, tag, count, block, plane);
	return wrong;
}

void h_wipe(struct h_client *c, uint32_t count, uint32_t block)
{
	for (uint32_t k = 0; k < count * H_PER_CHUNK; k++)
		for (uint32_t plane = 0; plane < H_PLANES; plane++)
			memset(run_at(c, block + k, plane), 0xa5, H_RUN);
}
