/* SPDX-License-Identifier: Apache-2.0
 *
 * Owners in other processes that say what is not so, or die: what they were granted stays out of everybody's reach until it is safe. One
 * that lies over the sockets runs in this process, one that is killed in a child.
 */
#include "embed_house.h"

#include <dirent.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "wire/attach.h"
#include "wire/owner.h"

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
		execl("/proc/self/exe", "embed_hostile_test", service.url, service.config.attach, what, NULL);
		_exit(127);
	}
	return pid;
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

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_commit_twice),
		cmocka_unit_test(test_two_owners),
		cmocka_unit_test(test_killed_in_a_store),
		cmocka_unit_test(test_bad_commit),
	};

	if (argc == 4)
		victim(argv);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
