/* SPDX-License-Identifier: Apache-2.0
 *
 * An owner in the engine's process, over a service in another's stead: here both run in this process, or the engine in a child that is
 * killed. The blocks are ordinary memory (the host device), or a GPU's (the stand-in driver's).
 */
#include "harness.h"

#include <tyer/embed.h>

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "actors/service.h"
#include "base/tsan.h"
#include "wire/attach.h"
#include "wire/owner.h"

#define POOL_BYTES ((uint64_t)H_BLOCKS * H_PLANES * H_RUN)
#define CLOSE_US 60000000u
#define LAYERED_CHUNKS 16u
#define LAYERED_ROUNDS 50u

static struct h_service service;

static void start(void)
{
	h_prepare(&service);
	service.config.embed_uid = (struct ty_uids){1, {geteuid()}};
	h_start(&service);
}

static struct ty_embed *open_owner(const char *fault)
{
	struct ty_embed_options o = {.size = sizeof o, .attach_path = service.config.attach, .device = "host", .name = "test", .fault = fault};
	struct ty_embed *embed;
	struct ty_error err = {.code = TY_OK};

	if (ty_embed_open(&o, &embed, &err) != TY_OK)
		fail_msg("%s: %s", ty_code_name(err.code), err.text);
	return embed;
}

static void close_owner(struct ty_embed *embed)
{
	struct ty_error err = {.code = TY_OK};

	if (ty_embed_close(embed, CLOSE_US, &err) != TY_OK)
		fail_msg("%s", err.text);
}

/* The harness's pool, by its address. */
static struct ty_pool *own_pool(struct h_client *c)
{
	static struct ty_region region;
	struct ty_pool *pool = h_pool(c, 0, 1);

	region = (struct ty_region){.address = (uintptr_t)c->pool, .allocation_bytes = POOL_BYTES, .length = POOL_BYTES};
	pool->regions = &region;
	return pool;
}

static enum ty_code offer_and_register(struct ty_embed *embed, struct h_client *c, uint32_t step_count, const uint32_t *steps)
{
	struct ty_pool *pool = own_pool(c);
	enum ty_code code;

	pool->step_count = step_count;
	pool->steps = steps;
	if (ty_embed_offer(embed, c->client, pool, &c->refused) != TY_OK)
		fail_msg("%s", c->refused.text);
	code = h_wait(c, ty_client_register(c->client, pool, h_done, c, &c->refused));
	if (code == TY_OK)
		c->registration = c->last.registered.registration;
	return code;
}

static void open_client(struct ty_embed *embed, struct h_client *c)
{
	h_open(&service, c, NULL, "a", 0, 0);
	if (offer_and_register(embed, c, 0, NULL) != TY_OK)
		fail_msg("%s", c->error);
	assert_int_equal(c->last.registered.chunk_bytes, H_CHUNK_BYTES);
}

static void must(struct h_client *c, enum ty_code code)
{
	if (code != TY_OK)
		fail_msg("%s: %s", ty_code_name(code), c->error);
}

/* With an owner in this process, whose order with this thread goes over sockets (src/embed/link_work.c). */
static enum ty_code own_store(struct h_client *c, uint64_t session, uint32_t count, uint32_t block)
{
	ty_tsan_release(c->pool);
	return h_store(c, session, 0, count, block);
}

static enum ty_code own_retrieve(struct h_client *c, uint64_t session, uint32_t count, uint32_t block)
{
	enum ty_code code;

	ty_tsan_release(c->pool);
	code = h_retrieve(c, session, 0, count, block);
	ty_tsan_acquire(c->pool);
	return code;
}

/* What one stored another finds, through the service's owner as well as through one of its own. */
static void test_round_trip(void **state)
{
	struct ty_embed_stats stats;
	struct h_client c, other;
	struct ty_embed *embed;

	(void)state;
	start();
	embed = open_owner(NULL);
	assert_int_equal(ty_embed_state(embed), TY_OK);
	open_client(embed, &c);
	h_open(&service, &other, NULL, "a", 0, 1);

	h_fill(&c, 100, 16, 0);
	must(&c, h_lookup(&c, 1, 100, 16));
	must(&c, own_store(&c, 1, 16, 0));
	assert_int_equal(c.last.store.stored, 16);
	must(&other, h_lookup(&other, 1, 100, 16));
	assert_int_equal(other.last.lookup.hits, 16);
	must(&other, h_retrieve(&other, 1, 0, 16, 64));
	assert_int_equal(h_wrong(&other, 100, 16, 64), 0);

	h_fill(&other, 200, 16, 0);
	must(&other, h_lookup(&other, 2, 200, 16));
	must(&other, h_store(&other, 2, 0, 16, 0));
	must(&c, h_lookup(&c, 2, 200, 16));
	h_wipe(&c, 64 / H_PER_CHUNK, 64);
	must(&c, own_retrieve(&c, 2, 16, 64));
	assert_int_equal(h_wrong(&c, 200, 16, 64), 0);

	ty_embed_stats(embed, &stats);
	assert_int_equal(stats.stored_bytes, 16 * H_CHUNK_BYTES);
	assert_int_equal(stats.retrieved_bytes, 16 * H_CHUNK_BYTES);
	assert_int_equal(stats.failed, 0);
	assert_int_equal(atomic_load(&service.service->embedded_stats.stored_bytes), 16 * H_CHUNK_BYTES);
	must(&c, h_wait(&c, ty_client_unregister(c.client, c.registration, h_done, &c, &c.refused)));
	h_close(&c);
	h_close(&other);
	close_owner(embed);
	h_stop(&service);
}

/* The service may have a pool mapped as soon as it was offered, whatever else the link has in its mailbox. */
static void test_offers_count_at_once(void **state)
{
	struct ty_embed *embed;
	struct h_client c;

	(void)state;
	start();
	embed = open_owner(NULL);
	h_open(&service, &c, NULL, "a", 0, 0);
	for (int i = 0; i < 500; i++) {
		must(&c, offer_and_register(embed, &c, 0, NULL));
		must(&c, h_wait(&c, ty_client_unregister(c.client, c.registration, h_done, &c, &c.refused)));
	}
	h_close(&c);
	close_owner(embed);
	h_stop(&service);
}

static void test_who_may(void **state)
{
	struct ty_embed_options o = {.size = sizeof o, .device = "host"};
	struct ty_embed *embed;
	struct ty_error err = {.code = TY_OK};

	(void)state;
	h_prepare(&service);
	h_start(&service);
	o.attach_path = service.config.attach;
	assert_int_equal(ty_embed_open(&o, &embed, &err), TY_DENIED);
	assert_non_null(strstr(err.text, "--embed-uid"));
	h_stop(&service);
	assert_int_equal(ty_embed_open(&o, &embed, &err), TY_CLOSED);
	o.device = NULL;
	assert_int_equal(ty_embed_open(&o, &embed, &err), TY_INVALID);
}

/* Layer by layer: each layer's blocks are looked at as soon as its word is there, while the owner goes on with the next. Both threads see
 * blocks and words at the same addresses, so that ThreadSanitizer sees what orders them: the words, and nothing else. */
static void test_layers(void **state)
{
	static const uint32_t steps[H_PLANES] = {1, 2, 3, 4};
	struct ty_embed *embed;
	struct h_client c;

	(void)state;
	start();
	embed = open_owner(NULL);
	h_open(&service, &c, NULL, "a", 0, 0);
	must(&c, offer_and_register(embed, &c, H_PLANES, steps));
	h_fill(&c, 100, LAYERED_CHUNKS, 0);
	must(&c, h_lookup(&c, 1, 100, LAYERED_CHUNKS));
	must(&c, own_store(&c, 1, LAYERED_CHUNKS, 0));
	must(&c, h_lookup(&c, 2, 100, LAYERED_CHUNKS));
	for (uint64_t round = 0; round < LAYERED_ROUNDS; round++) {
		struct ty_transfer t = h_transfer(&c, 2, 0, LAYERED_CHUNKS, H_BLOCKS / 2);

		t.layers = (struct ty_mark){9, 1 + round * H_PLANES};
		h_wipe(&c, LAYERED_CHUNKS, H_BLOCKS / 2);
		ty_tsan_release(c.pool); /* as own_retrieve */
		h_send(&c, ty_client_retrieve(c.client, &t, h_done, &c, &c.refused));
		for (uint32_t plane = 0; plane < H_PLANES; plane++) {
			while (!ty_client_reached(c.client, (struct ty_mark){9, t.layers.value + plane}))
				ty_client_poll(c.client, 0, 100);
			assert_int_equal(h_wrong_in_plane(&c, 100, LAYERED_CHUNKS, H_BLOCKS / 2, plane), 0);
		}
		must(&c, h_answer(&c));
	}
	h_close(&c);
	close_owner(embed);
	h_stop(&service);
}

/* ---- an owner that is not ours --------------------------------------------------------------------------- */

/* What any process may say over the sockets. */
struct liar {
	struct ty_owner_stream stream;
	struct ty_owner_frame last;
	int kept; /* the end that it handed over: it keeps that as well, and nobody can prevent it */
};

static void liar_close(struct liar *l)
{
	ty_owner_stream_close(&l->stream);
	close(l->kept);
}

/* Does any thread of this process wait in epoll for that socket? */
static bool is_waited_for(int fd)
{
	char path[64], link[64] = "", line[256], wanted[32];
	DIR *dir = opendir("/proc/self/fd");
	bool found = false;
	struct stat st;

	assert_non_null(dir);
	assert_int_equal(fstat(fd, &st), 0);
	snprintf(wanted, sizeof wanted, "ino:%lx ", (unsigned long)st.st_ino);
	for (struct dirent *d; (d = readdir(dir));) {
		FILE *info;

		if (d->d_name[0] == '.' || readlinkat(dirfd(dir), d->d_name, link, sizeof link - 1) < 0 || !strstr(link, "[eventpoll]"))
			continue;
		snprintf(path, sizeof path, "/proc/self/fdinfo/%.16s", d->d_name);
		info = fopen(path, "r");
		while (info && fgets(line, sizeof line, info))
			found |= strstr(line, wanted) != NULL;
		if (info)
			fclose(info);
	}
	closedir(dir);
	return found;
}

static void liar_open(struct liar *l, const uint8_t id[TY_OWNER_BYTES])
{
	struct ty_attach_frame welcome, embed = {.type = TY_ATTACH_EMBED};
	struct ty_owner_frame hello = {.type = TY_OWNER_HELLO, .hello.name = "liar"};
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	struct ty_error err;
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0), pair[2], page;
	struct pollfd p = {.fd = fd, .events = POLLIN};

	memset(l, 0, sizeof *l);
	strcpy(address.sun_path, service.config.attach);
	assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
	assert_int_equal(poll(&p, 1, -1), 1);
	assert_int_equal(ty_attach_recv(fd, &welcome, &page, &err), TY_OK);
	close(page);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair), 0);
	assert_int_equal(ty_attach_send(fd, &embed, pair[1], &err), TY_OK);
	l->kept = pair[1];
	ty_owner_stream_open(&l->stream, pair[0], TY_OWNER_TO_OWNER_MAX);
	memcpy(hello.hello.id, id, TY_OWNER_BYTES);
	assert_int_equal(ty_owner_put(&l->stream, &hello, &err), TY_OK);
	assert_int_equal(ty_owner_flush(&l->stream, &err), TY_OK);
	close(fd);
}

/* The next frame of this type; TY_CLOSED: the connection ended before one came. */
static enum ty_code liar_wait(struct liar *l, enum ty_owner_type type)
{
	struct pollfd p = {.fd = l->stream.fd, .events = POLLIN};
	struct ty_error err;
	enum ty_code code;

	do {
		while ((code = ty_owner_take(&l->stream, &l->last, &err)) == TY_BUSY)
			poll(&p, 1, -1);
	} while (code == TY_OK && l->last.type != type);
	return code;
}

static void liar_say(struct liar *l, enum ty_owner_type type, uint64_t number, enum ty_code code)
{
	struct ty_owner_frame f = {.type = type, .end = {.number = number, .code = code}};
	struct ty_error err;

	assert_int_equal(ty_owner_put(&l->stream, &f, &err), TY_OK);
	assert_int_equal(ty_owner_flush(&l->stream, &err), TY_OK);
}

static const uint8_t liar_id[TY_OWNER_BYTES] = {1, 2, 3};

/* Register the pool with it, by hand: nobody offers anything. */
static void liar_register(struct liar *l, struct h_client *c)
{
	struct ty_pool *pool = own_pool(c);

	memcpy(pool->owner, liar_id, sizeof liar_id);
	pool->memory = 7;
	assert_int_equal(ty_client_register(c->client, pool, h_done, c, &c->refused), TY_OK);
	while (ty_client_poll(c->client, 0, 0) == 0 && liar_wait(l, TY_OWNER_MAP) != TY_OK)
		;
	assert_int_equal(l->last.map.memory, 7);
	assert_int_equal(l->last.map.chunk_bytes, H_CHUNK_BYTES);
}

static const struct ty_transfer *a_store(struct h_client *c)
{
	static uint32_t ids[4 * H_PER_CHUNK], length = 4 * H_PER_CHUNK;
	static const uint32_t *lists[1] = {ids};
	static struct ty_transfer t;

	for (uint32_t i = 0; i < length; i++)
		ids[i] = i;
	t = (struct ty_transfer){.session = 1, .registration = c->registration, .count = 4, .blocks = lists, .block_counts = &length,
		.group_count = 1};
	return &t;
}

static void liar_and_client(struct liar *l, struct h_client *c)
{
	struct h_client *client = c;

	liar_open(l, liar_id);
	assert_int_equal(liar_wait(l, TY_OWNER_WELCOME), TY_OK);
	assert_true(l->stream.received_fd >= 0);
	h_open(&service, client, NULL, "a", 0, 0);
	liar_register(l, client);
	client->last.code = (enum ty_code)99;
	liar_say(l, TY_OWNER_MAPPED, l->last.map.map, TY_OK);
	while ((int)client->last.code == 99)
		ty_client_poll(client->client, 0, 100000);
	assert_int_equal(client->last.code, TY_OK);
	client->registration = client->last.registered.registration;
	must(client, h_lookup(client, 1, 500, 4));
	assert_int_equal(ty_client_store(client->client, a_store(client), h_done, client, &client->refused), TY_OK);
	client->last.code = (enum ty_code)99;
	assert_int_equal(liar_wait(l, TY_OWNER_GRANT), TY_OK);
	assert_int_equal(l->last.grant.count, 4);
	assert_true(l->last.grant.store);
}

static uint64_t stat_of(const _Atomic uint64_t *counter)
{
	return atomic_load(counter);
}

/* Said to be done twice: the second time is a violation, and what was said the first time counts. */
static void test_commit_twice(void **state)
{
	const struct ty_mark done = {3, 1};
	struct ty_transfer late;
	struct h_client c;
	struct liar l;
	uint64_t op;

	(void)state;
	start();
	liar_and_client(&l, &c);
	op = l.last.grant.op;
	assert_true(is_waited_for(l.kept));
	liar_say(&l, TY_OWNER_DONE, op, TY_OK);
	while ((int)c.last.code == 99)
		ty_client_poll(c.client, 0, 100000);
	assert_int_equal(c.last.code, TY_OK);
	assert_int_equal(c.last.store.stored, 4);
	liar_say(&l, TY_OWNER_DONE, op, TY_OK);
	assert_int_equal(liar_wait(&l, TY_OWNER_REFUSED), TY_OK);
	assert_int_equal(l.last.end.code, TY_PROTOCOL);
	assert_int_equal(liar_wait(&l, TY_OWNER_REFUSED), TY_CLOSED);
	assert_int_equal(stat_of(&service.service->embedded_stats.violations), 1);
	/* nothing is out: the pool goes at once, and another store is refused */
	must(&c, h_lookup(&c, 2, 600, 4));
	late = *a_store(&c);
	late.session = 2;
	late.done = done;
	assert_int_equal(h_wait(&c, ty_client_store(c.client, &late, h_done, &c, &c.refused)), TY_CLOSED);
	assert_true(ty_client_reached(c.client, done)); /* its blocks may be used again, and a stream that waits for that goes on */
	must(&c, h_wait(&c, ty_client_unregister(c.client, c.registration, h_done, &c, &c.refused)));
	must(&c, h_lookup(&c, 3, 500, 4));
	/* The service has closed its descriptor, which is not the last one: it must not hear of the socket's end for ever. */
	assert_false(is_waited_for(l.kept));
	liar_close(&l);
	h_close(&c);
	h_stop(&service);
}

/* Two owners of one process, for two GPUs: when one is gone the other's slots are still lent to that process. Whoever finds the table
 * then, because this service was killed, leaves alone what may yet be copied into. */
static void test_two_owners(void **state)
{
	static const uint8_t other_id[TY_OWNER_BYTES] = {4, 5, 6};
	struct ty_slots_found found;
	struct ty_slots *slots;
	struct ty_arena arena;
	struct ty_error err;
	struct h_client c;
	struct liar l, other;

	(void)state;
	start();
	liar_and_client(&l, &c);
	liar_open(&other, other_id);
	assert_int_equal(liar_wait(&other, TY_OWNER_WELCOME), TY_OK);
	while (stat_of(&service.service->embedded_stats.owners) != 2)
		usleep(1000);
	liar_close(&other);
	while (stat_of(&service.service->embedded_stats.owners) != 1)
		usleep(1000);
	assert_int_equal(ty_arena_adopt(service.config.l1_size, dup(service.service->arena.fd), &arena, &err), TY_OK);
	assert_int_equal(ty_slots_adopt(&arena, dup(ty_slots_fd(service.service->slots)), &slots, &found, &err), TY_OK);
	assert_int_equal(found.unfinished, 4);
	assert_int_equal(found.aside, 1);
	ty_slots_close(slots);
	ty_arena_close(&arena);
	liar_say(&l, TY_OWNER_DONE, l.last.grant.op, TY_OK);
	while ((int)c.last.code == 99)
		ty_client_poll(c.client, 0, 100000);
	assert_int_equal(c.last.code, TY_OK);
	liar_close(&l);
	h_close(&c);
	h_stop(&service);
}

/* ---- an engine that dies ----------------------------------------------------------------------------------- */

/* In a child: an owner, a client, and a store whose copies take their time; or an owner that says to have done what it was never
 * granted, and bytes that are none of the protocol's. Either waits to be killed. */
static _Noreturn void victim(char **argv)
{
	static const char nonsense[] = "these bytes are no frame, but there are enough of them to be looked at";
	struct ty_embed *embed;
	struct h_client c;
	struct liar l;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	memset(&service, 0, sizeof service);
	snprintf(service.url, sizeof service.url, "%s", argv[1]);
	snprintf(service.config.attach, sizeof service.config.attach, "%s", argv[2]);
	if (strcmp(argv[3], "lie") == 0) {
		liar_and_client(&l, &c);
		liar_say(&l, TY_OWNER_DONE, l.last.grant.op + 1, TY_OK);
		assert_int_equal(liar_wait(&l, TY_OWNER_REFUSED), TY_OK);
		assert_int_equal(l.last.end.code, TY_PROTOCOL);
		assert_int_equal(liar_wait(&l, TY_OWNER_REFUSED), TY_CLOSED);
		liar_close(&l);
		liar_open(&l, liar_id);
		assert_int_equal(liar_wait(&l, TY_OWNER_WELCOME), TY_OK);
		assert_int_equal(write(l.stream.fd, nonsense, sizeof nonsense), sizeof nonsense);
		assert_int_equal(liar_wait(&l, TY_OWNER_REFUSED), TY_OK);
		assert_int_equal(l.last.end.code, TY_PROTOCOL);
		liar_close(&l);
		for (;;)
			ty_client_poll(c.client, 0, 1000000);
	}
	embed = open_owner("hang-after=0");
	open_client(embed, &c);
	h_fill(&c, 500, 4, 0);
	must(&c, h_lookup(&c, 1, 500, 4));
	assert_int_equal(ty_client_store(c.client, a_store(&c), h_done, &c, &c.refused), TY_OK);
	for (;;)
		ty_client_poll(c.client, 0, 1000000);
}

static pid_t start_victim(const char *what)
{
	pid_t pid = fork();

	if (pid == 0) {
		execl("/proc/self/exe", "embed_test", service.url, service.config.attach, what, NULL);
		_exit(127);
	}
	return pid;
}

static void wait_until(const _Atomic uint64_t *counter, uint64_t value)
{
	while (stat_of(counter) != value)
		poll(NULL, 0, 1);
}

/* What an owner was granted stays out of everybody's reach until the kernel says that its process is over, and then it is as
 * if it had never been: whether it died in the middle of a store or spoke nonsense before it did. */
static void victim_dies(const char *what, bool lost_before)
{
	const struct ty_embedded_stats *stats;
	const struct ty_eviction_stats *space;
	struct h_client other;
	pid_t pid;

	start();
	stats = &service.service->embedded_stats;
	space = &service.service->eviction_stats;
	h_open(&service, &other, NULL, "a", 0, 1);
	pid = start_victim(what);
	if (lost_before) {
		wait_until(&stats->violations, 2);
		wait_until(&stats->quarantined, 1);
	}
	wait_until(&stats->out, 1);
	must(&other, h_lookup(&other, 1, 500, 4));
	assert_int_equal(other.last.lookup.hits, 0);
	wait_until(&space->used_bytes, 4 * H_CHUNK_BYTES);
	assert_int_equal(stat_of(&space->aborts), 0);
	kill(pid, SIGKILL);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
	wait_until(&space->aborts, 4);
	wait_until(&space->used_bytes, 0);
	wait_until(&stats->quarantined, 0);
	must(&other, h_lookup(&other, 2, 500, 4));
	assert_int_equal(other.last.lookup.hits, 0);
	h_fill(&other, 500, 4, 0);
	must(&other, h_store(&other, 2, 0, 4, 0));
	assert_int_equal(other.last.store.stored, 4);
	h_close(&other);
	h_stop(&service);
}

static void test_killed_in_a_store(void **state)
{
	(void)state;
	victim_dies("store", false);
}

static void test_bad_commit(void **state)
{
	(void)state;
	victim_dies("lie", true);
}

/* ---- time, and a service that comes back ------------------------------------------------------------------ */

static void on_late(void *user, const struct ty_result *result)
{
	*(int *)user = (int)result->code;
}

/* It is given up, or its session ends, while its copy waits: the answer comes in time, and what was granted comes home. */
static void test_late(void **state)
{
	struct ty_transfer t;
	struct ty_embed *embed;
	struct h_client c;
	int late = -1;

	(void)state;
	start();
	embed = open_owner(NULL);
	open_client(embed, &c);
	h_fill(&c, 500, 4, 0);
	must(&c, h_lookup(&c, 1, 500, 4));
	t = *a_store(&c);
	t.ready = (struct ty_mark){1, 1}; /* which nobody raises */
	assert_int_equal(ty_client_store(c.client, &t, on_late, &late, &c.refused), TY_OK);
	uint64_t id = ty_client_last_id(c.client);

	wait_until(&service.service->embedded_stats.out, 1);
	must(&c, h_end(&c, 1)); /* the lease is gone, the operation goes on */
	must(&c, h_wait(&c, ty_client_cancel(c.client, id, h_done, &c, &c.refused)));
	wait_until(&service.service->embedded_stats.out, 0);
	wait_until(&service.service->eviction_stats.used_bytes, 0);
	while (late < 0)
		ty_client_poll(c.client, 0, 1000);
	assert_int_equal(late, TY_CANCELLED);
	/* and again, raised: a retrieve whose lease ends while it waits brings what it found */
	must(&c, h_lookup(&c, 2, 500, 4));
	must(&c, own_store(&c, 2, 4, 0));
	must(&c, h_lookup(&c, 3, 500, 4));
	h_wipe(&c, 4, 0);
	t.session = 3;
	t.ready = (struct ty_mark){2, 1};
	t.done = (struct ty_mark){3, 1};
	late = -1;
	ty_tsan_release(c.pool);
	assert_int_equal(ty_client_retrieve(c.client, &t, on_late, &late, &c.refused), TY_OK);
	wait_until(&service.service->embedded_stats.out, 1);
	must(&c, h_end(&c, 3));
	ty_client_raise(c.client, t.ready);
	while (late < 0)
		ty_client_poll(c.client, 0, 1000);
	assert_int_equal(late, TY_OK);
	assert_true(ty_client_reached(c.client, t.done));
	ty_tsan_acquire(c.pool);
	assert_int_equal(h_wrong(&c, 500, 4, 0), 0);
	h_close(&c);
	close_owner(embed);
	h_stop(&service);
}

/* Another service with the same arena: the owner and the client come back by themselves, and what was stored is there. */
static void test_service_comes_back(void **state)
{
	struct ty_embed *embed;
	struct h_client c;

	(void)state;
	start();
	embed = open_owner(NULL);
	open_client(embed, &c);
	h_fill(&c, 700, 4, 0);
	must(&c, h_lookup(&c, 1, 700, 4));
	must(&c, own_store(&c, 1, 4, 0));
	h_restart(&service, NULL);
	do
		ty_client_poll(c.client, 0, 10000);
	while (ty_client_state(c.client, NULL) != TY_CLIENT_UP);
	do {
		must(&c, h_lookup(&c, 2, 700, 4));
	} while (c.last.lookup.hits != 4);
	h_wipe(&c, 4, 0);
	must(&c, own_retrieve(&c, 2, 4, 0));
	assert_int_equal(h_wrong(&c, 700, 4, 0), 0);
	assert_int_equal(ty_embed_state(embed), TY_OK);
	h_close(&c);
	close_owner(embed);
	h_stop(&service);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_layers),
		cmocka_unit_test(test_offers_count_at_once),
		cmocka_unit_test(test_who_may),
		cmocka_unit_test(test_commit_twice),
		cmocka_unit_test(test_two_owners),
		cmocka_unit_test(test_killed_in_a_store),
		cmocka_unit_test(test_bad_commit),
		cmocka_unit_test(test_late),
		cmocka_unit_test(test_service_comes_back),
	};

	if (argc == 4)
		victim(argv);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
