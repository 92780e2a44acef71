/* SPDX-License-Identifier: Apache-2.0
 *
 * gpu_threads: the baseline that Tyer is held against. The same verbs (PING, REGISTER, STORE, RETRIEVE), served as such services
 * usually are: 16 threads take requests from one socket, and share each GPU under one mutex, which a thread holds from its first
 * launch until its copies are over. No interpreter, so nothing of its slowness is a language's.
 *
 *   gpu_threads --listen URL [--driver LIB] [--devices N] [--memory BYTES] [--chunk BYTES]
 *
 * For measuring only: it trusts its clients.
 */
#include <errno.h>
#include <getopt.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <nng/nng.h>
#include <nng/protocol/reqrep0/rep.h>

#include "device/cuda_driver.h"
#include "gpu_threads.h"
#include "kernels/gather.h"

#define THREADS 16
#define DEVICES 16
#define CLIENTS 128
#define STAGED 4 /* chunks that go at once */
#define PIECE ((uint64_t)64 << 20)

static struct {
	const char *listen, *driver;
	uint32_t devices;
	uint64_t memory, chunk;
} options = {.devices = 1, .memory = (uint64_t)4 << 30, .chunk = (uint64_t)32 << 20};

struct gpu {
	pthread_mutex_t lock; /* around every call for this GPU */
	cu_context context;
	cu_stream stream;
	cu_event done;
	cu_function gather, scatter;
	cu_address staging;
	unsigned grid;
};

struct client {
	bool used;
	struct plain_pool pool;
	cu_address base, table;
};

struct slot {
	uint8_t key[TY_KEY_BYTES];
	bool valid;
	uint32_t pins;
};

static struct ty_cuda api;
static struct gpu gpus[DEVICES];
static struct client clients[CLIENTS]; /* under `lock` until used; then its client's own requests read it */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* the table of slots, and of clients */
static struct slot *slots;
static uint32_t slot_count, slot_next;
static uint8_t *arena;
static nng_socket sock;

static _Noreturn void give_up(const char *what, const char *why)
{
	fprintf(stderr, "gpu_threads: %s: %s\n", what, why);
	exit(1);
}

static void must(const char *what, cu_result result)
{
	if (result != CU_SUCCESS)
		give_up(what, ty_cuda_error_name(&api, result));
}

/* ---- the cache: first in, first out -------------------------------------------------------------- */

/* A slot to write; pinned. */
static uint32_t take_slot(void)
{
	uint32_t at = 0;

	pthread_mutex_lock(&lock);
	for (uint32_t tried = 0; tried < slot_count; tried++) {
		at = slot_next;
		slot_next = (slot_next + 1) % slot_count;
		if (!slots[at].pins)
			break;
	}
	if (slots[at].pins)
		give_up("memory", "every slot is in use");
	slots[at].valid = false;
	slots[at].pins = 1;
	pthread_mutex_unlock(&lock);
	return at;
}

static void publish(uint32_t at, const uint8_t *key)
{
	pthread_mutex_lock(&lock);
	memcpy(slots[at].key, key, TY_KEY_BYTES);
	slots[at].valid = true;
	slots[at].pins--;
	pthread_mutex_unlock(&lock);
}

static bool pin(const uint8_t *key, uint32_t *at)
{
	bool found = false;

	pthread_mutex_lock(&lock);
	for (uint32_t i = 0; i < slot_count && !found; i++)
		if (slots[i].valid && !memcmp(slots[i].key, key, TY_KEY_BYTES)) {
			slots[i].pins++;
			*at = i;
			found = true;
		}
	pthread_mutex_unlock(&lock);
	return found;
}

static void unpin(uint32_t at)
{
	pthread_mutex_lock(&lock);
	slots[at].pins--;
	pthread_mutex_unlock(&lock);
}

/* ---- the GPU, under its mutex ---------------------------------------------------------------------- */

static void finish(struct gpu *g)
{
	cu_result result;

	must("cuEventRecord", api.cuEventRecord(g->done, g->stream));
	while ((result = api.cuEventQuery(g->done)) == CU_NOT_READY)
		sched_yield();
	must("cuEventQuery", result);
}

static void launch(struct gpu *g, const struct client *c, bool store, cu_address tile, const uint32_t *ids)
{
	struct ty_gather_job job = {.planes = c->table, .tile = tile, .block_stride = c->pool.block_stride,
		.run_units = c->pool.run_bytes / TY_GATHER_UNIT, .plane_count = c->pool.planes, .block_limit = c->pool.block_count,
		.block_count = c->pool.blocks_per_chunk};
	void *parameters[] = {&job};

	memcpy(job.blocks, ids, c->pool.blocks_per_chunk * sizeof *ids);
	must("cuLaunchKernel", api.cuLaunchKernel(store ? g->gather : g->scatter, g->grid, 1, 1, TY_KERNEL_THREADS, 1, 1, 0, g->stream,
				       parameters, NULL));
}

/* At most STAGED chunks. */
static void move(const struct client *c, bool store, const uint32_t *at, const uint32_t *ids, uint32_t count)
{
	struct gpu *g = &gpus[c->pool.device];
	uint64_t bytes = (uint64_t)c->pool.run_bytes * c->pool.planes * c->pool.blocks_per_chunk;

	pthread_mutex_lock(&g->lock);
	must("cuCtxSetCurrent", ty_cuda_use(&api, g->context));
	for (uint32_t i = 0; i < count; i++) {
		cu_address tile = g->staging + i * options.chunk;

		if (store)
			launch(g, c, true, tile, ids + (size_t)i * c->pool.blocks_per_chunk);
		must("a copy", store ? api.cuMemcpyDtoHAsync(arena + at[i] * options.chunk, tile, bytes, g->stream)
				     : api.cuMemcpyHtoDAsync(tile, arena + at[i] * options.chunk, bytes, g->stream));
		if (!store)
			launch(g, c, false, tile, ids + (size_t)i * c->pool.blocks_per_chunk);
	}
	finish(g);
	pthread_mutex_unlock(&g->lock);
}

/* ---- the verbs -------------------------------------------------------------------------------------- */

static void do_register(const struct plain_request *r, struct plain_reply *reply)
{
	struct gpu *g = &gpus[r->pool.device];
	struct cu_ipc_handle handle;
	struct client *c = NULL;
	uint64_t *planes = malloc(r->pool.planes * sizeof *planes);

	pthread_mutex_lock(&lock);
	for (uint32_t i = 0; i < CLIENTS && !c; i++)
		if (!clients[i].used) {
			c = &clients[i];
			c->used = true;
			reply->value = i;
		}
	pthread_mutex_unlock(&lock);
	if (!c || !planes)
		give_up("REGISTER", "too many clients");
	c->pool = r->pool;
	memcpy(handle.bytes, r->pool.handle, sizeof handle.bytes);
	pthread_mutex_lock(&g->lock);
	must("cuCtxSetCurrent", ty_cuda_use(&api, g->context));
	must("cuIpcOpenMemHandle", api.cuIpcOpenMemHandle(&c->base, handle, CU_IPC_LAZY_PEER));
	must("cuMemAlloc", api.cuMemAlloc(&c->table, r->pool.planes * sizeof *planes));
	/* through a slot: memory that copies may come from */
	for (uint32_t p = 0; p < r->pool.planes; p++)
		planes[p] = c->base + p * r->pool.plane_stride;
	uint32_t at = take_slot();
	memcpy(arena + at * options.chunk, planes, r->pool.planes * sizeof *planes);
	must("a plane table", api.cuMemcpyHtoDAsync(c->table, arena + at * options.chunk, r->pool.planes * sizeof *planes, g->stream));
	finish(g);
	unpin(at);
	pthread_mutex_unlock(&g->lock);
	free(planes);
}

static void do_unregister(const struct plain_request *r)
{
	struct client *c = &clients[r->client];
	struct gpu *g = &gpus[c->pool.device];

	pthread_mutex_lock(&g->lock);
	must("cuCtxSetCurrent", ty_cuda_use(&api, g->context));
	must("cuIpcCloseMemHandle", api.cuIpcCloseMemHandle(c->base));
	must("cuMemFree", api.cuMemFree(c->table));
	pthread_mutex_unlock(&g->lock);
	pthread_mutex_lock(&lock);
	c->used = false;
	pthread_mutex_unlock(&lock);
}

static void do_transfer(const struct plain_request *r, const uint8_t *keys, const uint32_t *ids, struct plain_reply *reply)
{
	const struct client *c = &clients[r->client];
	bool store = r->verb == PLAIN_STORE;
	uint32_t at[PLAIN_CHUNKS_MAX], pinned = 0;

	while (pinned < r->count) {
		if (store)
			at[pinned] = take_slot();
		else if (!pin(keys + (size_t)pinned * TY_KEY_BYTES, &at[pinned]))
			break;
		pinned++;
	}
	if (pinned == r->count)
		for (uint32_t i = 0; i < pinned; i += STAGED)
			move(c, store, at + i, ids + (size_t)i * c->pool.blocks_per_chunk, pinned - i < STAGED ? pinned - i : STAGED);
	for (uint32_t i = 0; i < pinned; i++)
		if (store)
			publish(at[i], keys + (size_t)i * TY_KEY_BYTES);
		else
			unpin(at[i]);
	reply->value = pinned;
}

static void serve(nng_msg *msg, struct plain_reply *reply)
{
	const uint8_t *body = nng_msg_body(msg);
	struct plain_request r;
	uint32_t *ids = NULL;
	size_t length = nng_msg_len(msg), want;

	*reply = (struct plain_reply){0};
	if (length < sizeof r)
		give_up("a request", "too short");
	memcpy(&r, body, sizeof r);
	if (r.verb == PLAIN_REGISTER) {
		do_register(&r, reply);
	} else if (r.verb == PLAIN_UNREGISTER) {
		do_unregister(&r);
	} else if (r.verb == PLAIN_STORE || r.verb == PLAIN_RETRIEVE) {
		const uint8_t *keys = body + sizeof r;

		want = (size_t)r.count * clients[r.client].pool.blocks_per_chunk * sizeof *ids;
		if (r.count > PLAIN_CHUNKS_MAX || length != sizeof r + (size_t)r.count * TY_KEY_BYTES + want)
			give_up("a request", "of another length");
		ids = malloc(want);
		if (!ids)
			give_up("a request", "no memory");
		memcpy(ids, keys + (size_t)r.count * TY_KEY_BYTES, want);
		do_transfer(&r, keys, ids, reply);
		free(ids);
	}
}

static void *work(void *unused)
{
	nng_aio *aio;
	nng_ctx ctx;

	(void)unused;
	if (nng_ctx_open(&ctx, sock) || nng_aio_alloc(&aio, NULL, NULL))
		give_up("nng", "no context");
	for (;;) {
		struct plain_reply reply;
		nng_msg *msg;

		nng_ctx_recv(ctx, aio);
		nng_aio_wait(aio);
		if (nng_aio_result(aio))
			return NULL;
		msg = nng_aio_get_msg(aio);
		serve(msg, &reply);
		nng_msg_clear(msg);
		if (nng_msg_append(msg, &reply, sizeof reply))
			give_up("nng", "no memory");
		nng_aio_set_msg(aio, msg);
		nng_ctx_send(ctx, aio);
		nng_aio_wait(aio);
		if (nng_aio_result(aio))
			nng_msg_free(nng_aio_get_msg(aio)); /* its client is gone */
	}
}

/* ---- start ------------------------------------------------------------------------------------------- */

static void open_gpu(uint32_t ordinal)
{
	struct gpu *g = &gpus[ordinal];
	struct ty_error err = {0};
	cu_module module;
	cu_device device;
	int processors = 1;

	pthread_mutex_init(&g->lock, NULL);
	if (ty_cuda_context(&api, (int)ordinal, &device, &g->context, &err) != TY_OK)
		give_up("a GPU", err.text);
	must("cuDeviceGetAttribute", api.cuDeviceGetAttribute(&processors, CU_ATTRIBUTE_MULTIPROCESSORS, device));
	g->grid = (unsigned)processors * 8;
	must("cuModuleLoadData", api.cuModuleLoadData(&module, ty_kernels_image));
	must("cuModuleGetFunction", api.cuModuleGetFunction(&g->gather, module, TY_KERNEL_GATHER));
	must("cuModuleGetFunction", api.cuModuleGetFunction(&g->scatter, module, TY_KERNEL_SCATTER));
	must("cuStreamCreate", api.cuStreamCreate(&g->stream, CU_STREAM_NON_BLOCKING));
	must("cuEventCreate", api.cuEventCreate(&g->done, CU_EVENT_NO_TIMING));
	must("cuMemAlloc", api.cuMemAlloc(&g->staging, STAGED * options.chunk));
	if (ordinal > 0)
		return;
	/* portable: the first GPU's registration serves all */
	for (uint64_t at = 0; at < options.memory; at += PIECE)
		must("cuMemHostRegister", api.cuMemHostRegister(arena + at, PIECE, CU_HOST_PORTABLE));
}

static void parse(int argc, char **argv)
{
	static const struct option known[] = {
		{"listen", required_argument, NULL, 'l'}, {"driver", required_argument, NULL, 'D'},
		{"devices", required_argument, NULL, 'd'}, {"memory", required_argument, NULL, 'm'},
		{"chunk", required_argument, NULL, 'c'}, {0},
	};
	int o;

	options.driver = getenv("TYER_CUDA_DRIVER");
	while ((o = getopt_long(argc, argv, "", known, NULL)) != -1) {
		switch (o) {
		case 'l': options.listen = optarg; break;
		case 'D': options.driver = optarg; break;
		case 'd': options.devices = (uint32_t)strtoul(optarg, NULL, 10); break;
		case 'm': options.memory = strtoull(optarg, NULL, 10) / PIECE * PIECE; break;
		case 'c': options.chunk = strtoull(optarg, NULL, 10); break;
		default: exit(2);
		}
	}
	if (!options.listen || options.devices < 1 || options.devices > DEVICES || !options.chunk || options.chunk > PIECE ||
		options.memory < PIECE) {
		fprintf(stderr, "usage: gpu_threads --listen URL [--driver LIB] [--devices N] [--memory BYTES] [--chunk BYTES]\n");
		exit(2);
	}
}

int main(int argc, char **argv)
{
	struct ty_error err = {0};
	pthread_t threads[THREADS];
	int result;

	parse(argc, argv);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	slot_count = (uint32_t)(options.memory / options.chunk);
	slots = calloc(slot_count, sizeof *slots);
	arena = mmap(NULL, options.memory, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	if (!slots || arena == MAP_FAILED)
		give_up("memory", strerror(errno));
	if (ty_cuda_load(options.driver, &api, &err) != TY_OK)
		give_up("the driver", err.text);
	for (uint32_t i = 0; i < options.devices; i++)
		open_gpu(i);
	result = nng_rep0_open(&sock);
	if (!result)
		result = nng_listen(sock, options.listen, NULL, 0);
	if (result)
		give_up(options.listen, nng_strerror(result));
	for (unsigned i = 0; i < THREADS; i++)
		if (pthread_create(&threads[i], NULL, work, NULL))
			give_up("a thread", strerror(errno));
	printf("gpu_threads ready\n");
	fflush(stdout);
	pause(); /* until it is killed */
	return 0;
}
