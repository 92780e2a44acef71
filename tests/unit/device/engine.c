/* SPDX-License-Identifier: Apache-2.0 */
#include "engine.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define ALLOCATIONS TY_MAX_REGIONS
#define DEVICES 16

struct order {
	uint64_t bytes; /* 0: free all */
	uint32_t device;
	uint32_t pieces; /* 0: one allocation */
};
struct answer {
	bool ok;
	struct ty_region region;
	int fds[ENGINE_PIECES]; /* numbers in the engine's process */
};

#define PIECE ((uint64_t)2 << 20)

/* Pieces that were handed out: the caller's ends of them, closed by engine_free_all. */
static struct ty_segment segments[ALLOCATIONS * ENGINE_PIECES];
static uint32_t segment_count;

static pid_t engine;
static int to_engine = -1;

static _Noreturn void die(const char *what)
{
	fprintf(stderr, "engine: %s\n", what);
	abort();
}

void standin_open(struct standin *s)
{
	void *library, *symbol;

	s->path = getenv("TYER_STANDIN_LIBRARY");
	if (!s->path)
		die("TYER_STANDIN_LIBRARY is not set");
	library = dlopen(s->path, RTLD_NOW | RTLD_LOCAL);
	if (!library)
		die(dlerror());
#define CONTROL(member, name)                                                                                                  \
	symbol = dlsym(library, "standin_" name);                                                                     \
	if (!symbol)                                                                                                   \
		die("the library is not the stand-in");                                                                \
	memcpy(&s->member, &symbol, sizeof symbol)
	CONTROL(calls, "calls");
	CONTROL(count, "count");
	CONTROL(threads_seen, "threads_seen");
	CONTROL(inject, "fail");
	CONTROL(set, "set");
	CONTROL(release, "release");
	CONTROL(queued, "queued");
	CONTROL(live, "live");
#undef CONTROL
}

static struct ty_cuda_client *client_of(struct ty_cuda_client **clients, uint32_t device)
{
	struct ty_error err = {0};

	if (device >= DEVICES)
		die("no such device");
	if (!clients[device] && ty_cuda_client_open(getenv("TYER_STANDIN_LIBRARY"), (int)device, &clients[device], &err) != TY_OK)
		die(err.text);
	return clients[device];
}

static _Noreturn void serve(int fd)
{
	struct ty_cuda_client *clients[DEVICES] = {NULL}, *owners[ALLOCATIONS], *client;
	uint64_t addresses[ALLOCATIONS];
	uint32_t pieces[ALLOCATIONS];
	struct ty_error err = {0};
	unsigned count = 0;
	struct order order;

	while (recv(fd, &order, sizeof order, 0) == (ssize_t)sizeof order) {
		struct answer answer = {.ok = true};

		if (order.bytes == 0) {
			while (count) {
				count--;
				if (pieces[count])
					ty_cuda_client_free_pieces(owners[count], addresses[count], pieces[count], PIECE);
				else
					ty_cuda_client_free(owners[count], addresses[count]);
			}
		} else {
			client = client_of(clients, order.device);
			if (count == ALLOCATIONS ||
				(order.pieces ? ty_cuda_client_alloc_pieces(client, order.pieces, PIECE, &addresses[count],
							answer.fds, &err)
					      : ty_cuda_client_alloc(client, order.bytes, &addresses[count], &answer.region,
							&err)) != TY_OK) {
				fprintf(stderr, "engine: %s\n", err.text);
				answer.ok = false;
			} else {
				pieces[count] = order.pieces;
				owners[count++] = client;
			}
		}
		if (send(fd, &answer, sizeof answer, MSG_NOSIGNAL) != (ssize_t)sizeof answer)
			break;
	}
	_exit(0);
}

void engine_start(void)
{
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair))
		die("socketpair");
	engine = fork();
	if (engine < 0)
		die("fork");
	if (engine == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		close(pair[0]);
		serve(pair[1]);
	}
	close(pair[1]);
	to_engine = pair[0];
}

void engine_kill(void)
{
	char byte;

	kill(engine, SIGKILL);
	while (recv(to_engine, &byte, 1, 0) > 0)
		;
}

void engine_stop(void)
{
	kill(engine, SIGKILL);
	waitpid(engine, NULL, 0);
	close(to_engine);
}

static struct answer ask(uint64_t bytes, uint32_t device, uint32_t count)
{
	struct order order = {bytes, device, count};
	struct answer answer;

	if (send(to_engine, &order, sizeof order, MSG_NOSIGNAL) != (ssize_t)sizeof order ||
		recv(to_engine, &answer, sizeof answer, 0) != (ssize_t)sizeof answer || !answer.ok)
		die("the engine gave no memory");
	return answer;
}

void engine_alloc_on(uint32_t device, struct ty_region *region)
{
	struct ty_region got = ask(region->offset + region->length, device, 0).region;

	memcpy(region->ipc_handle, got.ipc_handle, sizeof region->ipc_handle);
	region->allocation_bytes = got.allocation_bytes;
	region->is_fd = false;
}

void engine_alloc(struct ty_region *region)
{
	engine_alloc_on(0, region);
}

void engine_free_all(void)
{
	ask(0, 0, 0);
	while (segment_count)
		close(segments[--segment_count].fd);
}

void engine_alloc_pieces(uint32_t device, struct ty_region *region)
{
	uint32_t count = (uint32_t)((region->offset + region->length + PIECE - 1) / PIECE);
	struct answer got;
	char path[64];

	if (count > ENGINE_PIECES)
		die("too many pieces");
	got = ask(1, device, count);
	region->is_fd = false;
	region->segment_count = count;
	region->segments = segments + segment_count;
	region->allocation_bytes = count * PIECE;
	for (uint32_t i = 0; i < count; i++) {
		snprintf(path, sizeof path, "/proc/%d/fd/%d", engine, got.fds[i]);
		segments[segment_count] = (struct ty_segment){open(path, O_RDWR | O_CLOEXEC), PIECE};
		if (segments[segment_count++].fd < 0)
			die(path);
	}
}

static uint8_t *view_pieces(const struct ty_region *region)
{
	uint8_t *view = mmap(NULL, region->allocation_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	for (uint32_t i = 0; view != MAP_FAILED && i < region->segment_count; i++)
		if (mmap(view + i * PIECE, PIECE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, region->segments[i].fd, 0) == MAP_FAILED)
			die("mmap");
	if (view == MAP_FAILED)
		die("mmap");
	return view + region->offset;
}

uint8_t *engine_view(const struct ty_region *region)
{
	struct standin_handle h;
	char path[64];
	void *view;
	int fd;

	if (region->segment_count)
		return view_pieces(region);
	memcpy(&h, region->ipc_handle, sizeof h);
	snprintf(path, sizeof path, "/proc/%d/fd/%d", h.pid, h.fd);
	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		die(path);
	view = mmap(NULL, region->allocation_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	if (view == MAP_FAILED)
		die("mmap");
	return (uint8_t *)view + region->offset;
}

void engine_unview(const struct ty_region *region, uint8_t *view)
{
	munmap(view - region->offset, region->allocation_bytes);
}
