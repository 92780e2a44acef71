/* SPDX-License-Identifier: Apache-2.0
 *
 * refusal_check: what a real driver says to what clients get wrong, and what is left of the device afterwards. Runs by itself, in a few
 * seconds, on a GPU of which it may fill the memory for a moment:
 *
 *   - handles and descriptors that are none, pieces and allocations smaller than they are said to be: refused by name, and the device goes on;
 *   - two pools of different layouts on one GPU, moved at once;
 *   - GPU memory so scarce that staging is smaller than usual, and so scarce that the device is refused.
 *
 * What is refused before a device is asked (ids, layouts) is the unit tests', and what ends requests is the scenarios'
 * (tests/scenario/gpu_bad_input.c). It runs on the stand-in driver too.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/descriptors.h"
#include "check.h"
#include "device/device.h"
#include "kernels/gather.h"

#define MIB ((uint64_t)1 << 20)
#define PIECE (2 * MIB)
#define ARENA (64 * MIB)
#define POOL_PIECES 4u
#define LIMIT_SECONDS 60

static const char *device_name = "cuda:0", *driver, *step = "start";
static struct ty_cuda_client *engine; /* of this process: memory in pieces, and all there is */
static struct ty_device *dev;
static uint8_t *arena;

static _Noreturn void failed(const char *text)
{
	fprintf(stderr, "refusal_check: FAILED: %s: %s\n", step, text);
	exit(1);
}

static void must(enum ty_code code, const struct ty_error *err)
{
	if (code != TY_OK)
		failed(err->text);
}

static void on_alarm(int signal_number)
{
	(void)signal_number;
	fprintf(stderr, "refusal_check: FAILED: %s: not done after %d s\n", step, LIMIT_SECONDS);
	_exit(1);
}

static enum ty_code open_device(struct ty_error *err)
{
	const struct ty_device_options o = {.name = device_name, .driver = driver, .sharing = TY_SHARING_FAST};
	enum ty_code code = ty_device_open(&o, &dev, err);

	if (code == TY_OK)
		must(ty_device_register_host(dev, arena, ARENA, err), err);
	return code;
}

static void close_device(void)
{
	ty_device_unregister_host(dev, arena);
	ty_device_close(dev);
	dev = NULL;
}

/* ---- pools in pieces ------------------------------------------------------------------------------------------ */

struct pieces {
	uint64_t address;
	int fds[POOL_PIECES];
	struct ty_segment segments[POOL_PIECES];
	struct ty_region region;
	struct ty_plane planes[2];
	struct ty_group group;
	struct ty_layout *layout;
	struct ty_mapping *mapping;
};

/* Two planes, one behind the other, of runs of `run` bytes; a chunk is 16 blocks. */
static void make_pieces(struct pieces *p, uint32_t run)
{
	struct ty_pool pool = {.region_count = 1, .group_count = 1, .regions = &p->region, .groups = &p->group, .parts = 1};
	struct ty_error err = {0};
	uint32_t blocks = (uint32_t)(POOL_PIECES * PIECE / 2 / run);

	must(ty_cuda_client_alloc_pieces(engine, POOL_PIECES, PIECE, &p->address, p->fds, &err), &err);
	for (uint32_t i = 0; i < POOL_PIECES; i++) {
		p->segments[i] = (struct ty_segment){p->fds[i], PIECE};
		if (!ty_descriptor_closes_at_once(p->fds[i]))
			failed("the service would take no such descriptor over attach");
	}
	p->region = (struct ty_region){.segments = p->segments, .segment_count = POOL_PIECES, .allocation_bytes = POOL_PIECES * PIECE,
		.length = POOL_PIECES * PIECE};
	p->planes[1].offset = POOL_PIECES * PIECE / 2;
	p->group = (struct ty_group){.block_tokens = 16, .block_count = blocks, .block_stride = run, .run_bytes = run, .plane_count = 2,
		.planes = p->planes};
	must(ty_layout_create(&pool, 256, CHECK_MAX_CHUNK, &p->layout, &err), &err);
}

static void drop_pieces(struct pieces *p)
{
	for (uint32_t i = 0; i < POOL_PIECES; i++)
		close(p->fds[i]);
	ty_cuda_client_free_pieces(engine, p->address, POOL_PIECES, PIECE);
	free(p->layout);
}

static void map(struct pieces *p)
{
	struct ty_error err = {0};

	must(ty_device_map(dev, p->layout, &p->region, &p->mapping, &err), &err);
}

/* The runs of block `id`, with what tells them from any other's. */
static void pattern(const struct pieces *p, uint32_t first_id, uint32_t tag, struct ty_pattern_run runs[32])
{
	for (uint32_t i = 0; i < 32; i++)
		runs[i] = (struct ty_pattern_run){p->address + p->planes[i % 2].offset + (first_id + i / 2) * (uint64_t)p->group.run_bytes,
			tag, i * p->group.run_bytes / 8};
}

static void fill(const struct pieces *p, uint32_t first_id, uint32_t tag)
{
	struct ty_pattern_run runs[32];
	struct ty_error err = {0};

	pattern(p, first_id, tag, runs);
	must(ty_cuda_client_fill(engine, CHECK_SEED, runs, 32, p->group.run_bytes / 8, &err), &err);
}

static void check(const struct pieces *p, uint32_t first_id, uint32_t tag)
{
	struct ty_pattern_wrong wrong = {0};
	struct ty_pattern_run runs[32];
	struct ty_error err = {0};

	pattern(p, first_id, tag, runs);
	must(ty_cuda_client_check(engine, CHECK_SEED, runs, 32, p->group.run_bytes / 8, &wrong, &err), &err);
	if (wrong.count)
		failed("wrong words in what was retrieved");
}

/* Batches that are out at once; until all are done. */
static void move(struct ty_batch *batches, uint32_t count)
{
	struct ty_batch *done[2];
	uint32_t out = count;

	for (uint32_t i = 0; i < count; i++)
		if (ty_device_submit(dev, &batches[i]) != TY_OK)
			failed("submit");
	while (out) {
		uint32_t n = ty_device_poll(dev, done, 2);

		for (uint32_t i = 0; i < n; i++)
			if (done[i]->code != TY_OK)
				failed("a batch failed");
		out -= n;
	}
}

/* One chunk of each pool out and into other blocks, all pools at once. */
static void round_trips(struct pieces *const *pools, uint32_t count)
{
	uint32_t ids[2][16];
	struct ty_batch batches[2];
	struct ty_copy copies[2];

	for (uint32_t back = 0; back < 2; back++) {
		for (uint32_t i = 0; i < count; i++) {
			for (uint32_t b = 0; b < 16; b++)
				ids[i][b] = 20 * back + b;
			if (!back)
				fill(pools[i], 0, i + 1);
			copies[i] = (struct ty_copy){arena + i * 16 * MIB, ids[i]};
			batches[i] = (struct ty_batch){.mapping = pools[i]->mapping, .direction = back ? TY_TO_DEVICE : TY_TO_HOST,
				.copies = &copies[i], .count = 1};
		}
		move(batches, count);
	}
	for (uint32_t i = 0; i < count; i++)
		check(pools[i], 20, i + 1);
}

/* ---- refusals --------------------------------------------------------------------------------------------------- */

/* The device is as well as before, and says which region it was. */
static void refused(const char *what, const struct ty_layout *layout, const struct ty_region *regions, const char *words)
{
	struct ty_mapping *mapping;
	struct ty_error err = {0}, health = {0};
	enum ty_code code;

	step = what;
	code = ty_device_map(dev, layout, regions, &mapping, &err);
	printf("  %-52s %s: %s\n", what, ty_code_name(code), err.text);
	if (ty_device_health(dev, &health) != TY_OK)
		failed(health.text);
	if (code != TY_INVALID || !strstr(err.text, words))
		failed("expected INVALID that names it");
}

static void bad_handles(void)
{
	const struct check_order order = {.verb = CHECK_ALLOC, .which = {.small = 5}}; /* cross-layer, one allocation */
	static struct check_answer answer;
	static struct test_pool tp;
	struct ty_layout *layout;
	struct ty_mapping *mapping;
	struct ty_error err = {0};

	step = "the client's allocation";
	must(check_ask(&order, &answer, &err), &err);
	check_build(&order.which, &tp);
	memcpy(tp.regions, answer.regions, sizeof tp.regions);
	must(ty_layout_create(&tp.pool, tp.chunk_tokens, CHECK_MAX_CHUNK, &layout, &err), &err);
	memset(tp.regions[0].ipc_handle, 0, TY_IPC_HANDLE_BYTES);
	refused("a handle of zeros", layout, tp.regions, "regions[0].ipc_handle");
	memset(tp.regions[0].ipc_handle, 0x33, TY_IPC_HANDLE_BYTES);
	refused("a handle of nothing", layout, tp.regions, "regions[0].ipc_handle");
	tp.regions[0] = answer.regions[0];
	tp.regions[0].allocation_bytes *= 64;
	refused("an allocation smaller than it is said to be", layout, tp.regions, "regions[0].allocation_bytes");
	tp.regions[0] = answer.regions[0];
	step = "the handle itself";
	must(ty_device_map(dev, layout, tp.regions, &mapping, &err), &err);
	ty_device_unmap(dev, mapping);
	free(layout);
}

static void bad_pieces(void)
{
	struct pieces p = {0}, *pools[1] = {&p};
	int null = open("/dev/null", O_RDWR | O_CLOEXEC), memory = memfd_create("no GPU's", MFD_CLOEXEC);

	step = "a pool in pieces";
	if (null < 0 || memory < 0 || ftruncate(memory, (off_t)PIECE - 4096))
		failed(strerror(errno));
	make_pieces(&p, 4096);
	p.segments[2].fd = null;
	refused("a descriptor of /dev/null for a piece", p.layout, &p.region, "regions[0].segments[2]");
	p.segments[2].fd = memory;
	refused("a descriptor of host memory for a piece", p.layout, &p.region, "regions[0].segments[2]");
	p.segments[2].fd = 1 << 20;
	refused("a number that is no descriptor", p.layout, &p.region, "regions[0].segments[2]");
	p.segments[2].fd = p.fds[2];
	p.segments[3].bytes += PIECE;
	p.region.allocation_bytes += PIECE;
	refused("a piece smaller than it is said to be", p.layout, &p.region, "regions[0].segments[3]");
	p.segments[3].bytes -= PIECE;
	p.region.allocation_bytes -= PIECE;
	step = "the pieces themselves";
	map(&p);
	round_trips(pools, 1);
	ty_device_unmap(dev, p.mapping);
	drop_pieces(&p);
	close(null);
	close(memory);
}

static void two_layouts(void)
{
	struct pieces a = {0}, b = {0}, *pools[2] = {&a, &b};

	step = "two pools of different layouts";
	make_pieces(&a, 4096);
	make_pieces(&b, 65536);
	map(&a);
	map(&b);
	round_trips(pools, 2);
	ty_device_unmap(dev, a.mapping);
	round_trips(pools + 1, 1);
	ty_device_unmap(dev, b.mapping);
	drop_pieces(&a);
	drop_pieces(&b);
	printf("  two pools of different layouts                       right, at once and after one is gone\n");
}

/* ---- scarce memory --------------------------------------------------------------------------------------------- */

#define HOLDS 64u
static uint64_t holds[HOLDS];
static uint32_t hold_count;

/* Take memory until at most `leave` bytes are free, or nothing more is to be had. */
static void take_all_but(uint64_t leave)
{
	struct ty_region unused;
	uint64_t available, total;
	struct ty_error err = {0};

	must(ty_cuda_client_memory(engine, &available, &total, &err), &err);
	for (uint64_t bytes = available; hold_count < HOLDS && bytes >= PIECE;) {
		must(ty_cuda_client_memory(engine, &available, &total, &err), &err);
		if (available < leave + PIECE)
			return;
		bytes = bytes > available - leave ? (available - leave) / PIECE * PIECE : bytes;
		if (ty_cuda_client_alloc(engine, bytes, &holds[hold_count], &unused, &err) == TY_OK)
			hold_count++;
		else
			bytes = bytes / 2 / PIECE * PIECE;
	}
}

static void give_all(void)
{
	while (hold_count)
		ty_cuda_client_free(engine, holds[--hold_count]);
}

static void scarce_memory(void)
{
	struct pieces p = {0}, *pools[1] = {&p};
	struct ty_error err = {0};
	enum ty_code code;

	step = "memory for some staging";
	make_pieces(&p, 4096);
	take_all_but(128 * MIB);
	must(open_device(&err), &err);
	printf("  memory for some staging                              %s\n", ty_device_note(dev));
	if (!strstr(ty_device_note(dev), "staging has"))
		failed("expected a note that staging is smaller");
	map(&p);
	round_trips(pools, 1);
	ty_device_unmap(dev, p.mapping);
	close_device();

	step = "memory for no staging";
	take_all_but(0);
	code = open_device(&err);
	printf("  memory for no staging                                %s: %s\n", ty_code_name(code), err.text);
	if (code != TY_NO_MEMORY)
		failed("expected NO_MEMORY");
	give_all();

	step = "memory given back";
	must(open_device(&err), &err);
	map(&p);
	round_trips(pools, 1);
	ty_device_unmap(dev, p.mapping);
	close_device();
	drop_pieces(&p);
}

int main(int argc, char **argv)
{
	struct ty_error err = {0};
	int ordinal;

	if (argc > 2 || (argc == 2 && strncmp(argv[1], "cuda:", 5))) {
		fprintf(stderr, "usage: refusal_check [cuda:N]\n");
		return 2;
	}
	if (argc == 2)
		device_name = argv[1];
	ordinal = atoi(device_name + 5);
	driver = getenv("TYER_CUDA_DRIVER");
	signal(SIGALRM, on_alarm);
	alarm(LIMIT_SECONDS);
	arena = mmap(NULL, ARENA, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (arena == MAP_FAILED)
		failed("arena");
	memset(arena, 0, ARENA);
	step = "the client's start";
	must(check_client_start(driver, ordinal, &err), &err); /* before this process calls the driver */
	must(ty_cuda_client_open(driver, ordinal, &engine, &err), &err);
	step = "opening the device";
	must(open_device(&err), &err);
	printf("%s: %s\n", device_name, ty_device_info(dev)->model);
	bad_handles();
	bad_pieces();
	two_layouts();
	close_device();
	scarce_memory();
	ty_cuda_client_close(engine);
	check_client_stop();
	printf("refusal_check: all right\n");
	return 0;
}
