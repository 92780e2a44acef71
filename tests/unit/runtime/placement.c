/* SPDX-License-Identifier: Apache-2.0
 *
 * Where workers run: by list, by CPU, by node; and every way in which the options are refused.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "runtime/placement.h"
#include "runtime/runtime.h"
#include "runtime_test.h"

static void test_lists(void **unused)
{
	static const struct {
		const char *text;
		int count, first, last;
	} good[] = {{"0", 1, 0, 0}, {"0-3\n", 4, 0, 3}, {"1,3-4,9", 4, 1, 9}, {"", 0, -1, -1}, {"\n", 0, -1, -1},
		{"7-7", 1, 7, 7}, {"1020-4000000000", CPU_SETSIZE - 1020, 1020, CPU_SETSIZE - 1}};
	static const char *const bad[] = {"a", "1-", "3-1", "-1", "1;2", "1-2-3", "99999999999", "1 2", "1-99999999999"};
	cpu_set_t cpus;

	(void)unused;
	for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
		assert_true(ty_cpus_parse(good[i].text, &cpus));
		assert_int_equal(CPU_COUNT(&cpus), good[i].count);
		if (good[i].count) {
			assert_true(CPU_ISSET((size_t)good[i].first, &cpus));
			assert_true(CPU_ISSET((size_t)good[i].last, &cpus));
		}
	}
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
		assert_false(ty_cpus_parse(bad[i], &cpus));
}

static void write_file(const char *folder, const char *name, const char *text)
{
	char path[300];
	FILE *file;

	snprintf(path, sizeof path, "%s/%s", folder, name);
	assert_int_equal(mkdir(path, 0700), 0);
	snprintf(path, sizeof path, "%s/%s/cpulist", folder, name);
	file = fopen(path, "w");
	assert_non_null(file);
	assert_true(fputs(text, file) >= 0);
	assert_int_equal(fclose(file), 0);
}

static void test_nodes(void **unused)
{
	char folder[] = "/tmp/tyer-nodes.XXXXXX", command[64], none[300];
	struct ty_nodes nodes;
	cpu_set_t allowed;
	char list[8];
	size_t cpu = 0;

	(void)unused;
	assert_int_equal(sched_getaffinity(0, sizeof allowed, &allowed), 0);
	while (!CPU_ISSET(cpu, &allowed))
		cpu++;
	snprintf(list, sizeof list, "%zu\n", cpu);
	assert_non_null(mkdtemp(folder));
	write_file(folder, "node0", "no list");
	write_file(folder, "node1", list);
	write_file(folder, "node2", "\n"); /* memory without CPUs */
	write_file(folder, "node3", "0-1023\n"); /* more than this process may use */
	write_file(folder, "node5", list);
	ty_nodes_read(folder, &nodes);
	assert_int_equal(nodes.count, 3);
	assert_int_equal(CPU_COUNT(&nodes.cpus[0]), 1);
	assert_true(CPU_EQUAL(&nodes.cpus[1], &allowed));
	assert_true(CPU_ISSET(cpu, &nodes.cpus[2]));
	snprintf(command, sizeof command, "rm -rf %s", folder);
	assert_int_equal(system(command), 0);
	/* no folder, or a name that is too long: all CPUs are one node */
	ty_nodes_read(folder, &nodes);
	assert_int_equal(nodes.count, 1);
	assert_true(CPU_EQUAL(&nodes.cpus[0], &allowed));
	memset(none, 'x', sizeof none);
	none[sizeof none - 1] = 0;
	ty_nodes_read(none, &nodes);
	assert_int_equal(nodes.count, 1);
}

static void test_places(void **unused)
{
	struct ty_nodes nodes = {.count = 2};
	cpu_set_t place;

	(void)unused;
	assert_true(ty_cpus_parse("0-1,8", &nodes.cpus[0]));
	assert_true(ty_cpus_parse("4-5", &nodes.cpus[1]));
	for (uint32_t i = 0; i < 4; i++) {
		ty_place(&nodes, TY_ON_NODES, i, &place);
		assert_true(CPU_EQUAL(&place, &nodes.cpus[i % 2]));
	}
	static const size_t expected[] = {0, 4, 1, 5, 8, 4, 0, 5};
	for (uint32_t i = 0; i < 8; i++) {
		ty_place(&nodes, TY_ON_CPUS, i, &place);
		assert_int_equal(CPU_COUNT(&place), 1);
		assert_true(CPU_ISSET(expected[i], &place));
	}
}

/* Four workers on two nodes, all with actors to be had: the third is the first's neighbour. No thread runs. */
static void test_thieves_stay_on_their_node(void **unused)
{
	enum { WORKERS = 4, ROUNDS = 200 };
	struct ty_worker *workers = aligned_alloc(TY_LINE, WORKERS * sizeof *workers);
	struct ty_runtime *rt = aligned_alloc(TY_LINE, sizeof *rt);
	struct ty_seat *seat = aligned_alloc(TY_LINE, sizeof *seat);
	struct ty_actor actors[WORKERS];
	int from[WORKERS] = {0};

	(void)unused;
	assert_true(workers && rt && seat);
	for (int round = 0; round < ROUNDS; round++) {
		bool none_near = round % 2;
		struct ty_actor *stolen;

		memset(workers, 0, WORKERS * sizeof *workers);
		memset(rt, 0, sizeof *rt);
		memset(seat, 0, sizeof *seat);
		memset(actors, 0, sizeof actors);
		rt->workers = workers;
		rt->worker_count = WORKERS;
		atomic_init(&rt->idle, (1u << WORKERS) - 1); /* who sleeps is taken from at once */
		for (uint32_t i = 0; i < WORKERS; i++) {
			workers[i].thread.rt = rt;
			workers[i].thread.seat = seat;
			workers[i].node = i % 2;
			workers[i].random = (uint32_t)round * 2654435769u;
			if (i && !(i == 2 && none_near))
				ty_runq_push(&workers[i].queue, &actors[i]);
		}
		stolen = ty_worker_steal(&workers[0]);
		assert_non_null(stolen);
		from[stolen - actors]++;
		assert_int_equal(atomic_load(&seat->steals), 1);
	}
	assert_int_equal(from[2], ROUNDS / 2);
	assert_true(from[1] && from[3]); /* if it has to go to the other node, to any of it */
	/* from one that is awake only what it did not run for a while */
	atomic_init(&rt->idle, 0);
	rt->patience_ticks = UINT64_MAX;
	ty_runq_push(&workers[1].queue, &actors[0]);
	for (int i = 0; i < 100; i++)
		assert_null(ty_worker_steal(&workers[0]));
	rt->patience_ticks = 0;
	assert_non_null(ty_worker_steal(&workers[0]));
	free(seat);
	free(rt);
	free(workers);
}

/* ---- workers ---- */

enum { WHERE = 1 };

struct where {
	struct ty_msg msg;
	cpu_set_t cpus;
	struct gate done;
};

static void on_where(void *self, struct ty_msg *msg)
{
	struct where *where = ty_container_of(msg, struct where, msg);

	(void)self;
	assert_int_equal(sched_getaffinity(0, sizeof where->cpus, &where->cpus), 0);
	gate_open(&where->done);
}

static const struct ty_handler handlers[] = {{"where", on_where}};
static const struct ty_class cls = {.name = "where", .first_type = WHERE, .type_count = 1, .handlers = handlers};

static void test_workers(void **unused)
{
	cpu_set_t allowed;
	int cpu = 0;

	(void)unused;
	assert_int_equal(sched_getaffinity(0, sizeof allowed, &allowed), 0);
	while (!CPU_ISSET((size_t)cpu, &allowed))
		cpu++;
	for (int i = 0; i < 4; i++) {
		struct ty_runtime_options options = {.size = sizeof options, .workers = 1};
		struct where where = {0};
		struct ty_runtime *rt;
		struct ty_actor *actor;

		if (i == 3)
			options.cpus = &cpu, options.cpu_count = 1;
		else
			options.placement = (enum ty_placement)i;
		assert_int_equal(ty_runtime_create(&options, &rt, NULL), TY_OK);
		actor = spawn(rt, &cls, NULL, TY_POOL);
		assert_int_equal(ty_send(actor, &where.msg, WHERE), TY_OK);
		gate_wait(&where.done);
		if (i == TY_ANYWHERE)
			assert_true(CPU_EQUAL(&where.cpus, &allowed));
		if (i == TY_ON_CPUS || i == 3)
			assert_int_equal(CPU_COUNT(&where.cpus), 1);
		if (i == 3)
			assert_true(CPU_ISSET((size_t)cpu, &where.cpus));
		ty_actor_unref(actor);
		ty_runtime_destroy(rt);
	}
}

static void test_refused(void **unused)
{
	static const int none[] = {0, CPU_SETSIZE - 1}, negative[] = {-1}, huge[] = {CPU_SETSIZE};
	static const struct {
		struct ty_runtime_options options;
		const char *field;
	} bad[] = {
		{{.placement = (enum ty_placement)3}, "options.placement"},
		{{.cpus = none}, "options.cpu_count"},
		{{.cpu_count = 1}, "options.cpu_count"},
		{{.cpus = none, .cpu_count = 1, .placement = TY_ON_CPUS}, "options.placement"},
		{{.cpus = negative, .cpu_count = 1}, "options.cpus[0]"},
		{{.cpus = huge, .cpu_count = 1}, "options.cpus[0]"},
		{{.cpus = none, .cpu_count = 2, .workers = 2}, "options.cpus[1]"}, /* no machine of ours has it */
		{{.pool_bytes = UINT64_MAX}, "options.pool_bytes"},
		{{.placement = TY_ON_CPUS, .seed = 1}, "deterministic mode"},
		{{.cpus = none, .cpu_count = 1, .seed = 1}, "deterministic mode"},
	};

	(void)unused;
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		struct ty_runtime_options options = bad[i].options;
		struct ty_runtime *rt = NULL;
		struct ty_error err;

		options.size = sizeof options;
		assert_int_equal(ty_runtime_create(&options, &rt, &err), TY_INVALID);
		assert_non_null(strstr(err.text, bad[i].field));
		assert_null(rt);
	}
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_lists),
		cmocka_unit_test(test_nodes),
		cmocka_unit_test(test_places),
		cmocka_unit_test(test_thieves_stay_on_their_node),
		cmocka_unit_test(test_workers),
		cmocka_unit_test(test_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
