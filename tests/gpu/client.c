/* SPDX-License-Identifier: Apache-2.0
 *
 * The engine's process.
 */
#include "check.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kernels/pattern.h"

#define WIPE_RUN_WORDS 2048u
#define REPEATS_MAX 64

static pid_t client_pid;
static int to_client = -1;

/* The client's own. */
static struct ty_cuda_client *gpu;
static struct test_pool tp;
static struct ty_layout *layout;
static uint64_t addresses[TY_MAX_REGIONS]; /* of the allocations */
static void *pinned;
static uint64_t pinned_device;
static uint64_t pinned_bytes;

void check_build(const struct check_case *which, struct test_pool *t)
{
	uint64_t blocks;

	if (which->small >= 0) {
		test_pool_build((unsigned)which->small, t);
		return;
	}
	/* twice the room that the chunks take, so that they come back elsewhere */
	blocks = 2ull * which->chunks * which->blocks_per_chunk;
	memset(t, 0, sizeof *t);
	t->name = which->name;
	t->chunk_tokens = 16 * which->blocks_per_chunk;
	t->pool = (struct ty_pool){.region_count = 1, .group_count = 1, .regions = t->regions, .groups = t->groups, .parts = 1,
		.format = "NHD"};
	t->groups[0] = (struct ty_group){.block_tokens = 16, .block_count = (uint32_t)blocks, .run_bytes = which->run_bytes,
		.plane_count = which->planes, .planes = t->planes};
	t->groups[0].block_stride = which->cross_layer ? (uint64_t)which->run_bytes * which->planes : which->run_bytes;
	for (uint32_t p = 0; p < which->planes; p++)
		t->planes[p].offset = which->cross_layer ? (uint64_t)p * which->run_bytes : p * blocks * which->run_bytes;
	t->regions[0].length = t->regions[0].allocation_bytes = blocks * which->planes * which->run_bytes;
}

static void drop(void)
{
	for (uint32_t i = 0; layout && i < tp.pool.region_count; i++)
		if (addresses[i])
			ty_cuda_client_free(gpu, addresses[i]);
	memset(addresses, 0, sizeof addresses);
	free(layout);
	layout = NULL;
}

static enum ty_code take(const struct check_order *order, struct check_answer *answer)
{
	enum ty_code code;

	drop();
	check_build(&order->which, &tp);
	code = ty_layout_create(&tp.pool, tp.chunk_tokens, CHECK_MAX_CHUNK, &layout, &answer->err);
	for (uint32_t i = 0; i < tp.pool.region_count && code == TY_OK; i++) {
		struct ty_region got, *r = &tp.regions[i];

		code = ty_cuda_client_alloc(gpu, r->offset + r->length, &addresses[i], &got, &answer->err);
		if (code != TY_OK)
			break;
		memcpy(r->ipc_handle, got.ipc_handle, sizeof r->ipc_handle);
		r->allocation_bytes = got.allocation_bytes;
		r->is_fd = false;
	}
	memcpy(answer->regions, tp.regions, sizeof answer->regions);
	return code;
}

static uint64_t run_address(const struct ty_layout_group *g, uint32_t plane, uint32_t id)
{
	const struct ty_plane *p = &layout->planes[g->first_plane + plane];

	return addresses[p->region] + tp.regions[p->region].offset + p->offset + id * g->block_stride;
}

/* The runs of group g of all chunks; *count of them. */
static struct ty_pattern_run *list_runs(const struct ty_layout_group *g, const uint32_t *ids, uint32_t chunks, uint32_t *count)
{
	struct ty_pattern_run *runs = calloc((size_t)chunks * g->blocks_per_chunk * g->plane_count, sizeof *runs);

	*count = 0;
	for (uint32_t c = 0; runs && c < chunks; c++)
		for (uint32_t b = 0; b < g->blocks_per_chunk; b++) {
			uint32_t id = ids[(size_t)c * layout->blocks_per_chunk + g->first_block + b];

			for (uint32_t p = 0; p < g->plane_count && id != TY_BLOCK_SKIP; p++)
				runs[(*count)++] = (struct ty_pattern_run){run_address(g, p, id), c + 1,
					(uint32_t)((g->tile_offset +
							   ((uint64_t)b * g->plane_count + p) * g->run_bytes) / 8)};
		}
	return runs;
}

static enum ty_code describe(const struct ty_layout_group *g, const struct ty_pattern_run *run,
	const struct ty_pattern_wrong *wrong, struct ty_error *err)
{
	uint64_t expected = ty_pattern_word(CHECK_SEED, run->tag, run->first_word + (uint32_t)wrong->word);
	uint32_t index = (uint32_t)((run->first_word * 8ull - g->tile_offset) / g->run_bytes), tag, origin;

	ty_pattern_origin(CHECK_SEED, wrong->found, &tag, &origin);
	return ty_fail(err, TY_INTERNAL,
		"%llu wrong words; first: chunk %u block %u plane %u word %llu holds %#llx, expected %#llx (it would be chunk %u "
		"word %u)", (unsigned long long)wrong->count, run->tag - 1, index / g->plane_count, index % g->plane_count,
		(unsigned long long)wrong->word, (unsigned long long)wrong->found, (unsigned long long)expected, tag - 1,
		origin);
}

static enum ty_code patterns(const struct check_order *order, bool fill, struct ty_error *err)
{
	uint64_t random = order->ids_seed;
	uint32_t *ids = test_draw_ids(layout, order->chunks, order->skip, &random);
	enum ty_code code = TY_OK;

	for (uint32_t i = 0; i < layout->group_count && code == TY_OK; i++) {
		const struct ty_layout_group *g = &layout->groups[i];
		uint32_t count, words = g->run_bytes / 8;
		struct ty_pattern_run *runs = list_runs(g, ids, order->chunks, &count);
		struct ty_pattern_wrong wrong = {0};

		if (!runs)
			code = ty_fail(err, TY_NO_MEMORY, "no memory for the list of runs");
		else if (fill)
			code = ty_cuda_client_fill(gpu, CHECK_SEED, runs, count, words, err);
		else
			code = ty_cuda_client_check(gpu, CHECK_SEED, runs, count, words, &wrong, err);
		if (code == TY_OK && wrong.count)
			code = describe(g, &runs[wrong.run], &wrong, err);
		free(runs);
	}
	free(ids);
	return code;
}

static enum ty_code wipe(struct ty_error *err)
{
	enum ty_code code = TY_OK;

	for (uint32_t i = 0; i < tp.pool.region_count && code == TY_OK; i++) {
		uint64_t words = tp.regions[i].allocation_bytes / 8, count = words / WIPE_RUN_WORDS; /* a multiple */
		struct ty_pattern_run *runs = calloc(count, sizeof *runs);

		if (!runs)
			return ty_fail(err, TY_NO_MEMORY, "no memory for the list of runs");
		for (uint64_t r = 0; r < count; r++)
			runs[r] = (struct ty_pattern_run){addresses[i] + r * WIPE_RUN_WORDS * 8, i, (uint32_t)(r * WIPE_RUN_WORDS)};
		code = ty_cuda_client_fill(gpu, CHECK_WIPE_SEED, runs, (uint32_t)count, WIPE_RUN_WORDS, err);
		free(runs);
	}
	return code;
}

/* Every byte of every region, held against what the processor makes of it. */
static enum ty_code compare_all(const struct check_order *order, struct ty_error *err)
{
	uint64_t random = order->ids_seed, *model[TY_MAX_REGIONS] = {0}, *found = NULL;
	uint32_t *ids = test_draw_ids(layout, order->chunks, order->skip, &random);
	enum ty_code code = TY_OK;

	for (uint32_t i = 0; i < tp.pool.region_count; i++) {
		model[i] = malloc(tp.regions[i].allocation_bytes);
		for (uint32_t w = 0; w < tp.regions[i].allocation_bytes / 8; w++)
			model[i][w] = ty_pattern_word(CHECK_WIPE_SEED, i, w);
	}
	for (uint32_t i = 0; i < layout->group_count; i++) {
		const struct ty_layout_group *g = &layout->groups[i];

		for (uint32_t c = 0; c < order->chunks; c++)
			for (uint32_t b = 0; b < g->blocks_per_chunk; b++) {
				uint32_t id = ids[c * layout->blocks_per_chunk + g->first_block + b];

				for (uint32_t p = 0; p < g->plane_count && id != TY_BLOCK_SKIP; p++) {
					uint32_t region = layout->planes[g->first_plane + p].region;
					uint64_t first = (g->tile_offset +
								 ((uint64_t)b * g->plane_count + p) * g->run_bytes) / 8;
					uint64_t *to = model[region] + (run_address(g, p, id) - addresses[region]) / 8;

					for (uint32_t w = 0; w < g->run_bytes / 8; w++)
						to[w] = ty_pattern_word(CHECK_SEED, c + 1, (uint32_t)first + w);
				}
			}
	}
	for (uint32_t i = 0; i < tp.pool.region_count && code == TY_OK; i++) {
		uint64_t bytes = tp.regions[i].allocation_bytes;

		found = realloc(found, bytes);
		code = ty_cuda_client_read(gpu, found, addresses[i], bytes, err);
		for (uint64_t w = 0; w < bytes / 8 && code == TY_OK; w++)
			if (found[w] != model[i][w]) {
				uint32_t tag, origin;

				ty_pattern_origin(CHECK_SEED, found[w], &tag, &origin);
				code = ty_fail(err, TY_INTERNAL,
					"region %u byte %llu holds %#llx, expected %#llx (it would be chunk %u word %u)", i,
					(unsigned long long)w * 8, (unsigned long long)found[w],
					(unsigned long long)model[i][w], tag - 1, origin);
			}
	}
	for (uint32_t i = 0; i < tp.pool.region_count; i++)
		free(model[i]);
	free(found);
	free(ids);
	return code;
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

/* Page-locked memory and device memory of `bytes`. */
static enum ty_code have_pinned(uint64_t bytes, struct ty_error *err)
{
	struct ty_region unused;
	uint64_t address;
	enum ty_code code;

	if (pinned_bytes >= bytes)
		return TY_OK;
	if (pinned_bytes) {
		ty_cuda_client_host_free(gpu, pinned);
		ty_cuda_client_free(gpu, pinned_device);
		pinned_bytes = 0;
	}
	code = ty_cuda_client_host_alloc(gpu, bytes, &pinned, err);
	if (code == TY_OK)
		code = ty_cuda_client_alloc(gpu, bytes, &address, &unused, err);
	if (code != TY_OK)
		return code;
	memset(pinned, 1, bytes);
	pinned_device = address;
	pinned_bytes = bytes;
	return TY_OK;
}

static enum ty_code raw_both(const struct check_order *order, struct check_answer *answer)
{
	enum ty_code code = have_pinned(2 * order->bytes, &answer->err);
	void *host[2] = {pinned, (uint8_t *)pinned + order->bytes};
	const uint64_t device[2] = {pinned_device, pinned_device + order->bytes};

	if (code == TY_OK)
		code = ty_cuda_client_time_both(gpu, host, device, order->bytes, order->repeats, &answer->seconds, &answer->err);
	answer->seconds /= order->repeats;
	return code;
}

static enum ty_code raw_copy(const struct check_order *order, struct check_answer *answer)
{
	double seconds[REPEATS_MAX];
	uint32_t repeats = order->repeats < REPEATS_MAX ? order->repeats : REPEATS_MAX;
	enum ty_code code = have_pinned(order->bytes, &answer->err);

	for (uint32_t i = 0; i < repeats && code == TY_OK; i++)
		code = ty_cuda_client_time_copy(gpu, order->to_host, pinned, pinned_device, order->bytes,
			&seconds[i], &answer->err);
	if (code == TY_OK) {
		qsort(seconds, repeats, sizeof seconds[0], by_value);
		answer->seconds = seconds[repeats / 2];
	}
	return code;
}

static void obey(const struct check_order *order, struct check_answer *answer)
{
	uint64_t total;

	switch (order->verb) {
	case CHECK_ALLOC:
		answer->code = take(order, answer);
		break;
	case CHECK_FREE:
		drop();
		break;
	case CHECK_WIPE:
		answer->code = wipe(&answer->err);
		break;
	case CHECK_FILL:
		answer->code = patterns(order, true, &answer->err);
		break;
	case CHECK_RUNS:
		answer->code = patterns(order, false, &answer->err);
		break;
	case CHECK_ALL:
		answer->code = compare_all(order, &answer->err);
		break;
	case CHECK_RAW:
		answer->code = raw_copy(order, answer);
		break;
	case CHECK_RAW_BOTH:
		answer->code = raw_both(order, answer);
		break;
	case CHECK_MEMORY:
		answer->code = ty_cuda_client_memory(gpu, &answer->bytes, &total, &answer->err);
		break;
	}
}

static _Noreturn void serve(int fd, const char *driver, int ordinal)
{
	static struct check_answer answer;
	struct check_order order;

	signal(SIGALRM, SIG_DFL);
	answer.code = ty_cuda_client_open(driver, ordinal, &gpu, &answer.err);
	while (send(fd, &answer, sizeof answer, MSG_NOSIGNAL) == (ssize_t)sizeof answer &&
		recv(fd, &order, sizeof order, 0) == (ssize_t)sizeof order) {
		memset(&answer, 0, sizeof answer);
		obey(&order, &answer);
	}
	_exit(0);
}

static enum ty_code receive(struct check_answer *answer, struct ty_error *err)
{
	ssize_t got = recv(to_client, answer, sizeof *answer, 0);
	int status = 0;

	if (got == (ssize_t)sizeof *answer) {
		if (answer->code != TY_OK)
			return ty_fail(err, answer->code, "%s", answer->err.text);
		return TY_OK;
	}
	waitpid(client_pid, &status, 0);
	return ty_fail(err, TY_CLOSED, "the client process ended: %s %d",
		WIFSIGNALED(status) ? "signal" : "exit status", WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
}

enum ty_code check_client_start(const char *driver, int ordinal, struct ty_error *err)
{
	static struct check_answer answer;
	int pair[2], room = 1 << 20;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair))
		return ty_fail(err, TY_IO, "socketpair: %s", strerror(errno));
	setsockopt(pair[1], SOL_SOCKET, SO_SNDBUF, &room, sizeof room);
	client_pid = fork();
	if (client_pid < 0)
		return ty_fail(err, TY_IO, "fork: %s", strerror(errno));
	if (client_pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		close(pair[0]);
		serve(pair[1], driver, ordinal);
	}
	close(pair[1]);
	to_client = pair[0];
	return receive(&answer, err);
}

enum ty_code check_ask(const struct check_order *order, struct check_answer *answer, struct ty_error *err)
{
	if (send(to_client, order, sizeof *order, MSG_NOSIGNAL) != (ssize_t)sizeof *order)
		return ty_fail(err, TY_CLOSED, "the client process does not take orders: %s", strerror(errno));
	return receive(answer, err);
}

void check_client_stop(void)
{
	close(to_client);
	waitpid(client_pid, NULL, 0);
}
