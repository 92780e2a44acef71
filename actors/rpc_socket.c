/* SPDX-License-Identifier: Apache-2.0 */
#include "rpc_socket.h"

#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "base/log.h"
#include "service.h"
#include "socket_path.h"
#include "wire/request.h"

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

/* `rest` is ADDRESS:PORT. */
static enum ty_code check_tcp(const char *url, const char *rest, struct ty_error *err)
{
	struct in6_addr address;
	char host[64];
	const char *colon = strrchr(rest, ':');
	unsigned long port;

	if (colon == NULL || (size_t)(colon - rest) >= sizeof host || !decimal(colon + 1, 65535, &port) || port == 0)
		return ty_fail(err, TY_INVALID, "listen is \"%s\", expected ADDRESS:PORT with a port of 1..65535", url);
	memcpy(host, rest, (size_t)(colon - rest));
	host[colon - rest] = '\0';
	if (host[0] == '[' && host[strlen(host) - 1] == ']') {
		host[strlen(host) - 1] = '\0';
		if (inet_pton(AF_INET6, host + 1, &address) != 1)
			return ty_fail(err, TY_INVALID, "listen is \"%s\": no IPv6 address in its brackets", url);
	} else if (inet_pton(AF_INET, host, &address) != 1) {
		return ty_fail(err, TY_INVALID, "listen is \"%s\", expected a numeric address: 127.0.0.1 or [::1]", url);
	}
	return TY_OK;
}

static enum ty_code check_tls(const struct ty_config *config, struct ty_error *err)
{
	if (config->tls_cert[0] == '\0')
		return ty_fail(err, TY_INVALID, "listen is \"%s\", and --tls-cert names no file with a certificate and its key",
			config->listen);
	return check_tcp(config->listen, config->listen + strlen("tls+tcp://"), err);
}

static enum ty_code check_plain(const struct ty_config *config, struct ty_error *err)
{
	enum ty_code code = check_tcp(config->listen, config->listen + strlen("tcp://"), err);

	if (code == TY_OK && !config->tcp_insecure)
		return ty_fail(err, TY_DENIED, "listen is \"%s\": tcp tells of nobody who he is; use ipc:// or tls+tcp://, or say "
			"--tcp-insecure on", config->listen);
	return code;
}

/* Which of the options an address is from, for errors. */
static const char *option_of(const struct ty_config *config, const char *url)
{
	return url == config->admin ? "admin" : url == config->events ? "events" : "listen";
}

static enum ty_code prepare(const struct ty_config *config, const char *url, enum ty_rpc_transport *transport,
	struct ty_error *err)
{
	const char *path = url + 6, *option = option_of(config, url);

	if (strncmp(url, "tls+tcp://", 10) == 0) {
		*transport = TY_RPC_TLS;
		return check_tls(config, err);
	}
	if (strncmp(url, "tcp://", 6) == 0) {
		*transport = TY_RPC_TCP;
		return check_plain(config, err);
	}
	*transport = TY_RPC_IPC;
	if (strncmp(url, "ipc://", 6) != 0)
		return ty_fail(err, TY_INVALID, "%s is \"%s\", expected ipc://PATH, tls+tcp://ADDRESS:PORT or tcp://ADDRESS:PORT",
			option, url);
	if (path[0] != '/')
		return ty_fail(err, TY_INVALID, "%s is \"%s\", expected ipc:// and an absolute path", option, url);
	if (strlen(path) >= sizeof((struct sockaddr_un *)0)->sun_path)
		return ty_fail(err, TY_INVALID, "%s: \"%s\" is %zu bytes long, a socket's path at most %zu", option, path, strlen(path),
			sizeof((struct sockaddr_un *)0)->sun_path - 1);
	return ty_socket_path_take(config, option, path, SOCK_STREAM, err);
}

static enum ty_code nng_failure(const struct ty_config *config, const char *url, const char *what, int error, struct ty_error *err)
{
	enum ty_code code = error == NNG_EADDRINUSE ? TY_EXISTS : error == NNG_ENOMEM ? TY_NO_MEMORY : TY_IO;

	if (what == config->tls_cert || what == config->tls_ca)
		return ty_fail(err, code, "--tls-%s: \"%.100s\": %s, expected a PEM file with %s", what == config->tls_ca ? "ca" : "cert",
			what, error == NNG_ENOENT ? "no such file" : nng_strerror(error),
			what == config->tls_ca ? "certificates" : "a certificate and its key");
	return ty_fail(err, code, "listen on \"%s\": %s: %s", url, what, nng_strerror(error));
}

/* ---- the socket ----------------------------------------------------------------------------------------------------- */

void ty_rpc_slot_clear(struct ty_rpc_slot *slot)
{
	struct ty_exchange *exchange = &slot->exchange;

	if (exchange->request == NULL)
		return;
	if (exchange->request->verb_case == TYER__V1__REQUEST__VERB_STATUS && exchange->reply.status != NULL)
		tyer__v1__status_reply__free_unpacked(exchange->reply.status, NULL);
	if (exchange->request->verb_case == TYER__V1__REQUEST__VERB_HELLO && exchange->reply.hello != NULL)
		tyer__v1__hello_reply__free_unpacked(exchange->reply.hello, NULL);
	if ((exchange->request->verb_case == TYER__V1__REQUEST__VERB_CANCEL ||
		exchange->request->verb_case == TYER__V1__REQUEST__VERB_OPERATIONS) && exchange->reply.operations != NULL)
		tyer__v1__operations_reply__free_unpacked(exchange->reply.operations, NULL);
	if (ty_verb_is_admin((uint32_t)exchange->request->verb_case) && exchange->reply.message != NULL)
		protobuf_c_message_free_unpacked(exchange->reply.message, NULL);
	ty_request_free(exchange->request);
	exchange->request = NULL;
	memset(&exchange->reply, 0, sizeof exchange->reply);
}

static enum ty_code make_socket(struct ty_service *service, uint32_t max_requests, struct ty_rpc_socket **out,
	struct ty_error *err)
{
	struct ty_rpc_socket *socket;
	size_t count = (size_t)max_requests + TY_RPC_SPARE, bytes, buckets = 16;

	if (count >= UINT32_MAX || __builtin_mul_overflow(count + 1, sizeof socket->slots[0], &bytes) ||
		__builtin_add_overflow(bytes, sizeof *socket, &bytes))
		return ty_fail(err, TY_INVALID, "max_requests is %u: too large", max_requests);
	while (buckets < count && buckets < (size_t)1 << 20)
		buckets *= 2;
	socket = calloc(1, bytes);
	if (socket != NULL)
		socket->buckets = calloc(buckets, sizeof socket->buckets[0]);
	if (socket == NULL || socket->buckets == NULL) {
		free(socket);
		return ty_fail(err, TY_NO_MEMORY, "no memory for max_requests = %u", max_requests);
	}
	socket->bucket_mask = (uint32_t)buckets - 1;
	socket->service = service;
	socket->count = (uint32_t)count;
	for (uint32_t i = socket->count; i-- > 0;) {
		socket->slots[i].chain = socket->free;
		socket->free = &socket->slots[i];
	}
	*out = socket;
	return TY_OK;
}

enum ty_code ty_rpc_listen(struct ty_service *service, const char *url, struct ty_rpc_edge *edge, struct ty_error *err)
{
	const char *what;
	enum ty_code code = prepare(service->config, url, &edge->transport, err);
	int error;

	if (code == TY_OK && edge->private && edge->transport != TY_RPC_IPC)
		code = ty_fail(err, TY_INVALID, "%s is \"%s\", expected ipc://PATH: others have no credentials",
			option_of(service->config, url), url);
	if (code != TY_OK)
		return code;
	uint64_t two = 2 * (uint64_t)service->config->max_request_bytes;

	edge->service = service;
	/* With its header's room a request of exactly max_request_bytes passes, and one a little longer is answered with
	 * LIMIT; the connection of a longer one is closed without an answer. */
	edge->limits = (struct ty_rpc_limits){
		.connections = TY_RPC_CONNECTIONS_MAX,
		.requests = TY_RPC_CONNECTION_REQUESTS,
		.replies = TY_RPC_CONNECTION_REPLIES,
		.reply_bytes = TY_RPC_CONNECTION_REPLY_BYTES,
		.all_reply_bytes = TY_RPC_REPLY_BYTES,
		.all_frame_bytes = TY_RPC_FRAME_BYTES,
		.request_bytes = two > TY_RPC_REQUEST_BYTES ? two : TY_RPC_REQUEST_BYTES,
		.frame_bytes = (size_t)service->config->max_request_bytes + TY_RPC_HEADER_ROOM,
		.frame_ms = TY_RPC_SEND_TIMEOUT_MS,
	};
	error = ty_rpc_edge_listen(edge, url, &what);
	if (error != 0)
		return nng_failure(service->config, url, what, error, err);
	ty_log(TY_LOG_INFO, "rpc", "listening on %s", url);
	return TY_OK;
}

enum ty_code ty_rpc_open(struct ty_service *service, const char *url, bool admin, struct ty_rpc_socket **out,
	struct ty_error *err)
{
	struct ty_rpc_socket *socket = NULL;
	enum ty_code code;

	*out = NULL;
	code = make_socket(service, admin ? TY_RPC_ADMIN_REQUESTS : service->config->max_requests, &socket, err);
	if (code != TY_OK)
		return code;
	socket->admin = socket->edge.private = admin;
	socket->edge.protocol = &ty_rpc_replies;
	code = ty_rpc_listen(service, url, &socket->edge, err);
	if (code != TY_OK) {
		ty_rpc_close(socket);
		return code;
	}
	*out = socket;
	return TY_OK;
}

void ty_rpc_close(struct ty_rpc_socket *socket)
{
	if (socket == NULL)
		return;
	ty_rpc_edge_free(&socket->edge);
	for (uint32_t i = 0; i <= socket->count; i++)
		ty_rpc_slot_clear(&socket->slots[i]);
	free(socket->buckets);
	free(socket);
}
