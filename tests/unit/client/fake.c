/* SPDX-License-Identifier: Apache-2.0 */
#include "fake.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <nng/protocol/reqrep0/rep.h>

#include "wire/request.h"

static void must(bool ok, const char *what)
{
	if (!ok) {
		fprintf(stderr, "fake service: %s: %s\n", what, strerror(errno));
		abort();
	}
}

struct ty_client_options fake_client_options(const struct fake *f)
{
	return (struct ty_client_options){.size = sizeof(struct ty_client_options), .url = f->url, .attach_path = f->path,
		.name = "test", .tenant = "t", .model = "m", .dtype = "bf16"};
}

void fake_hello(const struct fake *f, Tyer__V1__Reply *reply)
{
	static Tyer__V1__HelloReply hello;
	static Tyer__V1__Limits limits;
	static Tyer__V1__Device device, *devices[1] = {&device};
	static uint8_t uuid[TY_UUID_BYTES] = {1, 2, 3};

	(void)f;
	tyer__v1__hello_reply__init(&hello);
	tyer__v1__limits__init(&limits);
	tyer__v1__device__init(&device);
	hello.client = FAKE_CLIENT;
	hello.chunk_tokens = 256;
	hello.limits = &limits;
	limits.max_request_bytes = 65536;
	limits.max_timeout_us = 600000000;
	limits.max_operations = 7;
	limits.max_operation_chunks = 11;
	limits.max_chunk_bytes = 13;
	hello.n_devices = 1;
	hello.devices = devices;
	device.name = (char *)"host";
	device.model = (char *)"host memory";
	device.uuid = (ProtobufCBinaryData){.len = sizeof uuid, .data = uuid};
	reply->verb_case = TYER__V1__REPLY__VERB_HELLO;
	reply->hello = &hello;
}

/* ---- nng ------------------------------------------------------------------------------------------------------------- */

static void send_reply(struct fake *f, nng_msg *request, const Tyer__V1__Reply *reply, bool garbage)
{
	nng_msg *msg;

	if (garbage) {
		must(nng_msg_alloc(&msg, 0) == 0 && nng_msg_append(msg, "\xff\xff\xff", 3) == 0, "nng_msg");
	} else {
		must(nng_msg_alloc(&msg, tyer__v1__reply__get_packed_size(reply)) == 0, "nng_msg_alloc");
		tyer__v1__reply__pack(reply, nng_msg_body(msg));
	}
	/* raw mode: the header says whom it goes to */
	must(nng_msg_header_append(msg, nng_msg_header(request), nng_msg_header_len(request)) == 0, "header");
	if (nng_sendmsg(f->rep, msg, 0) != 0)
		nng_msg_free(msg);
	nng_msg_free(request);
}

static void on_request(struct fake *f)
{
	Tyer__V1__Reply reply = TYER__V1__REPLY__INIT;
	enum fake_answer answer = FAKE_REPLY;
	Tyer__V1__Request *request;
	struct ty_error err;
	nng_msg *msg;

	if (nng_recvmsg(f->rep, &msg, NNG_FLAG_NONBLOCK) != 0)
		return;
	must(ty_request_unpack(nng_msg_body(msg), nng_msg_len(msg), 1 << 20, &request, &err) == TY_OK, err.text);
	must(ty_request_check(request, UINT32_MAX, &err) == TY_OK, err.text);
	reply.boot = f->boot;
	reply.id = request->id;
	if (f->options.answer != NULL)
		answer = f->options.answer(f, request, &reply);
	else if (request->verb_case == TYER__V1__REQUEST__VERB_HELLO)
		fake_hello(f, &reply);
	if (answer == FAKE_HOLD) {
		must(f->held_count < FAKE_HELD_MAX, "held");
		f->held_id[f->held_count] = request->id;
		f->held[f->held_count++] = msg;
	} else {
		send_reply(f, msg, &reply, answer == FAKE_GARBAGE);
	}
	tyer__v1__request__free_unpacked(request, NULL);
	atomic_fetch_add_explicit(&f->requests, 1, memory_order_release);
	atomic_store_explicit(&f->holding, f->held_count, memory_order_release);
}

/* Youngest first. */
static void release_held(struct fake *f)
{
	/* Before the first answer: with the last one in hand the test may send the next requests, and waits until they are held. */
	atomic_store_explicit(&f->holding, 0, memory_order_release);
	while (f->held_count > 0) {
		Tyer__V1__Reply reply = TYER__V1__REPLY__INIT;

		f->held_count--;
		reply.boot = f->boot;
		reply.id = f->held_id[f->held_count];
		send_reply(f, f->held[f->held_count], &reply, false);
	}
	atomic_fetch_add_explicit(&f->releases, 1, memory_order_release);
}

/* ---- attach ---------------------------------------------------------------------------------------------------------- */

/* The client may be gone by now: it was closed, or has given up, before it was served. */
static void tell(struct fake *f, const struct ty_attach_frame *frame, int fd, const char *what)
{
	enum ty_code code = ty_attach_send(f->attach_fd, frame, fd, NULL);

	must(code == TY_OK || code == TY_CLOSED, what);
}

void fake_descriptor_ok(struct fake *f, uint32_t number, enum ty_code code)
{
	struct ty_attach_frame frame = {
		.type = TY_ATTACH_DESCRIPTOR_OK, .descriptor_ok = {.number = number, .code = code}};

	tell(f, &frame, -1, "DESCRIPTOR_OK");
}

static void greet(struct fake *f)
{
	struct ty_attach_frame frame = {.type = TY_ATTACH_WELCOME, .welcome.boot = f->boot};
	uint8_t bytes[TY_ATTACH_FRAME_MAX];
	size_t length;
	int fd;

	if (f->options.silent)
		return;
	if (f->options.refuse) {
		frame = (struct ty_attach_frame){.type = TY_ATTACH_REFUSED, .refused = {.code = TY_LIMIT, .text = "max_clients"}};
		tell(f, &frame, -1, "REFUSED");
		return;
	}
	if (f->options.version != 0) {
		length = ty_attach_encode(&frame, bytes);
		bytes[4] = (uint8_t)f->options.version;
		must(send(f->attach_fd, bytes, length, 0) == (ssize_t)length, "send");
		return;
	}
	must(ty_attach_timeline_create(&fd, NULL) == TY_OK, "timeline");
	if (f->timeline != NULL)
		ty_attach_timeline_unmap(f->timeline);
	must(ty_attach_timeline_map(fd, &f->timeline, NULL) == TY_OK, "timeline");
	memset(f->token, 0xab, sizeof f->token);
	memcpy(frame.welcome.token, f->token, sizeof f->token);
	tell(f, &frame, fd, "WELCOME");
	close(fd);
}

static void on_attach(struct fake *f)
{
	struct ty_attach_frame frame;
	int fd;

	if (ty_attach_recv(f->attach_fd, &frame, &fd, NULL) != TY_OK) {
		close(f->attach_fd);
		f->attach_fd = -1;
		return;
	}
	if (frame.type == TY_ATTACH_TIMELINE) {
		ty_attach_timeline_unmap(f->timeline);
		must(ty_attach_timeline_map(fd, &f->timeline, NULL) == TY_OK, "timeline");
		close(fd);
		return;
	}
	must(frame.type == TY_ATTACH_DESCRIPTOR, "frame type");
	if (f->options.descriptor != NULL) {
		f->options.descriptor(f, frame.descriptor.number, fd);
		return;
	}
	close(fd);
	fake_descriptor_ok(f, frame.descriptor.number, TY_OK);
}

/* ---- the socket's end ------------------------------------------------------------------------------------------------- */

#define CLOSE_S 10 /* for nng to close a socket */

static void *close_socket(void *arg)
{
	nng_close(*(nng_socket *)arg);
	free(arg);
	return NULL;
}

/* nng's reaper (1.5.2) waits for ever for a pipe's task now and then, once in a hundred runs on a busy machine, and nng_close for it:
 * such a socket is left to itself. It listens no more by then, and its connections are closed. */
static void close_rep(struct fake *f)
{
	nng_socket *socket = malloc(sizeof *socket);
	struct timespec until;
	pthread_t closer;

	must(socket != NULL, "no memory");
	*socket = f->rep;
	f->rep_open = false;
	must(pthread_create(&closer, NULL, close_socket, socket) == 0, "pthread_create");
	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += CLOSE_S;
	if (pthread_timedjoin_np(closer, NULL, &until) != 0)
		must(pthread_detach(closer) == 0, "pthread_detach");
}

/* ---- the thread ------------------------------------------------------------------------------------------------------ */

static void obey(struct fake *f)
{
	uint64_t count;

	must(read(f->control_fd, &count, sizeof count) == sizeof count, "control");
	if (atomic_exchange_explicit(&f->drop_attach, false, memory_order_acquire) && f->attach_fd >= 0) {
		close(f->attach_fd);
		f->attach_fd = -1;
	}
	if (atomic_exchange_explicit(&f->drop_rep, false, memory_order_acquire)) {
		while (f->held_count > 0)
			nng_msg_free(f->held[--f->held_count]);
		close_rep(f);
	}
	if (atomic_exchange_explicit(&f->release, false, memory_order_acquire))
		release_held(f);
}

static void *run(void *arg)
{
	struct fake *f = arg;
	int recv_fd = -1;

	if (f->rep_open)
		must(nng_socket_get_int(f->rep, NNG_OPT_RECVFD, &recv_fd) == 0, "NNG_OPT_RECVFD");
	while (!atomic_load_explicit(&f->stop, memory_order_acquire)) {
		struct pollfd p[4] = {{f->control_fd, POLLIN, 0}, {f->rep_open ? recv_fd : -1, POLLIN, 0},
			{f->listen_fd, POLLIN, 0}, {f->attach_fd, POLLIN, 0}};

		if (poll(p, 4, -1) < 0)
			continue;
		if (p[0].revents)
			obey(f);
		if (p[1].revents && f->rep_open)
			on_request(f);
		if (p[3].revents && f->attach_fd >= 0 && p[3].fd == f->attach_fd)
			on_attach(f);
		if (p[2].revents) {
			if (f->attach_fd >= 0)
				close(f->attach_fd);
			f->attach_fd = accept4(f->listen_fd, NULL, NULL, SOCK_CLOEXEC);
			must(f->attach_fd >= 0, "accept4");
			greet(f);
		}
	}
	return NULL;
}

/* Listen and serve. */
void fake_resume(struct fake *f, uint64_t boot)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};

	f->boot = boot;
	atomic_store_explicit(&f->stop, false, memory_order_relaxed);
	if (!f->options.no_rep) {
		must(nng_rep0_open_raw(&f->rep) == 0 && nng_listen(f->rep, f->url, NULL, 0) == 0, "nng_listen");
		f->rep_open = true;
	}
	if (!f->options.no_attach) {
		memcpy(address.sun_path, f->path, strlen(f->path));
		f->listen_fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
		must(f->listen_fd >= 0, "socket");
		must(bind(f->listen_fd, (struct sockaddr *)&address, sizeof address) == 0 && listen(f->listen_fd, 8) == 0,
			"listen");
	}
	must(pthread_create(&f->thread, NULL, run, f) == 0, "pthread_create");
}

void fake_start(struct fake *f, const struct fake_options *options)
{
	memset(f, 0, sizeof *f);
	f->options = *options;
	f->listen_fd = f->attach_fd = -1;
	strcpy(f->directory, "/tmp/tyer-client-test-XXXXXX");
	must(mkdtemp(f->directory) != NULL, "mkdtemp");
	if (options->port != 0)
		snprintf(f->url, sizeof f->url, "tcp://127.0.0.1:%u", options->port);
	else
		snprintf(f->url, sizeof f->url, "ipc://%s/rep", f->directory);
	snprintf(f->path, sizeof f->path, "%s/attach", f->directory);
	f->control_fd = eventfd(0, EFD_CLOEXEC);
	must(f->control_fd >= 0, "eventfd");
	fake_resume(f, FAKE_BOOT);
}

void fake_order(struct fake *f, _Atomic bool *what)
{
	uint64_t one = 1;

	atomic_store_explicit(what, true, memory_order_release);
	must(write(f->control_fd, &one, sizeof one) == sizeof one, "control");
}

void fake_wait_holding(struct fake *f, uint32_t count)
{
	while (atomic_load_explicit(&f->holding, memory_order_acquire) < count)
		poll(NULL, 0, 1);
}

void fake_release(struct fake *f)
{
	uint32_t before = atomic_load_explicit(&f->releases, memory_order_acquire);

	fake_order(f, &f->release);
	while (atomic_load_explicit(&f->releases, memory_order_acquire) == before)
		poll(NULL, 0, 1);
}

/* As if it were killed. */
void fake_pause(struct fake *f)
{
	fake_order(f, &f->stop);
	pthread_join(f->thread, NULL);
	while (f->held_count > 0)
		nng_msg_free(f->held[--f->held_count]);
	atomic_store_explicit(&f->holding, 0, memory_order_relaxed);
	if (f->rep_open)
		close_rep(f);
	if (f->attach_fd >= 0)
		close(f->attach_fd);
	if (f->listen_fd >= 0)
		close(f->listen_fd);
	f->attach_fd = f->listen_fd = -1;
	ty_attach_timeline_unmap(f->timeline);
	f->timeline = NULL;
	unlink(f->path);
	if (f->options.port == 0)
		unlink(f->url + strlen("ipc://"));
}

void fake_stop(struct fake *f)
{
	fake_pause(f);
	fake_stop_paused(f);
}

void fake_stop_paused(struct fake *f)
{
	close(f->control_fd);
	rmdir(f->directory);
}
