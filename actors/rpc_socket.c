/* SPDX-License-Identifier: Apache-2.0 */
#include "rpc_socket.h"

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <nng/protocol/reqrep0/rep.h>

#include "base/log.h"
#include "service.h"
#include "wire/request.h"

/* nng limits a message with REQ's header in it (four bytes a hop). With this room a request of exactly max_request_bytes
 * passes, and one a little longer is answered with LIMIT; nng closes the connection of a longer one without an answer. */
#define HEADER_ROOM 64

/* ---- the address ---------------------------------------------------------------------------------------------------- */

static bool decimal(const char *text, unsigned long max, unsigned long *out)
{
	unsigned long value = 0;

	if (*text == '\0' || strlen(text) > 5 || (text[0] == '0' && text[1] != '\0'))
		return false;
	for (; *text; text++) {
		if (*text < '0' || *text > '9')
			return false;
		value = value * 10 + (unsigned long)(*text - '0');
	}
	*out = value;
	return value <= max;
}

static enum ty_code check_tcp(const char *url, const char *rest, struct ty_error *err)
{
	struct in6_addr address;
	char host[64];
	const char *colon = strrchr(rest, ':');
	unsigned long port;

	if (colon == NULL || (size_t)(colon - rest) >= sizeof host || !decimal(colon + 1, 65535, &port) || port == 0)
		return ty_fail(err, TY_INVALID, "listen is \"%s\", expected tcp://127.0.0.1:PORT with a port of 1..65535", url);
	memcpy(host, rest, (size_t)(colon - rest));
	host[colon - rest] = '\0';
	if (strcmp(host, "127.0.0.1") == 0 || strcmp(host, "[::1]") == 0)
		return TY_OK;
	if (host[0] == '[' && host[strlen(host) - 1] == ']') {
		host[strlen(host) - 1] = '\0';
		if (inet_pton(AF_INET6, host + 1, &address) != 1)
			return ty_fail(err, TY_INVALID, "listen is \"%s\": no IPv6 address in its brackets", url);
	} else if (inet_pton(AF_INET, host, &address) != 1) {
		return ty_fail(err, TY_INVALID, "listen is \"%s\", expected a numeric address: 127.0.0.1 or [::1]", url);
	}
	return ty_fail(err, TY_DENIED,
		"listen is \"%s\": tcp has no credentials, so only 127.0.0.1 and [::1] are allowed", url);
}

static enum ty_code make_directory(const char *path, struct ty_error *err)
{
	char directory[sizeof((struct sockaddr_un *)0)->sun_path];
	const char *slash = strrchr(path, '/');

	if (slash == NULL || slash == path)
		return TY_OK;
	memcpy(directory, path, (size_t)(slash - path));
	directory[slash - path] = '\0';
	if (mkdir(directory, 0700) != 0 && errno != EEXIST)
		return ty_fail(err, TY_IO, "listen: cannot make the directory \"%s\": %s", directory, strerror(errno));
	return TY_OK;
}

/* Is anything there already? Only what refuses a connection is a dead server's and is removed: a file that is no socket, and
 * a socket that we may not ask, stay. */
static enum ty_code take_path(const char *path, struct ty_error *err)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	enum ty_code code = TY_OK;
	struct stat st;
	int fd;

	if (lstat(path, &st) != 0)
		return errno == ENOENT ? TY_OK
				       : ty_fail(err, TY_IO, "listen: cannot look at \"%s\": %s", path, strerror(errno));
	if (!S_ISSOCK(st.st_mode))
		return ty_fail(err, TY_EXISTS, "listen: \"%s\" is there and is no socket", path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return ty_fail(err, TY_IO, "listen: socket: %s", strerror(errno));
	memcpy(address.sun_path, path, strlen(path) + 1);
	if (connect(fd, (struct sockaddr *)&address, sizeof address) == 0 || errno == EAGAIN)
		/* EAGAIN: somebody listens, and has more connections waiting than it accepted */
		code = ty_fail(err, TY_EXISTS, "listen: a server answers on \"%s\" already", path);
	else if (errno != ECONNREFUSED && errno != ENOENT)
		code = ty_fail(err, TY_IO, "listen: cannot connect to \"%s\" to see who has it: %s", path, strerror(errno));
	else if (unlink(path) != 0 && errno != ENOENT)
		code = ty_fail(err, TY_IO, "listen: cannot remove the dead socket \"%s\": %s", path, strerror(errno));
	close(fd);
	return code;
}

static enum ty_code prepare(const char *url, bool *ipc, struct ty_error *err)
{
	const char *path = url + 6;
	enum ty_code code;

	*ipc = strncmp(url, "ipc://", 6) == 0;
	if (!*ipc) {
		if (strncmp(url, "tcp://", 6) == 0)
			return check_tcp(url, path, err);
		return ty_fail(err, TY_INVALID, "listen is \"%s\", expected ipc://PATH, tcp://127.0.0.1:PORT or tcp://[::1]:PORT",
			url);
	}
	if (path[0] != '/')
		return ty_fail(err, TY_INVALID, "listen is \"%s\", expected ipc:// and an absolute path", url);
	if (strlen(path) >= sizeof((struct sockaddr_un *)0)->sun_path)
		return ty_fail(err, TY_INVALID, "listen: \"%s\" is %zu bytes long, a socket's path at most %zu", path, strlen(path),
			sizeof((struct sockaddr_un *)0)->sun_path - 1);
	code = make_directory(path, err);
	return code == TY_OK ? take_path(path, err) : code;
}

static enum ty_code nng_failure(struct ty_error *err, const char *url, const char *what, int error)
{
	enum ty_code code = error == NNG_EADDRINUSE ? TY_EXISTS : error == NNG_ENOMEM ? TY_NO_MEMORY : TY_IO;

	return ty_fail(err, code, "listen on \"%s\": %s: %s", url, what, nng_strerror(error));
}

/* ---- the slots ------------------------------------------------------------------------------------------------------ */

/* On a thread of nng's: only tells the actor, which takes it from there. Nothing of the slot is touched after the send. An
 * actor that is closed has no use for it: the slot stays the socket's. */
static void aio_done(void *arg)
{
	struct ty_rpc_slot *slot = arg;
	uint32_t type = slot->sending ? TY_RPC_SENT : TY_RPC_RECEIVED;

	if (ty_send(slot->exchange.rpc, &slot->exchange.msg, type) != TY_OK)
		return;
}

void ty_rpc_slot_receive(struct ty_rpc_slot *slot)
{
	slot->sending = false;
	nng_aio_set_msg(slot->exchange.aio, NULL);
	nng_aio_set_timeout(slot->exchange.aio, NNG_DURATION_INFINITE);
	nng_ctx_recv(slot->exchange.ctx, slot->exchange.aio);
}

void ty_rpc_slot_send(struct ty_rpc_slot *slot, nng_msg *message)
{
	slot->sending = true;
	nng_aio_set_msg(slot->exchange.aio, message);
	nng_aio_set_timeout(slot->exchange.aio, slot->socket->send_timeout_ms);
	nng_ctx_send(slot->exchange.ctx, slot->exchange.aio);
}

nng_msg *ty_rpc_slot_received(struct ty_rpc_slot *slot, int *error)
{
	nng_msg *message = NULL;

	*error = nng_aio_result(slot->exchange.aio);
	if (*error == 0) {
		message = nng_aio_get_msg(slot->exchange.aio);
		assert(message != NULL);
		slot->pipe = nng_msg_get_pipe(message);
	}
	nng_aio_set_msg(slot->exchange.aio, NULL);
	return message;
}

bool ty_rpc_slot_sent(struct ty_rpc_slot *slot)
{
	int error = nng_aio_result(slot->exchange.aio);
	nng_msg *message;

	if (error == 0)
		return true;
	/* What nng did not send is still ours. */
	message = nng_aio_get_msg(slot->exchange.aio);
	nng_aio_set_msg(slot->exchange.aio, NULL);
	if (message != NULL)
		nng_msg_free(message);
	if (error != NNG_ECLOSED && error != NNG_ECANCELED)
		nng_pipe_close(slot->pipe);
	return false;
}

void ty_rpc_slot_clear(struct ty_rpc_slot *slot)
{
	struct ty_exchange *exchange = &slot->exchange;

	if (exchange->request == NULL)
		return;
	if (exchange->request->verb_case == TYER__V1__REQUEST__VERB_STATUS && exchange->reply.status != NULL)
		tyer__v1__status_reply__free_unpacked(exchange->reply.status, NULL);
	if (exchange->request->verb_case == TYER__V1__REQUEST__VERB_HELLO && exchange->reply.hello != NULL)
		tyer__v1__hello_reply__free_unpacked(exchange->reply.hello, NULL);
	ty_request_free(exchange->request);
	exchange->request = NULL;
	memset(&exchange->reply, 0, sizeof exchange->reply);
}

/* ---- the socket ----------------------------------------------------------------------------------------------------- */

static enum ty_code open_slots(struct ty_rpc_socket *socket, const char *url, struct ty_error *err)
{
	for (uint32_t i = 0; i < socket->count; i++) {
		struct ty_exchange *exchange = &socket->slots[i].exchange;
		int error = nng_aio_alloc(&exchange->aio, aio_done, &socket->slots[i]);

		socket->slots[i].socket = socket;
		if (error != 0)
			return nng_failure(err, url, "nng_aio_alloc", error);
		error = nng_ctx_open(&exchange->ctx, socket->socket);
		if (error != 0)
			return nng_failure(err, url, "nng_ctx_open", error);
	}
	return TY_OK;
}

static enum ty_code start_listening(struct ty_rpc_socket *socket, const char *url, bool ipc, struct ty_error *err)
{
	size_t limit = (size_t)socket->service->config->max_request_bytes + HEADER_ROOM;
	nng_listener listener = NNG_LISTENER_INITIALIZER;
	const char *what = "nng_listener_create";
	int error = nng_listener_create(&listener, socket->socket, url);

	if (error == 0) {
		what = NNG_OPT_RECVMAXSZ;
		error = nng_listener_set_size(listener, NNG_OPT_RECVMAXSZ, limit);
	}
	if (error == 0 && ipc) {
		what = NNG_OPT_IPC_PERMISSIONS;
		error = nng_listener_set_int(listener, NNG_OPT_IPC_PERMISSIONS, 0600);
	}
	if (error == 0) {
		what = "nng_listener_start";
		error = nng_listener_start(listener, 0);
	}
	return error == 0 ? TY_OK : nng_failure(err, url, what, error); /* the listener goes with the socket */
}

enum ty_code ty_rpc_open(struct ty_service *service, struct ty_rpc_socket **out, struct ty_error *err)
{
	const char *url = service->config->listen;
	struct ty_rpc_socket *socket;
	size_t count, bytes, buckets = 16;
	enum ty_code code;
	bool ipc;
	int error;

	*out = NULL;
	code = prepare(url, &ipc, err);
	if (code != TY_OK)
		return code;
	count = (size_t)service->config->max_requests + TY_RPC_SPARE;
	if (count > UINT32_MAX || __builtin_mul_overflow(count, sizeof socket->slots[0], &bytes) ||
		__builtin_add_overflow(bytes, sizeof *socket, &bytes))
		return ty_fail(err, TY_INVALID, "max_requests is %u: too large", service->config->max_requests);
	while (buckets < count && buckets < (size_t)1 << 20)
		buckets *= 2;
	socket = calloc(1, bytes);
	if (socket != NULL)
		socket->buckets = calloc(buckets, sizeof socket->buckets[0]);
	if (socket == NULL || socket->buckets == NULL) {
		free(socket);
		return ty_fail(err, TY_NO_MEMORY, "no memory for max_requests = %u", service->config->max_requests);
	}
	socket->bucket_mask = (uint32_t)buckets - 1;
	socket->service = service;
	socket->send_timeout_ms = TY_RPC_SEND_TIMEOUT_MS;
	socket->count = (uint32_t)count;
	error = nng_rep0_open(&socket->socket);
	code = error == 0 ? open_slots(socket, url, err) : nng_failure(err, url, "nng_rep0_open", error);
	if (code == TY_OK)
		code = start_listening(socket, url, ipc, err);
	if (code != TY_OK) {
		ty_rpc_close(socket);
		return code;
	}
	ty_log(TY_LOG_INFO, "rpc", "listening on %s", url);
	*out = socket;
	return TY_OK;
}

void ty_rpc_socket_end(struct ty_rpc_socket *socket)
{
	for (uint32_t i = 0; i < socket->count; i++)
		nng_ctx_close(socket->slots[i].exchange.ctx);
	/* Waits for callbacks that run right now: each sends one message and returns. */
	for (uint32_t i = 0; i < socket->count; i++)
		nng_aio_stop(socket->slots[i].exchange.aio);
}

void ty_rpc_close(struct ty_rpc_socket *socket)
{
	if (socket == NULL)
		return;
	if (nng_socket_id(socket->socket) > 0)
		nng_close(socket->socket);
	for (uint32_t i = 0; i < socket->count; i++) {
		struct ty_rpc_slot *slot = &socket->slots[i];
		nng_msg *message;

		if (slot->exchange.aio == NULL)
			continue;
		nng_aio_stop(slot->exchange.aio);
		/* A request that nobody read any more, or a reply that nng did not send. After a send that went well nng
		 * has taken the message out. */
		message = nng_aio_get_msg(slot->exchange.aio);
		if (message != NULL)
			nng_msg_free(message);
		nng_aio_free(slot->exchange.aio);
		ty_rpc_slot_clear(slot);
	}
	free(socket->buckets);
	free(socket);
}
